"""Whether DVC runs a stage because something changed, or because it was told to (`--force`)."""

from __future__ import annotations

import os
from pathlib import Path


def run_by_force(root: Path, stage: str) -> bool:
    """Tell whether DVC runs this process as `stage` though `dvc.lock` has its result.

    That is: command, parameters and dependencies are as recorded, and DVC's cache holds the
    outputs. Without force DVC would have taken those.
    """
    if os.environ.get("DVC_STAGE", "").rpartition(":")[2] != stage:
        return False
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        found = repo.stage.load_one(str(root / "dvc.yaml"), stage)
        recorded = not any(out.changed_cache() for out in found.outs if out.use_cache)
        return recorded and not found.cmd_changed and not any(dep.status() for dep in found.deps)
