"""The private cluster is ours alone and leaves nothing behind, whoever is killed."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from components.cluster import check_address, connect, local_cluster, lost
from components.errors import ResourceError


def ours(environment: dict[str, str]) -> list[psutil.Process]:
    """Return the processes of a private cluster (its folder is on all their command lines)."""
    folder = str(Path(environment["RAY_AUTH_TOKEN_PATH"]).parent)
    found = []
    for process in psutil.process_iter():
        try:
            if folder in " ".join(process.cmdline()) or folder in process.environ().get(
                "RAY_AUTH_TOKEN_PATH", ""
            ):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return [process for process in found if process.pid != os.getpid()]


def eventually(condition: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def test_private_cluster_is_on_loopback_and_gone_afterwards() -> None:
    with local_cluster(1) as environment:
        assert environment["RAY_ADDRESS"].startswith("127.0.0.1:")
        folder = Path(environment["RAY_AUTH_TOKEN_PATH"]).parent
        assert folder.stat().st_mode & 0o077 == 0, "others can read the token"
        assert ours(environment)
    assert not folder.exists()
    assert eventually(lambda: not ours(environment))


STARTER = """
import json, sys, time
from components.cluster import local_cluster
with local_cluster(1) as environment:
    print(json.dumps(environment), flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_cluster_goes_with_its_starter(end: signal.Signals) -> None:
    import json

    starter = subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    environment = json.loads(starter.stdout.readline())
    folder = Path(environment["RAY_AUTH_TOKEN_PATH"]).parent
    starter.send_signal(end)
    starter.wait()
    assert eventually(lambda: not ours(environment))
    assert eventually(lambda: not folder.exists())


@pytest.mark.slow
def test_folder_of_a_cluster_that_was_killed_whole_is_swept_by_the_next() -> None:
    starter = subprocess.Popen(["true"])
    starter.wait()
    left = Path(tempfile.mkdtemp(prefix=f"lesionflow-ray-{starter.pid}-", dir="/tmp"))
    with local_cluster(1):
        assert not left.exists()


def test_address_that_does_not_answer_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:1")
    with pytest.raises(ResourceError, match="Ray Client") as raised, connect():
        pass
    assert "without ray://" in raised.value.fix


def test_cluster_that_is_gone_is_one_clear_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    started = time.monotonic()
    with pytest.raises(ResourceError, match="nobody answers there") as raised, connect():
        pass
    assert "unset RAY_ADDRESS" in raised.value.fix
    assert time.monotonic() - started < 15


def test_a_cluster_is_lost_when_nobody_answers_at_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        assert lost(address) is None
    assert "the Ray cluster was lost" in str(lost(address))
    assert lost("") is None


def test_job_server_takes_nothing_but_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    with pytest.raises(ResourceError, match="only takes trainings") as raised, connect():
        pass
    assert "on a node of the cluster" in raised.value.fix


def test_job_server_that_is_gone_is_one_clear_error_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(ResourceError, match="nobody answers there"):
        check_address("http://127.0.0.1:1")
    assert time.monotonic() - started < 15


ONE_AFTER_ANOTHER = """
import ray, ray.train
ray.init
from components.cluster import connect, on_this_machine
for _ in range(2):
    with connect(1):
        assert on_this_machine()
        assert ray.get_runtime_context().gcs_address.startswith("127.0.0.1:")
"""


@pytest.mark.slow
def test_process_that_knew_ray_before_connects_to_one_cluster_after_another() -> None:
    subprocess.run([sys.executable, "-c", ONE_AFTER_ANOTHER], check=True, timeout=120)


ALIKE = """
import io, sys, time
import ray  # before the environment says what Ray does with lines that look alike
from components.cluster import connect

@ray.remote(num_cpus=1)
class Trial:
    def end_epoch(self, number):
        print(f"trial {number}: epoch 1/3", flush=True)

sys.stdout = seen = io.StringIO()
with connect(3):
    trials = [Trial.remote() for _ in range(3)]
    ray.get([trial.end_epoch.remote(number) for number, trial in enumerate(trials)])
    end = time.monotonic() + 20
    while seen.getvalue().count("epoch 1/3") < 3 and time.monotonic() < end:
        time.sleep(0.1)
    shown = seen.getvalue()
sys.__stdout__.write(shown)
"""


@pytest.mark.slow
def test_lines_of_workers_that_look_alike_are_all_shown_at_once() -> None:
    driver = [sys.executable, "-c", ALIKE]
    told = subprocess.run(driver, check=True, timeout=120, capture_output=True, text=True).stdout
    assert sorted(told.splitlines()) == [f"trial {number}: epoch 1/3" for number in range(3)]
