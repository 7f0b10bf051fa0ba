"""A clone that goes with its run: what it is a clone of, and how to have its outputs afterwards."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path

from ruamel.yaml import YAML

from components.atomic import write_json
from components.layout import Layout
from components.repository import commit_of, file_at, recorded_commit


@dataclass(frozen=True)
class CleanClone:
    """Where a clean clone comes from and what is kept of it.

    Attributes
    ----------
    repository
        URL or folder of the Git repository.
    record_on
        Branch that gets the record; None: no branch does.
    remote
        Name of the DVC remote; None: the repository's default.
    """

    repository: str
    record_on: str | None
    remote: str | None


def note_clone(layout: Layout, clone: CleanClone) -> None:
    """Write down that the workspace is removed when its run ends."""
    write_json(layout.clean_clone, asdict(clone))


def noted_clone(layout: Layout) -> CleanClone | None:
    """Return what was noted of the workspace; None: it lasts."""
    if not layout.clean_clone.is_file():
        return None
    return CleanClone(**json.loads(layout.clean_clone.read_text(encoding="utf-8")))


def record_of(layout: Layout, clone: CleanClone) -> str | None:
    """Return the commit of the last record that the clone knows."""
    return recorded_commit(layout.root, clone.record_on) if clone.record_on else None


def fetch_command(layout: Layout, clone: CleanClone, output: Path) -> str | None:
    """Return the command that fetches `output`, as it is now, when the clone is gone.

    None where no commit names it: neither the record nor the one that the clone is at.

    Parameters
    ----------
    output
        File or folder that a stage has as its output.
    """
    name = output.relative_to(layout.root).as_posix()
    lock = layout.root / "dvc.lock"
    present = _hash_in(lock.read_text(encoding="utf-8"), name) if lock.is_file() else None
    for commit in (record_of(layout, clone), commit_of(layout.root, "HEAD")):
        recorded = file_at(layout.root, commit, "dvc.lock") if commit else None
        if recorded is None or present is None or _hash_in(recorded, name) != present:
            continue
        remote = ["--remote", clone.remote] if clone.remote else []
        return shlex.join(["dvc", "get", "--rev", str(commit), *remote, clone.repository, name])
    return None


def _hash_in(lock: str, name: str) -> str | None:
    """Return DVC's hash of the output `name` in the text of a `dvc.lock`."""
    stages = (YAML(typ="safe").load(lock) or {}).get("stages", {})
    outputs = [out for stage in stages.values() for out in stage.get("outs", [])]
    return next((str(out["md5"]) for out in outputs if out["path"] == name), None)
