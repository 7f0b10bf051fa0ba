"""What can go wrong while a training runs, in words that say what to do."""

from __future__ import annotations

import errno
from typing import Any

from pydantic import ValidationError

from components.errors import LesionflowError, ResourceError, TrainingError
from components.training.job import Job


def explained(job: Job, error: BaseException) -> LesionflowError | None:
    """Return our account of what a worker ran into, or None if it is a bug."""
    if isinstance(error, LesionflowError):
        return error
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if memory or (isinstance(error, RuntimeError) and "allocate memory" in said.lower()):
        return TrainingError(
            f"{job.backbone} does not fit into memory: {said}",
            where=f"training {job.name}",
            fix=f"lower batch_size (now {job.params.batch_size}) or image_size (now "
            f"{job.params.image_size}) below backbones.{job.backbone} in params.yaml, or train "
            "fewer backbones at once",
        )
    if isinstance(error, ValidationError):
        refused = "; ".join(
            ": ".join([".".join(map(str, item["loc"])), item["msg"]]).removeprefix(": ")
            for item in error.errors()
        )
        return TrainingError(
            f"{error.title} of {job.name} is refused: {refused}",
            where=f"training {job.name}",
            fix="correct what is named above in params.yaml (diagnoses, training, "
            f"backbones.{job.backbone})",
        )
    return unreachable(job, error) if isinstance(error, OSError) else None


def unreachable(job: Job, error: OSError) -> LesionflowError:
    """Return our account of a storage, or a disk, that cannot be read or written."""
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceError(
            "no space left on the disk",
            where=f"a node that trains {job.name}, or storage: {job.storage}",
            fix="free some space and run the same command again: it goes on after the last "
            "finished epoch",
        )
    return TrainingError(
        f"{job.name} cannot read or write what it needs: {said}",
        where=f"storage: {job.storage}",
        fix="give this machine and every node access to it (a bucket: AWS_ENDPOINT_URL, "
        "credentials or a role; a folder: the same disk on every node), and run it again",
    )


def readable(job: Job, error: BaseException) -> BaseException:
    """Return what a user can act on instead of what Ray Train raised.

    Our own error if a worker raised one, else a short account; `error` itself if it is a bug.
    """
    causes = _causes(error)
    for cause in causes:
        if isinstance(cause, LesionflowError):
            return cause
    names = {type(cause).__name__ for cause in causes}
    if "OutOfMemoryError" in names:
        return TrainingError(
            f"a worker of {job.name} was ended because the machine ran out of memory",
            where=f"training {job.name}",
            fix="lower batch_size or image_size, train fewer backbones at once (a larger "
            "cpus_per_worker), or use a machine with more memory",
        )
    if names & {"RayActorError", "ActorDiedError", "ActorUnavailableError", "NodeDiedError"}:
        return TrainingError(
            f"the workers of {job.name} were lost {job.params.max_failures + 1} times",
            where=f"training {job.name}",
            fix="run the same command again: it goes on after the last finished epoch; if it "
            "happens again, look for what ends the processes (too little memory, a time limit)",
        )
    if names & {"WorkerGroupStartupTimeoutError", "InsufficientClusterResourcesError"}:
        return ResourceError(
            f"the workers of {job.name} found no room on the Ray cluster",
            where="the Ray cluster",
            fix="wait for other jobs to end, or ask for less (cpus_per_worker, gpus_per_worker)",
        )
    return error


def _causes(error: BaseException | None) -> list[BaseException]:
    """Return `error` and everything inside it, from the outside in."""
    if error is None:
        return []
    names = ("controller_failure", "health_check_failure", "_base_exc", "cause", "__cause__")
    inner: list[Any] = list(getattr(error, "worker_failures", {}).values())
    inner += [getattr(error, name, None) for name in names]
    found = [error]
    for item in inner:
        if isinstance(item, BaseException) and item is not error:
            found += _causes(item)
    return found
