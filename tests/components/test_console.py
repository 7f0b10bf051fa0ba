import sys

import pytest

from components.console import PlainWorkerLines


@pytest.mark.parametrize(
    "prefix",
    [
        "(RayTrainWorker pid=123) ",
        "(RayTrainWorker pid=123, ip=10.0.0.2) ",
        "\x1b[36m(RayTrainWorker pid=123)\x1b[0m ",
    ],
)
def test_prefix_of_a_worker_is_taken_off(prefix: str, capsys: pytest.CaptureFixture[str]) -> None:
    with PlainWorkerLines():
        print(f"{prefix}progress a: 1/2 steps\n{prefix}second (pid=1) line")
        print(f"{prefix}problem", file=sys.stderr)
    captured = capsys.readouterr()
    assert captured.out == "progress a: 1/2 steps\nsecond (pid=1) line\n"
    assert captured.err == "problem\n"


def test_own_lines_and_the_streams_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with pytest.raises(ValueError, match="inside"), PlainWorkerLines():
        print("(not a worker) line", flush=True)
        assert sys.stdout.isatty() is False
        raise ValueError("inside")
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "(not a worker) line\n"


def test_paragraph_about_a_lost_worker_becomes_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainWorkerLines():
        print("\x1b[33m(raylet)\x1b[0m A worker died or was killed while executing a task by ...")
        print("(raylet) A worker died or was killed while executing a task by ...")
    assert capsys.readouterr().out == 2 * "a worker was lost (killed, or out of memory)\n"


def test_paragraph_about_a_lost_node_becomes_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainWorkerLines():
        print(
            "\x1b[33m(raylet)\x1b[0m The node with node id: ab12 and address: 10.0.0.2 and "
            "node name: 10.0.0.2 has been marked dead because the detector has missed too many "
            "heartbeats from it. This can happen when a \t(1) raylet crashes unexpectedly \n"
            "\t(2) raylet has lagging heartbeats due to slow network or busy workload."
        )
    assert capsys.readouterr().out == "the node 10.0.0.2 was lost\n"
