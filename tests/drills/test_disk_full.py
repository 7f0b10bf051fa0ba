"""A disk is full: one clear message, nothing half-written, and with room the same command goes on.

The small disk is a tmpfs in a mount namespace of its own, which only the drill's commands see.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .measure import half_written
from .runs import Run, results

StartRun = Callable[..., Run]

pytestmark = pytest.mark.drill


class SmallDisk:
    """A tmpfs over a folder, for the commands that are run on it."""

    def __init__(self, start: StartRun, serve: StartRun, folder: Path, megabytes: float) -> None:
        self._start = start
        self._serve = serve
        self._folder = folder
        size = f"size={int(megabytes * 1024)}k"
        # What lies in the folder is copied while it can be seen: the shell holds it open.
        script = (
            f"exec 3<{folder}; mount -t tmpfs -o {size} none {folder}; "
            f"cp -a /proc/self/fd/3/. {folder}; echo mounted; exec sleep 3600"
        )
        self._holder = serve(folder, "unshare", "--mount", "sh", "-ec", script)
        self._holder.wait_until(lambda: "mounted" in self._holder.said)

    def run(self, workspace: Path, command: str, **environment: str) -> Run:
        """Run a shell command in `workspace` on the small disk."""
        inside = self._inside(f"cd {workspace} && {command}")
        return self._start(workspace, *inside, seen=self.seen(workspace), **environment)

    def enlarge(self) -> None:
        """Make room."""
        grow = f"mount -o remount,size=2g {self._folder}"
        done = self._serve(self._folder, *self._inside(grow))
        assert done.wait() == 0, done.said

    def _inside(self, command: str) -> list[str]:
        pid = str(self._holder.process.pid)
        return ["nsenter", "--mount", "-t", pid, "sh", "-c", command]

    def seen(self, path: Path) -> Path:
        """Return where a path lies as the commands on the small disk see it."""
        return Path(f"/proc/{self._holder.process.pid}/root{path}")


@pytest.fixture
def small_disk(start: StartRun, serve: StartRun) -> Callable[[Path, float], SmallDisk]:
    """Return what puts a small disk over a folder."""
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("nsenter"):
        pytest.skip("mounting a small disk needs root, unshare and nsenter")
    if subprocess.run(["unshare", "--mount", "true"], check=False).returncode != 0:
        pytest.skip("no mount namespace can be made here")
    return lambda folder, megabytes: SmallDisk(start, serve, folder, megabytes)


def _assert_one_clear_message(run: Run, *words: str) -> None:
    assert run.wait() == 2, run.said
    assert all(word in run.said for word in words), run.said


def test_registry(
    done: Path,
    expected: dict[str, str],
    small_disk: Callable[[Path, float], SmallDisk],
) -> None:
    registry = done / "registry"
    shutil.rmtree(registry)
    registry.mkdir()
    disk = small_disk(registry, 2)
    run = disk.run(done, "lesionflow retrain")
    _assert_one_clear_message(run, "no space left on the disk", str(registry), "free some space")
    assert half_written(disk.seen(done)) == []
    assert not list(disk.seen(registry).glob("*/versions/v*"))
    assert not list(disk.seen(registry).glob("*/aliases/*"))
    disk.enlarge()
    again = disk.run(done, "lesionflow retrain")
    assert again.wait() == 0, again.said
    assert "promoted v0001" in again.said
    assert results(disk.seen(done)) == expected


def test_data(
    fresh: Path,
    undisturbed: Path,
    expected: dict[str, str],
    small_disk: Callable[[Path, float], SmallDisk],
) -> None:
    sizes = [path.stat().st_size for path in (undisturbed / "data" / "raw").rglob("*.*")]
    disk = small_disk(fresh / "data", sum(sizes) / 2 / 2**20)
    run = disk.run(fresh, "lesionflow retrain")
    _assert_one_clear_message(run, "stage ingest failed", "no space left on the disk")
    assert half_written(disk.seen(fresh)) == []
    disk.enlarge()
    again = disk.run(fresh, "lesionflow retrain")
    assert again.wait() == 0, again.said
    assert results(disk.seen(fresh)) == expected


@pytest.mark.parametrize(
    ("megabytes", "words"),
    [
        pytest.param(0.05, ["the local Ray cluster did not start", "free some"], id="Ray"),
        pytest.param(20, ["no space left on the disk", "free some space"], id="checkpoints"),
    ],
)
def test_temporary_files(
    untrained: Path,
    expected: dict[str, str],
    small_disk: Callable[[Path, float], SmallDisk],
    short_folder: Path,
    megabytes: float,
    words: list[str],
) -> None:
    disk = small_disk(short_folder, megabytes)
    run = disk.run(untrained, "lesionflow retrain", TMPDIR=str(short_folder))
    _assert_one_clear_message(run, *words)
    assert not list(disk.seen(short_folder).glob("lesionflow-*"))
    disk.enlarge()
    again = disk.run(untrained, "lesionflow retrain", TMPDIR=str(short_folder))
    assert again.wait() == 0, again.said
    assert results(untrained) == expected
