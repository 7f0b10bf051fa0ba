"""Finished trainings in the storage: what lies there whole need not be trained again.

Between a training's end and DVC's record of it everything may be killed, or the clone lost that it
ran in. DVC then runs the stage again, and has removed what it wrote. So the model stays in the
storage until a later training of the same name has ended, or for a week. What it went on from is
removed at once.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from components.atomic import write_json
from components.backbones.fetch import sha256_of
from components.errors import TrainingError, WeightsError
from components.training.checkpoint import Storage, last_written
from components.training.job import Job

_NOTE = "finished.json"
_CHECKSUMS = "checksums.json"
_BESIDE_SECONDS = 3600.0  # another workspace with this storage may be about to collect its own


@dataclass(frozen=True)
class Finished:
    """A training that has succeeded, and whose model lies in its storage.

    Attributes
    ----------
    model
        Name of the folder in the run's storage.
    clock
        Wall-clock times in seconds since 1970: `submitted`, `entered`, `first_step`, ...
    """

    model: str
    clock: dict[str, float]


def stored(job: Job) -> Storage:
    """Return the folder of `job` in its storage."""
    return Storage.open(job.checkpoints).below(job.identity)


def put_model(job: Job, folder: Path, name: str) -> None:
    """Put the finished model in the local `folder` into the storage, as the folder `name`."""
    sums = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    write_json(folder / _CHECKSUMS, sums)
    stored(job).below(name).put(folder)


def leave(job: Job, finished: Finished) -> None:
    """Note in the storage that `job` has succeeded, for who takes it here, elsewhere or later."""
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / _NOTE, asdict(finished))
        stored(job).put(Path(folder))


def is_left(job: Job) -> bool:
    """Tell whether `leave` has noted that `job` has succeeded."""
    return _NOTE in stored(job).names()


def forget(job: Job) -> None:
    """Remove all that the storage has of `job`."""
    stored(job).remove()


def forget_all(uri: str) -> bool:
    """Remove what all trainings have left in the storage at `uri`; return whether any had.

    Raises
    ------
    OSError
        The storage cannot be reached, or written to.
    """
    runs = Storage.open(uri, patient=False).below("runs")
    found = bool(runs.names())
    runs.remove()
    return found


def take(job: Job, target: Path, train: Callable[[], None]) -> dict[str, float]:
    """Put the model of `job` into the folder `target`, after `train()` unless it is there already.

    Returns
    -------
    dict
        The clock of `Finished`, and when all was `returned`.

    Raises
    ------
    TrainingError
        `train` has ended, and the storage has no whole model.
    """
    clock = _collect(job, target)
    if clock is not None:
        print(f"{job.name}: was trained before; its model is in {job.checkpoints}", flush=True)
        return clock
    train()
    clock = _collect(job, target)
    if clock is None:
        raise TrainingError(
            f"{job.name} has been trained, but its model is not there",
            where=f"storage: {job.checkpoints}",
            fix="give this machine and the cluster the same storage, and run this again",
        )
    return clock


def _collect(job: Job, target: Path) -> dict[str, float] | None:
    """Put a finished model into `target` if the storage has it whole; return its clock."""
    there = stored(job)
    if not is_left(job):
        return None
    try:
        finished = Finished(**json.loads(there.read(_NOTE)))
        there.below(finished.model).fetch(target)
        _check_whole(target)
    except (ValueError, TypeError, FileNotFoundError, WeightsError) as error:
        print(f"{job.name}: its finished model is damaged ({error}): training on", flush=True)
        there.remove(_NOTE)
        return None
    there.keep_only(_NOTE, finished.model)
    _forget_earlier(job)
    return {**finished.clock, "returned": time.time()}


def _check_whole(folder: Path) -> None:
    sums = json.loads((folder / _CHECKSUMS).read_bytes())
    for name, expected in sums.items():
        if sha256_of(folder / name) != expected:
            raise ValueError(f"{name} has a wrong checksum")


def _forget_earlier(job: Job) -> None:
    """Remove the models that other data, code or parameters have left under the name of `job`."""
    runs = Storage.open(job.checkpoints)
    for name in runs.names():
        other = runs.below(name)
        if name == job.identity or _NOTE not in other.names():
            continue
        if last_written(other) < time.time() - _BESIDE_SECONDS:
            other.remove()
