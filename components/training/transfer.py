"""Packed images and weights on their way to nodes that do not share the driver's disk.

The driver puts them into `storage` once, under the hash of their content; a node takes each from
there once, whatever number of workers it runs, and keeps it for the next training.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from components.backbones.fetch import default_cache, sha256_of
from components.dataset.pack import PackedImages
from components.errors import TableError
from components.training.checkpoint import Storage
from components.training.job import Job

_WHOLE = "whole"  # written last: what has it has all of its files
_KEPT_SECONDS = 7 * 24 * 3600.0


def ship(job: Job) -> Job:
    """Put what `job` needs into its storage, unless it is there; return the job for the workers."""
    packed = PackedImages.open(job.packed)
    files = {path.name: path for path in sorted(job.packed.iterdir())}
    _upload(job, f"packed-{packed.content_id}", files)
    if job.weights.path is not None:
        folder, name = _place_of_weights(job.weights.path, job.weights.sha256)
        _upload(job, folder, {name: job.weights.path})
    return replace(job, packed_id=packed.content_id)


def is_shipped_to(job: Job) -> bool:
    """Tell whether the packed images of `job` are in its storage, as seen from here."""
    target = Storage.open(job.storage).below("content", f"packed-{job.packed_id}")
    return _WHOLE in target.names()


def receive(job: Job) -> Job:
    """Return `job` with the paths of this node, fetched if they are not here."""
    if not job.is_shipped:
        return job
    if not _is_here(job):
        job = replace(job, packed=_download(job, f"packed-{job.packed_id}"))
    path = job.weights.path
    if path is not None and not (path.is_file() and sha256_of(path) == job.weights.sha256):
        folder, name = _place_of_weights(path, job.weights.sha256)
        fetched = _download(job, folder) / name
        job = replace(job, weights=replace(job.weights, path=fetched))
    return job


def _place_of_weights(path: Path, sha256: str) -> tuple[str, str]:
    """Return folder and name of a weights file in a storage, whatever it is called elsewhere.

    The suffix says how it is opened, so the same bytes with two suffixes are two things.
    """
    return f"weights-{sha256}{path.suffix}", f"weights{path.suffix}"


def node_cache() -> Path:
    """Return this node's folder for what came from a storage."""
    return default_cache().parent / "content"


def _is_here(job: Job) -> bool:
    try:
        return PackedImages.open(job.packed).content_id == job.packed_id
    except TableError:
        return False


def _upload(job: Job, name: str, files: Mapping[str, Path]) -> None:
    """Put `files` (name there -> path here) into the folder `name`, unless it is there."""
    from pyarrow.fs import copy_files

    target = Storage.open(job.storage).below("content", name)
    if _WHOLE in target.names():
        return
    target.filesystem.create_dir(target.path, recursive=True)
    for file, path in files.items():
        there = target.below(file).path
        copy_files(str(path), there, destination_filesystem=target.filesystem, use_threads=False)
    with target.filesystem.open_output_stream(target.below(_WHOLE).path):
        pass


def _download(job: Job, name: str) -> Path:
    from filelock import FileLock

    cache = node_cache()
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / name
    with FileLock(cache / f"{name}.lock"):
        if not target.is_dir():
            _forget_old(cache)
            half = cache / f".{name}"
            shutil.rmtree(half, ignore_errors=True)
            Storage.open(job.storage).below("content", name).fetch(half)
            (half / _WHOLE).unlink()
            half.rename(target)
        os.utime(target)
    return target


def _forget_old(cache: Path) -> None:
    """Remove what no training has asked for in a week."""
    for folder in cache.glob("*-*/"):
        if time.time() - folder.stat().st_mtime > _KEPT_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
