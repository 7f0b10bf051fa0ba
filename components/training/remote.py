"""A training as a Ray job, for a client outside of the cluster (`RAY_ADDRESS=http://…`).

The code travels with the job, data and weights through `storage`, and there the client finds the
model. What opens S3 does not travel: the cluster has its own role or credentials.
"""

from __future__ import annotations

import json
import os
import pickle
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from components import errors
from components.cluster import S3_PLACE
from components.errors import LesionflowError, ParamsError, TrainingError
from components.job_server import JobServer
from components.training.finished import take
from components.training.job import Job
from components.training.transfer import is_shipped_to, ship

JOB = "job.pickle"
_CODE = Path(__file__).resolve().parents[1]
_FAILURE = "lesionflow-failure "
_IDENTITY = "lesionflow_identity"


@dataclass(frozen=True)
class Order:
    """What the client tells the cluster: a training, and where S3 is."""

    job: Job
    environment: dict[str, str]


def check_storage(storage: str) -> None:
    """Check that `storage` (as in params.yaml) can be the same place here and on the cluster.

    Raises
    ------
    ParamsError
        It is a folder of this workspace.
    """
    if storage.startswith("s3://") or Path(storage).is_absolute():
        return
    raise ParamsError(
        f"{storage!r} is a folder of this workspace, which the cluster does not see",
        where="params.yaml: storage",
        fix="set it to s3://bucket/prefix, or to the absolute path of a folder that this machine "
        "shares with the cluster",
    )


def check_shipped(job: Job) -> None:
    """Check, on the cluster, that what the client has put into the storage is there.

    Raises
    ------
    ParamsError
        It is not: the storage is a folder that the cluster does not share.
    """
    if not is_shipped_to(job):
        raise ParamsError(
            "the cluster does not find there what this machine has put there",
            where=f"params.yaml: storage: {job.storage}",
            fix="set it to s3://bucket/prefix, or to a folder that this machine shares with the "
            "cluster",
        )


def run_remotely(job: Job, target: Path, address: str) -> dict[str, float]:
    """Train `job` through the job server at `address`; put what it left into the folder `target`.

    A training of the same identity that is under way there is followed; one that has ended while
    nobody looked is collected.

    Returns
    -------
    dict
        As `run_training`.

    Raises
    ------
    ResourceError
        The job server cannot be used.
    LesionflowError
        As `run_training`.
    """
    return take(job, target, lambda: _train(JobServer(address), ship(job)))


def failure_line(error: LesionflowError) -> str:
    """Return the line by which a job tells its client why it has failed."""
    kind = type(error).__name__
    return _FAILURE + json.dumps([kind, error.what, error.where, error.fix])


def _train(server: JobServer, job: Job) -> None:
    metadata = {"lesionflow_training": job.name, _IDENTITY: job.identity}
    under_way = server.find(metadata)
    if under_way is not None:
        print(f"{job.name}: is under way on the cluster as {under_way}, following it", flush=True)
        if _follow(server, under_way, job):
            return  # else it was being stopped
    name = f"lesionflow-{job.name}-{job.identity[:8]}-{secrets.token_hex(3)}"
    with tempfile.TemporaryDirectory(prefix="lesionflow-") as folder, server.ended_with_us(name):
        shutil.copytree(
            _CODE, Path(folder) / _CODE.name, ignore=shutil.ignore_patterns("__pycache__")
        )
        place = {name: os.environ[name] for name in S3_PLACE if name in os.environ}
        (Path(folder) / JOB).write_bytes(pickle.dumps(Order(job, place)))
        server.submit(name, "python -m components.training.on_cluster", Path(folder), metadata)
        print(f"{job.name}: is job {name} of {server.address}", flush=True)
    if not _follow(server, name, job):
        raise TrainingError(
            f"the training of {job.name} was stopped on the cluster",
            where=f"job {name} of {server.address}",
            fix="run the same command again: it goes on after the last finished epoch",
        )


def _follow(server: JobServer, name: str, job: Job) -> bool:
    """Show the lines of a job until it has ended; return False if it was stopped."""
    failure: LesionflowError | None = None
    with server.ended_with_us(name):
        for line in server.lines(name):
            if line.startswith(_FAILURE):
                kind, what, where, fix = json.loads(line.removeprefix(_FAILURE))
                failure = getattr(errors, kind)(what, where=where, fix=fix)
            else:
                print(line, flush=True)
    if failure is not None:
        raise failure
    status, message = server.outcome(name)
    if status == "FAILED":
        raise TrainingError(
            f"the job of {job.name} failed: {message.strip()}",
            where=f"job {name} of {server.address}",
            fix=f"its log says why (`ray job logs {name}`); run the same command again when it is "
            "mended: it goes on after the last finished epoch",
        )
    return status == "SUCCEEDED"
