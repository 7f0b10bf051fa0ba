"""What a stage wrote when it last succeeded, put back when it fails.

DVC removes a stage's outputs before it runs the stage. `persist: true` would leave them, but DVC
keeps no run of such a stage, and what lay there could get into a result. So they are had back from
DVC's cache, as `dvc.lock` records them.

Usage: python -m components.last_good STAGE (for a stage whose process has ended without a word)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dvc.repo import Repo


def put_back_own(root: Path, stage: str) -> None:
    """Put back what lay there before DVC ran this process as `stage`, and print what that is.

    Where DVC did not start it, nothing was removed, and nothing is done. A failure is printed: it
    must not hide what the stage failed with.
    """
    if os.environ.get("DVC_STAGE", "").rpartition(":")[2] != stage:
        return
    try:
        names = put_back(root, stage, locked=True)
    except Exception as error:
        print(
            f"{stage}: what it last wrote cannot be put back ({error}); "
            f"`dvc checkout --force {stage}` tries it again",
            file=sys.stderr,
            flush=True,
        )
        return
    if names:
        print(f"{stage}: put back what it last wrote: {', '.join(names)}", flush=True)


def put_back(root: Path, stage: str, *, locked: bool) -> list[str]:
    """Put the outputs of `stage` that differ from `dvc.lock` back, and return their paths.

    All or none: they belong together. None where one of them is not in DVC's cache. What a failed
    run left half-written is removed first.

    Parameters
    ----------
    root
        Folder of the workspace.
    stage
        As DVC names it, such as `train@resnet18-0`.
    locked
        Whether DVC has locked the outputs for this process: it runs as the stage.

    Raises
    ------
    DvcException
        Another process works on the outputs, or they cannot be written.
    """
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        recorded = [
            out
            for out in repo.stage.load_one(str(root / "dvc.yaml"), stage).outs
            if out.use_cache and out.hash_info
        ]
        with nullcontext() if locked else _lock(repo, recorded):
            changed = [out for out in recorded if out.workspace_status()]
            if any(out.changed_cache() for out in changed):
                return []
            _check_out(changed)
        return sorted(str(out.def_path) for out in changed)


def _check_out(outputs: list[Any]) -> None:
    _remove(outputs)
    try:
        for out in outputs:
            out.checkout()
    except BaseException:
        _remove(outputs)  # nothing is better than a part
        raise


def _remove(outputs: list[Any]) -> None:
    for out in outputs:
        out.remove()


@contextmanager
def _lock(repo: Repo, outputs: list[Any]) -> Iterator[None]:
    """Hold DVC's lock on `outputs`; raise where another process works on them."""
    from dvc.rwlock import rwlock

    command, paths = " ".join(sys.argv), [out.fs_path for out in outputs]
    hardlink = repo.config["core"].get("hardlink_lock", False)
    with rwlock(repo.tmp_dir, repo.fs, command, [], paths, hardlink):
        yield


if __name__ == "__main__":
    put_back(Path.cwd(), sys.argv[1], locked=False)
