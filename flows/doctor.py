"""What `lesionflow doctor` looks for: what would make a run fail, before it does."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.errors import LesionflowError
from components.layout import Layout

LEAST_FREE_GIB = 5


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    ok: bool
    fix: str = ""


def findings(layout: Layout) -> Iterator[Finding]:
    """Yield what was looked at, in the order in which a run would meet it."""
    yield _python()
    yield _params(layout)
    yield _dvc(layout)
    yield _disk(layout)
    yield _fastapi()
    yield _stale_cluster()
    yield _weights()


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(f"Python {version}", sys.version_info >= (3, 11), "use Python 3.11 or 3.12")


def _params(layout: Layout) -> Finding:
    from components.params import load_params

    try:
        params = load_params(layout.params)
    except LesionflowError as error:
        return Finding(f"params.yaml: {error.what}", False, error.fix)
    return Finding(f"params.yaml is valid (recipe {params.recipe})", True)


def _dvc(layout: Layout) -> Finding:
    from tasks.graph import read_graph

    try:
        graph = read_graph(layout.root)
    except LesionflowError as error:
        return Finding(f"DVC: {error.what}", False, error.fix)
    return Finding(
        f"DVC reads the graph: {len(graph.stages)} stages, {len(graph.stale)} out of date", True
    )


def _disk(layout: Layout) -> Finding:
    free = shutil.disk_usage(layout.root).free / 2**30
    return Finding(f"{free:.0f} GiB free", free >= LEAST_FREE_GIB, "free some space on this disk")


def _fastapi() -> Finding:
    version = importlib.metadata.version("fastapi")
    ok = tuple(map(int, version.split(".")[:2])) < (0, 151)
    return Finding(
        f"fastapi {version} suits this Prefect",
        ok,
        'pip install "fastapi<0.151": newer ones stop Prefect\'s server at its start',
    )


def _stale_cluster() -> Finding:
    left = Path("/tmp/ray/ray_current_cluster")
    if "RAY_ADDRESS" in os.environ or not left.exists():
        return Finding("no Ray cluster left behind", True)
    import socket

    address = left.read_text(encoding="utf-8").strip()
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except (OSError, ValueError):
        return Finding(
            f"{left} names a Ray cluster that does not answer ({address})",
            False,
            f"remove {left}: it makes every training end 12 s late",
        )
    return Finding(f"a Ray cluster runs at {address}", True)


def _weights() -> Finding:
    folder = os.environ.get("LESIONFLOW_WEIGHTS")
    if folder is None:
        return Finding("LESIONFLOW_WEIGHTS is not set: weights come from packages or the net", True)
    ok = folder.startswith("s3://") or Path(folder).is_dir()
    return Finding(f"LESIONFLOW_WEIGHTS: {folder}", ok, "name a folder or an s3:// prefix")
