"""The split that a training in this workspace was given, which may not be the present one."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pandas as pd

from components.layout import Layout
from components.params import read_yaml

_COLUMNS = ["image_id", "split"]


def given_split(layout: Layout, run: str) -> pd.DataFrame | None:
    """Return `image_id` and `split` of the images that a training was given.

    `dvc.lock` names the split of each training. One that DVC has never recorded was given the
    present split.

    Parameters
    ----------
    run
        Name of the training's folder, such as `resnet18-0`.

    Returns
    -------
    DataFrame
        None where that split is neither the present one nor in DVC's cache.
    """
    recorded = _recorded(layout, run)
    path: Path | None = layout.splits
    if recorded is not None and recorded != _md5(layout.splits):
        path = _cached(layout, recorded)
    if path is None or not path.is_file():
        return pd.DataFrame(columns=_COLUMNS) if recorded is None else None
    return pd.read_parquet(path, columns=_COLUMNS)


def _recorded(layout: Layout, run: str) -> str | None:
    lock = layout.root / "dvc.lock"
    if not lock.is_file():
        return None
    stages: dict[str, Any] = read_yaml(lock).get("stages", {})
    wanted = layout.splits.relative_to(layout.root).as_posix()
    inputs = stages.get(f"train@{run}", {}).get("deps", [])
    return next((str(entry["md5"]) for entry in inputs if entry["path"] == wanted), None)


def _md5(path: Path) -> str | None:
    """Return DVC's hash of a file: the MD5 of its bytes."""
    if not path.is_file():
        return None
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _cached(layout: Layout, version: str) -> Path | None:
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        with Repo(str(layout.root)) as repo:
            return Path(repo.cache.local.path) / version[:2] / version[2:]
    except NotDvcRepoError:
        return None
