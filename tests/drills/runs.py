"""A command that a drill starts, watches and kills, and what a run leaves in its workspace."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML

from components.layout import Layout

_MARK = "LESIONFLOW_DRILL"
_AFTER_PACK = ("train", "evaluate", "profile", "rank", "report")


class Run:
    """One command in a folder, in a session of its own, as from a terminal.

    Everything that it starts inherits a mark in its environment: that is how a drill finds it.
    """

    def __init__(self, folder: Path, *command: str, **environment: str) -> None:
        self._mark = uuid.uuid4().hex
        self._log = folder.parent / f"{self._mark}.log"
        kept = {name: value for name, value in os.environ.items() if name != "PREFECT_HOME"}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env={**kept, **environment, _MARK: self._mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """What it has printed so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def processes(self) -> list[psutil.Process]:
        """Return the command's process and all that it started, that still run."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            marked = process.environ().get(_MARK) == self._mark
            return marked and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            return False

    def wait(self, seconds: float = 580) -> int:
        """Return the exit code."""
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill_everything()
            raise AssertionError(f"not ended after {seconds} s:\n{self.said}") from None

    def wait_until(self, condition: Callable[[], object], seconds: float = 580) -> None:
        """Return as soon as `condition` holds; the command must not end before."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"ended too early:\n{self.said}"
            assert time.monotonic() < end, f"nothing seen in {seconds} s:\n{self.said}"
            time.sleep(0.05)

    def interrupt(self) -> None:
        """Press Ctrl-C: a terminal sends it to the whole group in its foreground."""
        os.killpg(self.process.pid, signal.SIGINT)

    def kill_everything(self) -> None:
        """Kill the command and all that it started, as when the machine goes down."""
        for _ in range(3):  # what was being started meanwhile
            for process in self.processes():
                process.kill()
        self.process.wait()

    def leaves_no_process(self, seconds: float = 20) -> bool:
        """Tell whether everything that it started is gone within `seconds`.

        Gone is what two looks in a row do not find: while a process is being replaced by another
        program (`exec`), it has no environment, so no mark, for a moment.
        """
        end = time.monotonic() + seconds
        looks_in_vain = 0
        while looks_in_vain < 2:
            looks_in_vain = 0 if self.processes() else looks_in_vain + 1
            if looks_in_vain == 0 and time.monotonic() > end:
                return False
            time.sleep(0.2)
        return True


def epochs_stored(workspace: Path, storage: str = ".lesionflow/storage") -> int:
    """Return how many epochs the furthest training has stored a checkpoint of."""
    found = (workspace / storage).rglob("epoch-*-*/state.json")
    return max((int(path.parent.name.split("-")[1]) for path in found), default=0)


def went_on_after(run: Run, stored: int) -> bool:
    """Tell whether the user of `run` was told that the training went on after epoch `stored`.

    Or after the one before, where the last one was cut off while it was stored.
    """
    told = {int(epoch) for epoch in re.findall(r"goes on after epoch (\d+)", run.said)}
    return bool(told) and told <= {stored - 1, stored} - {0}


def results(workspace: Path) -> dict[str, str]:
    """Return a hash of everything that must be the same again; measured times are left out."""
    layout = Layout(workspace)
    board = json.loads(layout.leaderboard.read_text(encoding="utf-8"))
    for row in board["rows"]:
        del row["latency_ms"]
    found = {"leaderboard": _sha256(json.dumps(board, sort_keys=True).encode())}
    champion = json.loads(
        (_registry(workspace) / "aliases" / "champion.json").read_text(encoding="utf-8")
    )
    found["champion"] = str(champion["version"])
    patterns = (
        "data/*.parquet",
        "data/packed/*",
        "data/split_ledger.csv",
        "runs/*/*",
        "evaluations/*/*",
        "registry/*/versions/v*/model.safetensors",
        "registry/*/versions/v*/predictions/*",
    )
    for pattern in patterns:
        for path in sorted(workspace.glob(pattern)):
            if path.name.startswith("."):
                continue  # see `measure.half_written`
            found[str(path.relative_to(workspace))] = _sha256(path.read_bytes())
    return found


def states_in_the_ui(workspace: Path) -> list[str]:
    """Return the states that the runs of a workspace are shown in, the first run first."""
    with closing(sqlite3.connect(workspace / ".lesionflow" / "prefect" / "prefect.db")) as database:
        query = "select state_type from flow_run order by start_time"
        return [state for (state,) in database.execute(query)]


def rewind(workspace: Path) -> None:
    """Take a finished workspace back to where its trainings begin; DVC remembers none of them."""
    lock = workspace / "dvc.lock"
    yaml = YAML()
    document: Any = yaml.load(lock.read_text(encoding="utf-8"))
    for stage in list(document["stages"]):
        if stage.partition("@")[0] in _AFTER_PACK:
            del document["stages"][stage]
    with lock.open("w", encoding="utf-8") as file:
        yaml.dump(document, file)
    forgotten = ("runs", "evaluations", "profiles", "registry", "reports/plots")
    forgotten += (".dvc/cache/runs", ".lesionflow/storage/runs")
    for name in forgotten:
        shutil.rmtree(workspace / name, ignore_errors=True)
    for path in (workspace / "reports").glob("*.*"):
        path.unlink()


def _registry(workspace: Path) -> Path:
    return workspace / "registry" / "quickstart-synthetic"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
