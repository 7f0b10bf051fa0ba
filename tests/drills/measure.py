"""What every drill is held to, whatever it disturbs: what its commands leave, and what they say."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from ruamel.yaml import YAML
from safetensors import safe_open

from .runs import Run

_OWNED = ("data", "runs", "evaluations", "profiles", "reports", "registry")
_LEFT_ALONE = (".gitignore", ".lock", ".gitkeep")
_TOLD = (2, 130)  # exit codes of what could not be done, and of Ctrl-C
_MESSAGE = re.compile(r"^lesionflow: ", re.MULTILINE)
_AT_THE_ROOT = ("params.yaml", "dvc.yaml", "dvc.lock")


class Drill:
    """The commands of one drill, and what they need; nothing of it outlives the drill.

    A command is held to the measure when it has ended: before the next one of the drill begins,
    and at the drill's end. So no drill can forget it.

    Attributes
    ----------
    patience
        For how many seconds what a command started may outlive it.
    """

    patience = 20.0

    def __init__(self) -> None:
        self._commands: list[Run] = []
        self._services: list[Run] = []
        self._left: dict[Path, set[str]] = {}

    def start(
        self, folder: Path, *command: str, seen: Path | None = None, **environment: str
    ) -> Run:
        """Start a command of the user; `seen` is where we see its workspace, if not at `folder`."""
        self._hold_to_the_measure(self._ended())
        workspace = seen or folder
        if workspace not in self._left:  # what a drill leaves there before its first command
            self._left[workspace] = set(half_written(workspace))
        self._commands.append(Run(folder, *command, **environment))
        return self._commands[-1]

    def serve(self, folder: Path, *command: str, **environment: str) -> Run:
        """Start what the commands need and the drill itself ends: a server, a node, a disk."""
        self._services.append(Run(folder, *command, **environment))
        return self._services[-1]

    def check(self) -> None:
        """Hold all that was started to the measure, now that nothing is at work any more."""
        assert self._ended() == self._commands, "a command is still at work"
        self._hold_to_the_measure(self._commands)
        for workspace, left in self._left.items():
            new = set(half_written(workspace)) - left
            assert not new, f"half-written, under temporary names: {sorted(new)}"

    def end(self) -> None:
        """Kill what is still at work."""
        for run in (*reversed(self._commands), *reversed(self._services)):
            run.kill_everything()

    def _ended(self) -> list[Run]:
        return [run for run in self._commands if run.process.poll() is not None]

    def _hold_to_the_measure(self, commands: list[Run]) -> None:
        for run in commands:
            assert run.leaves_no_process(self.patience), f"{run.processes()} outlive:\n{run.said}"
            assert "Traceback" not in run.said, run.said
            if run.process.returncode in _TOLD:
                assert len(_MESSAGE.findall(run.said)) == 1, f"not one message:\n{run.said}"
        if commands == self._commands:  # nobody writes at the moment
            for workspace in self._left:
                assert not (found := damaged(workspace)), f"half-written: {found}"


def half_written(workspace: Path) -> list[str]:
    """Return what lies under a temporary name in a result's or the registry's folder."""
    return [
        str(path.relative_to(workspace))
        for folder in _OWNED
        for path in (workspace / folder).rglob(".*")
        if path.name not in _LEFT_ALONE
    ]


def damaged(workspace: Path) -> list[str]:
    """Return what lies under a final name and cannot be read to its end."""
    files = [workspace / name for name in _AT_THE_ROOT]
    for folder in _OWNED:
        files += (path for path in (workspace / folder).rglob("*") if path.is_file())
    found = []
    for path in sorted(files):
        name = path.relative_to(workspace)
        if not path.exists() or any(part.startswith(".") for part in name.parts):
            continue  # not made yet, or under a temporary name
        try:
            _READERS[path.suffix](path)
        except Exception as error:  # whatever the reader of a format raises
            found.append(f"{name}: {type(error).__name__}: {error}")
    return found


def _read_text(path: Path) -> None:
    assert path.read_text(encoding="utf-8").endswith("\n"), "its last line is cut off"


def _read_page(path: Path) -> None:
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>"), "it is cut off"


def _read_image(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


def _read_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None, "a member is damaged"


def _read_weights(path: Path) -> None:
    with safe_open(path, "numpy") as weights:
        for name in weights.keys():  # noqa: SIM118 - no mapping
            weights.get_tensor(name)


_READERS: dict[str, Callable[[Path], object]] = {
    ".csv": _read_text,
    ".html": _read_page,
    ".jpg": _read_image,
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".lock": lambda path: YAML(typ="safe").load(path),
    ".md": _read_text,
    ".npy": lambda path: np.load(path, mmap_mode="r"),
    ".parquet": pd.read_parquet,
    ".png": _read_image,
    ".safetensors": _read_weights,
    ".yaml": lambda path: YAML(typ="safe").load(path),
    ".zip": _read_archive,
}
