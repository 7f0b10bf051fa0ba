"""The UI is served on loopback, is found by later commands, and ends with its command."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from components.errors import ResourceError
from components.layout import Layout
from flows.server import answers, running_server
from flows.workspace import exclusive

Command = Callable[..., subprocess.CompletedProcess[str]]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_ui_is_found_while_it_runs_and_leaves_nothing_when_it_is_terminated(
    workspace: Path, lesionflow: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_SERVER_METRICS_ENABLED", "true")
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    layout = Layout(workspace)
    with _ui(workspace, port) as server:
        assert "already served" in lesionflow(workspace, "ui", "--port", str(port)).stdout
        with urllib.request.urlopen(f"{url}/api/metrics", timeout=30) as metrics:  # Prometheus
            assert b"process_resident_memory_bytes " in metrics.read()
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)
    assert running_server(layout) is None
    assert not answers(url)


def test_where_another_workspace_has_the_port_of_a_server_that_was_killed_none_is_found(
    workspace: Path, tmp_path: Path
) -> None:
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    here, other = Layout(workspace), Layout(tmp_path / "other")
    with _ui(workspace, port) as ui:
        # What the other one's server on this port left when the machine went down.
        shutil.copytree(here.state, other.state)
        assert running_server(other) is None
        (server,) = psutil.Process(ui.pid).children()
        ui.kill()
        ui.wait()
        assert running_server(here) == url  # its server lives on
        server.kill()
        server.wait(timeout=30)
    assert running_server(here) is None


@contextmanager
def _ui(workspace: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run `lesionflow ui` as a user would; it is found when the block begins."""
    ui = subprocess.Popen(
        ["lesionflow", "ui", "--port", str(port)],
        cwd=workspace,
        env={name: value for name, value in os.environ.items() if name != "PREFECT_HOME"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 120
        while running_server(Layout(workspace)) is None and time.monotonic() < end:
            time.sleep(0.5)
        assert running_server(Layout(workspace)) == f"http://127.0.0.1:{port}"
        yield ui
    finally:
        ui.terminate()
        ui.wait(timeout=60)


def test_a_database_in_another_place_needs_nothing_in_the_workspace(
    workspace: Path, lesionflow: Command, edit_params: Callable[..., None], tmp_path: Path
) -> None:
    edit_params(workspace, sources=[{"kind": "ham10000", "uri": "/nowhere/at/all"}])  # a short run
    home = tmp_path / "home" / "prefect"
    done = lesionflow(workspace, "retrain", PREFECT_HOME=str(home))
    assert done.returncode == 2
    assert "/nowhere/at/all" in done.stderr
    assert "Traceback" not in done.stderr
    assert (home / "prefect.db").is_file()


@pytest.mark.slow
def test_schedule_plans_the_runs_of_params(
    workspace: Path, lesionflow: Command, edit_params: Callable[..., None], tmp_path: Path
) -> None:
    edit_params(workspace, schedule={"retrain_cron": "0 3 * * 0", "ingest_cron": None})
    port = _free_port()
    with _serving(workspace, port, tmp_path / "log"):
        end = time.monotonic() + 120
        while not (planned := _planned(port)) and time.monotonic() < end:
            time.sleep(0.5)
        # What is served keeps its times.
        edit_params(workspace, schedule={"retrain_cron": "30 7 * * *", "ingest_cron": "0 5 * * *"})
        _wait_until_polled(port, "retrain/scheduled")
        told = lesionflow(workspace, "status").stdout
    assert planned, (tmp_path / "log").read_text()[-3000:]
    assert all("T03:00:00" in start for start in planned)
    assert re.search(r"next runs  as served; .*\n  retrain  Sun \S+ 03:00 UTC, in ", told), told
    assert _what_runs_do(told).keys() == {"retrain"}
    assert not answers(f"http://127.0.0.1:{port}")


@pytest.mark.slow
def test_of_the_runs_that_a_cron_starts_the_first_waits_and_works_and_the_others_do_no_stage(
    finished_copy: Path, edit_params: Callable[..., None], tmp_path: Path
) -> None:
    edit_params(
        finished_copy,
        backbones__resnet18={"learning_rate": 0.0005},
        schedule={"retrain_cron": "* * * * *", "ingest_cron": None},
    )
    layout = Layout(finished_copy)
    layout.events.unlink()
    with _serving(finished_copy, _free_port(), tmp_path / "log"):
        with exclusive(layout):  # another run is at work when the first one starts
            _wait_for(layout, "run_started", 1, seconds=180)
            time.sleep(3)
            assert not _events(layout, "stage_started")
        _wait_for(layout, "run_ended", 3, seconds=420)
    ended = _events(layout, "run_ended")[:3]
    assert [run["state"] for run in ended] == ["Completed"] * 3, (tmp_path / "log").read_text()
    done = _events(layout, "stage_started")
    assert {each["run_id"] for each in done} == {ended[0]["run_id"]}
    assert "train@resnet18-0" in {each["stage"] for each in done}
    for run in ended[1:]:
        cached = [
            each for each in _events(layout, "stage_cached") if each["run_id"] == run["run_id"]
        ]
        assert len(cached) == 17


@pytest.mark.slow
def test_an_ingest_that_finds_new_data_starts_a_retrain_on_them(
    finished_copy: Path, edit_params: Callable[..., None], tmp_path: Path
) -> None:
    edit_params(
        finished_copy,
        sources__0__options__lesions=152,
        schedule={"retrain_cron": None, "ingest_cron": None},
    )
    layout = Layout(finished_copy)
    layout.events.unlink()
    port = _free_port()
    with _serving(finished_copy, port, tmp_path / "log"):
        ingest = _started_by_hand(port, "ingest/scheduled")
        _wait_for(layout, "run_started", 2, seconds=400)
        started = _events(layout, "run_started")
        assert [run["flow"] for run in started] == ["ingest", "retrain"]
        assert started[0]["run_id"] == ingest
        retrain = _ask(port, f"flow_runs/{started[1]['run_id']}")
        assert retrain["created_by"]["type"] == "AUTOMATION"
        # What the ingest has taken in is what this one trains on.
        _wait_for(layout, "stage_started", len(_of_run(layout, ingest)) + 1, seconds=180)
    (ended, *_) = _events(layout, "run_ended")
    assert (ended["run_id"], ended["state"]) == (ingest, "Completed")
    assert {"ingest", "split"} <= _of_run(layout, ingest)
    trained = _of_run(layout, str(retrain["id"]))
    assert trained
    assert "ingest" not in trained


def _of_run(layout: Layout, run_id: str) -> set[str]:
    """Return the stages that a run has started."""
    return {e["stage"] for e in _events(layout, "stage_started") if e["run_id"] == run_id}


def _hang_up(group: int, number: int) -> None:
    """Close the terminal of `group`: bash tells its jobs, then the kernel tells them again."""
    os.killpg(group, number)
    time.sleep(0.005)
    os.killpg(group, number)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "tell"),
    [
        # What a terminal sends, and to whom; what `kill` and a service manager send.
        pytest.param(signal.SIGINT, os.killpg, id="ctrl-c"),
        pytest.param(signal.SIGTERM, os.kill, id="terminated"),
        pytest.param(signal.SIGHUP, _hang_up, id="hang-up"),
    ],
)
def test_a_run_that_is_under_way_when_schedule_is_told_to_end_is_cancelled_and_shown_so(
    workspace: Path,
    edit_params: Callable[..., None],
    tmp_path: Path,
    number: signal.Signals,
    tell: Callable[[int, int], None],
) -> None:
    edit_params(workspace, schedule={"retrain_cron": None, "ingest_cron": None})
    layout = Layout(workspace)
    port = _free_port()
    with _ingesting(workspace, port, tmp_path / "log") as server:
        tell(server.pid, number)
        server.wait(timeout=90)
    said = (tmp_path / "log").read_text()
    assert server.returncode == 0, said
    assert "Traceback" not in said
    assert "connection attempts failed" not in said
    assert not answers(f"http://127.0.0.1:{port}")
    with closing(sqlite3.connect(layout.state / "prefect" / "prefect.db")) as database:
        states = database.execute("select state_type from flow_run").fetchall()
    assert states == [("CANCELLED",)], said
    assert [each["state"] for each in _events(layout, "run_ended")] == ["Cancelled"]
    assert "All deployments have been paused" in said  # the server took that, too
    with exclusive(layout):
        pass


@pytest.mark.slow
def test_schedule_that_is_told_twice_ends_at_once_and_leaves_no_process(
    workspace: Path, edit_params: Callable[..., None], tmp_path: Path
) -> None:
    edit_params(workspace, schedule={"retrain_cron": None, "ingest_cron": None})
    port = _free_port()
    with _ingesting(workspace, port, tmp_path / "log") as server:
        below = psutil.Process(server.pid).children(recursive=True)
        os.killpg(server.pid, signal.SIGINT)
        time.sleep(0.2)
        os.killpg(server.pid, signal.SIGINT)
        server.wait(timeout=5)
        _, left = psutil.wait_procs(below, timeout=30)
    assert not left
    assert not answers(f"http://127.0.0.1:{port}")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=["ctrl-c", "hang-up"])
def test_schedule_ends_without_a_traceback_and_with_its_server(
    workspace: Path, edit_params: Callable[..., None], tmp_path: Path, number: signal.Signals
) -> None:
    edit_params(workspace, schedule={"retrain_cron": "0 3 * * 0", "ingest_cron": None})
    port = _free_port()
    with _serving(workspace, port, tmp_path / "log") as server:
        end = time.monotonic() + 120
        while not _planned(port) and time.monotonic() < end:
            time.sleep(0.5)
        os.killpg(server.pid, number)
        server.wait(timeout=60)
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert not answers(f"http://127.0.0.1:{port}")


@pytest.mark.slow
def test_schedule_ends_with_a_word_when_its_server_has_ended(
    workspace: Path, edit_params: Callable[..., None], tmp_path: Path
) -> None:
    """A service manager sees that, and starts it again; nothing was started any more otherwise."""
    edit_params(workspace, schedule={"retrain_cron": "0 3 * * 0", "ingest_cron": None})
    port = _free_port()
    with _serving(workspace, port, tmp_path / "log") as schedule:
        end = time.monotonic() + 120
        while not _planned(port) and time.monotonic() < end:
            time.sleep(0.5)
        below = psutil.Process(schedule.pid).children(recursive=True)
        for process in below:
            if "prefect" in process.cmdline() and "server" in process.cmdline():
                process.kill()
        assert schedule.wait(timeout=30) == ResourceError.exit_code
        _, left = psutil.wait_procs(below, timeout=30)
    said = (tmp_path / "log").read_text()
    assert not left
    assert "the Prefect server ended (exit code -9)" in said
    assert "Traceback" not in said


@pytest.mark.drill
def test_a_run_that_is_cancelled_while_it_trains_leaves_no_process_and_no_lock(
    finished_copy: Path, edit_params: Callable[..., None], tmp_path: Path
) -> None:
    edit_params(
        finished_copy,
        backbones__resnet18={"epochs": 1000},
        schedule={"retrain_cron": None, "ingest_cron": None},
    )
    layout = Layout(finished_copy)
    layout.events.unlink()
    port = _free_port()
    with _serving(finished_copy, port, tmp_path / "log") as server:
        run_id = _started_by_hand(port, "retrain/scheduled")
        _wait_for(layout, "run_started", 1, seconds=180)
        end = time.monotonic() + 400
        while len(list(finished_copy.glob(".lesionflow/storage/**/epoch-*"))) < 2:
            assert time.monotonic() < end, (tmp_path / "log").read_text()[-3000:]
            time.sleep(0.5)
        cluster, of_run = _processes_of_run(server)
        assert any("ray::" in " ".join(process.cmdline()) for process in of_run)
        # What the button of the UI sends.
        _ask(port, f"flow_runs/{run_id}/set_state", {"state": {"type": "CANCELLING"}})
        _wait_for(layout, "run_ended", 1, seconds=90)
        _, left = psutil.wait_procs(of_run, timeout=30)
        assert not left
        assert [each["state"] for each in _events(layout, "run_ended")] == ["Cancelled"]
        assert _ask(port, f"flow_runs/{run_id}")["state"]["type"] == "CANCELLED"
        assert not cluster.exists()
        assert not [each for each in psutil.process_iter() if str(cluster) in _command(each)]
        with exclusive(layout):
            pass


def _processes_of_run(server: subprocess.Popen[bytes]) -> tuple[Path, list[psutil.Process]]:
    """Return the folder of the run's private Ray cluster, and every process of the run."""
    for child in psutil.Process(server.pid).children():
        below = child.children(recursive=True)
        for process in below:
            command = process.cmdline()
            if "components.cluster" in command:
                folder = command[command.index("components.cluster") + 1]
                return Path(folder), [child, *below]
    raise AssertionError("no run with a cluster below `lesionflow schedule`")


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has ended, or is nobody's business
        return ""


def _started_by_hand(port: int, deployment: str) -> str:
    """Start a run of `deployment`, once it is served, as the UI does; return its id."""
    end = time.monotonic() + 120
    while True:
        try:
            found = _ask(port, f"deployments/name/{deployment}")
            return str(_ask(port, f"deployments/{found['id']}/create_flow_run", {})["id"])
        except OSError:  # not there yet, or the server's database is busy
            assert time.monotonic() < end
            time.sleep(0.5)


def _ask(port: int, path: str, body: dict[str, Any] | None = None) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


@contextmanager
def _serving(workspace: Path, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `lesionflow schedule` as a user would."""
    with log.open("wb") as lines:
        server = subprocess.Popen(
            ["lesionflow", "schedule", "--port", str(port)],
            cwd=workspace,
            env={name: value for name, value in os.environ.items() if name != "PREFECT_HOME"},
            stdout=lines,
            stderr=lines,
            start_new_session=True,
        )
    try:
        yield server
    finally:
        server.terminate()
        server.wait(timeout=60)


@contextmanager
def _ingesting(workspace: Path, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `lesionflow schedule`; a run that it has started is at a stage when the block begins."""
    with _serving(workspace, port, log) as server:
        _started_by_hand(port, "ingest/scheduled")
        _wait_for(Layout(workspace), "stage_started", 1, seconds=180)
        yield server


def _events(layout: Layout, name: str) -> list[dict[str, Any]]:
    if not layout.events.exists():
        return []
    lines = map(json.loads, layout.events.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line["event"] == name]


def _wait_for(layout: Layout, name: str, count: int, seconds: float) -> None:
    end = time.monotonic() + seconds
    while len(_events(layout, name)) < count:
        assert time.monotonic() < end, f"no {name} {count} in {seconds:g} s"
        time.sleep(0.5)


def _wait_until_polled(port: int, deployment: str) -> None:
    """Return when the server knows that something waits for `deployment`."""
    end = time.monotonic() + 60
    while _ask(port, f"deployments/name/{deployment}")["status"] != "READY":
        assert time.monotonic() < end
        time.sleep(0.5)


def _planned(port: int) -> list[str]:
    try:
        return [run["expected_start_time"] for run in _ask(port, "flow_runs/filter", {})]
    except OSError:
        return []


def test_status_tells_what_is_out_of_date_and_why(finished_copy: Path, lesionflow: Command) -> None:
    told = lesionflow(finished_copy, "status").stdout
    assert "all 17 up to date" in told
    assert "next runs  by params.yaml; nobody waits for them: `lesionflow schedule`" in told
    assert _what_runs_do(told) == {"ingest": "else nothing", "retrain": "else nothing"}
    params = finished_copy / "params.yaml"
    text = params.read_text(encoding="utf-8")
    params.write_text(text.replace("resnet18: {}", "resnet18: {epochs: 3}"), encoding="utf-8")
    told = lesionflow(finished_copy, "status").stdout
    assert max(map(len, told.splitlines())) < 80
    assert "5 of 17 out of date" in told
    assert _what_runs_do(told) == {"ingest": "else nothing", "retrain": "5 stages as things are"}
    assert "Completed  retrain" in told
    assert "train@resnet18-0: params.yaml: backbones.resnet18 modified" in told
    assert "v0001" in told


def _what_runs_do(told: str) -> dict[str, str]:
    """Return, of the next runs that `status` tells, what each does but look for new data."""
    runs = told.partition("next runs")[2].partition("last runs")[0]
    each = re.findall(r"^  (\w+) +\w{3} ((?:.*\n)(?: {11}.*\n)?)", runs, re.MULTILINE)
    return {flow: " ".join(line.split()).rpartition("; ")[2] for flow, line in each}


def test_doctor_finds_nothing_wrong_here(workspace: Path, lesionflow: Command) -> None:
    done = lesionflow(workspace, "doctor")
    assert "DVC reads the graph: 17 stages" in done.stdout
    assert "BAD  params" not in done.stdout
