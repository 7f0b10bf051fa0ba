"""One training on Ray Train: started, watched, resumed, and its errors made readable."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from components import capacity, cluster
from components.errors import ParamsError
from components.training.checkpoint import Storage, check_writable, forget_old
from components.training.failures import readable, unreachable
from components.training.finished import Finished, leave, stored, take
from components.training.job import Job
from components.training.transfer import ship

_SNAPSHOT = "checkpoint_manager_snapshot.json"
_KEPT_CHECKPOINTS = 2  # the last one, and the one before in case it is damaged


def run_training(job: Job, target: Path) -> dict[str, float]:
    """Train `job` on the connected cluster and put what it left into the folder `target`.

    If its storage has its finished model already, that is taken.

    Returns
    -------
    dict
        The clock of `Finished`, and when all was `returned`.

    Raises
    ------
    LesionflowError
        As `train_to_end`.
    """
    try:
        return take(job, target, lambda: leave(job, train_to_end(job)))
    except OSError as error:  # the storage is away for longer than it is waited for
        raise unreachable(job, error) from error


def train_to_end(job: Job) -> Finished:
    """Train `job` on the connected cluster; its model stays in the storage.

    What an earlier, interrupted run of the same identity stored is gone on from.

    Raises
    ------
    ResourceError
        The cluster has less than what is asked for, or was lost.
    TrainingError
        The training cannot go on, or its workers were lost too often.
    LesionflowError
        Whatever else a worker found wrong (weights, packed images).
    """
    params = job.params
    resources = {"CPU": params.cpus_per_worker, "GPU": params.gpus_per_worker}
    where = f"backbones.{job.backbone} and training: num_workers, cpus_per_worker, gpus_per_worker"
    capacity.require(resources, params.num_workers, where=where)
    _check_enough_images(job)
    check_writable(job.checkpoints)
    runs = Storage.open(job.storage).below("runs")
    for name in runs.names():  # of backbones that were given up, too
        forget_old(runs.below(name))
    _forget_broken_snapshot(stored(job))
    submitted = time.time()
    here = job.is_shipped or cluster.on_this_machine()
    result = _fit(job if here else ship(job), resources)
    failure = result.return_value["failure"]
    if failure is not None:
        raise failure
    clock = {"submitted": submitted, **result.return_value["clock"]}
    return Finished(result.return_value["model"], clock)


def _check_enough_images(job: Job) -> None:
    images = job.params.epoch_images or len(job.train)
    if images < 2 * job.params.num_workers:
        raise ParamsError(
            f"{images} images in an epoch are less than two for each of "
            f"{job.params.num_workers} workers",
            where=f"backbones.{job.backbone} and training: num_workers",
            fix="train with fewer workers",
        )


def _fit(job: Job, resources: dict[str, float]) -> Any:
    import ray.train
    from ray.exceptions import RayError
    from ray.train.torch import TorchConfig, TorchTrainer

    from components.training.worker import train_worker

    params = job.params
    storage = Storage.open(job.checkpoints)
    trainer = _quiet(TorchTrainer)(
        train_worker,
        train_loop_config={"job": job},
        torch_config=_no_process_group() if params.num_workers == 1 else TorchConfig(),
        scaling_config=ray.train.ScalingConfig(
            num_workers=params.num_workers,
            use_gpu=params.gpus_per_worker > 0,
            resources_per_worker={name: share for name, share in resources.items() if share},
        ),
        run_config=ray.train.RunConfig(
            name=job.identity,
            storage_path=storage.path,
            storage_filesystem=storage.filesystem,
            failure_config=ray.train.FailureConfig(
                max_failures=params.max_failures, controller_failure_limit=params.max_failures
            ),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=_KEPT_CHECKPOINTS),
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),
        ),
    )
    try:
        return trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise readable(job, error) from error
    except RayError as error:
        gone = cluster.lost(ray.get_runtime_context().gcs_address)
        if gone is None:
            raise
        raise gone from error


def _quiet(trainer: Any) -> Any:
    """Return `trainer` without what our trainings have no use for.

    Ray Train starts a process for datasets, which we have none of, and one that removes the
    placement group of a controller that died. Ray removes that anyway when the driver ends, which
    it then does; where there is no dashboard to ask, that process would outlive the driver.
    Its handler of Ctrl-C would end this process as if all were well.
    """
    unused = {"DatasetsCallback", "PlacementGroupCleanerCallback"}

    class Quiet(trainer):  # type: ignore[misc]
        def _create_default_callbacks(self) -> list[Any]:
            default = super()._create_default_callbacks()
            return [callback for callback in default if type(callback).__name__ not in unused]

        def _register_sigint_handler(self, controller: Any) -> None:
            """Leave Ctrl-C to Python: `connect` ends the training's processes."""

    return Quiet


def _no_process_group() -> Any:
    """Return a backend that sets nothing up: one worker has nobody to talk to.

    It also spares Ray's controller the import of torch.
    """
    from components.training.backend import NoProcessGroup

    return NoProcessGroup()


def _forget_broken_snapshot(run: Storage) -> None:
    """Remove Ray's list of checkpoints if a kill left it cut off, or it names what is gone.

    Ray would refuse to start. Our checkpoints are found by their names, without it.
    """
    names = run.names()
    if _SNAPSHOT not in names:
        return
    try:
        document = json.loads(run.read(_SNAPSHOT))
        listed = [entry["checkpoint_dir_name"] for entry in document["checkpoint_results"]]
        import ray

        whole = set(listed) <= set(names) and document["ray_version"] == ray.__version__
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        run.remove(_SNAPSHOT)
