"""A search on Ray Tune: trials side by side, the poor ones stopped early; it can be resumed."""

from __future__ import annotations

import json
from typing import Any

from ray import tune
from ray.tune.callback import Callback
from ray.tune.schedulers import AsyncHyperBandScheduler

from components import capacity, cluster
from components.errors import TrainingError
from components.training.checkpoint import Storage, check_writable, forget_old
from components.training.failures import readable
from components.training.transfer import ship
from components.tuning.results import Trial
from components.tuning.study import Study
from components.tuning.trial import EPOCH, FAILURE, SCORE, SCORES, TRAINED, run_trial

_STATE = "experiment_state-"


def run_search(study: Study) -> list[Trial]:
    """Run the trials of `study` on the connected cluster, or those that an interruption left.

    Returns
    -------
    list of Trial
        One per trial. Those that were lost (their process was killed again and again) are not
        `conclusive`; the same call tries them again.

    Raises
    ------
    ResourceError
        The cluster has less than what a trial asks for.
    TrainingError
        Not one trial ended with a result, or nothing can be stored.
    """
    job = study.job
    where = f"backbones.{job.backbone} and training: cpus_per_worker, gpus_per_worker"
    capacity.require(
        {"CPU": job.params.cpus_per_worker, "GPU": job.params.gpus_per_worker}, 1, where=where
    )
    check_writable(study.storage)
    for place in (study.storage, *(study.job_of(n).checkpoints for n in range(len(study.trials)))):
        forget_old(Storage.open(place))
    if not cluster.on_this_machine():
        study = study.with_job(ship(job))
    found = _tuner(study).fit()
    trials = sorted((_trial(study, result) for result in found), key=lambda trial: trial.number)
    if not any(trial.scores for trial in trials):
        raise TrainingError(
            f"not one of {len(trials)} trials ended with a result; the first: {trials[0].failure}",
            where=f"tuning {job.backbone}",
            fix="mend that, or search elsewhere (tune.space in params.yaml)",
        )
    return trials


def forget_search(study: Study) -> None:
    """Remove what a finished search has stored."""
    Storage.open(study.storage).below(study.identity).remove()
    for number in range(len(study.trials)):
        job = study.job_of(number)
        Storage.open(job.checkpoints).below(job.identity).remove()


def _tuner(study: Study) -> Any:
    params, storage = study.job.params, Storage.open(study.storage)
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, study=study),
        {"cpu": params.cpus_per_worker, "gpu": params.gpus_per_worker},
    )
    stored = storage.below(study.identity)
    if _can_be_restored(stored):
        return tune.Tuner.restore(
            stored.path,
            trainable,
            storage_filesystem=stored.filesystem,
            restart_errored=True,
        )
    stored.remove()  # trials go on from their own checkpoints
    return tune.Tuner(
        trainable,
        param_space={"trial": tune.grid_search(list(range(len(study.trials))))},
        tune_config=tune.TuneConfig(
            scheduler=Ladder(
                time_attr=EPOCH,
                metric=SCORE,
                mode="max",
                max_t=study.max_epochs,
                grace_period=study.grace_period,
                reduction_factor=study.reduction_factor,
            )
        ),
        run_config=tune.RunConfig(
            name=study.identity,
            storage_path=storage.path,
            storage_filesystem=storage.filesystem,
            failure_config=tune.FailureConfig(max_failures=params.max_failures),
            callbacks=[_Lines(study.max_epochs)],
            verbose=0,
        ),
    )


def _can_be_restored(stored: Storage) -> bool:
    """Whether Ray Tune's account of the search is there and whole; a kill may have cut it off."""
    names = stored.names()
    states = [name for name in names if name.startswith(_STATE)]
    if not states or "tuner.pkl" not in names:
        return False
    try:
        json.loads(stored.read(max(states)))
    except ValueError:
        return False
    return True


class Ladder(AsyncHyperBandScheduler):  # type: ignore[misc]
    """ASHA (Li et al. 2020) that knows, when a search goes on, what ended before."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_add(tune_controller, trial)
        if trial.is_finished():
            for epoch, score in enumerate(trial.last_result.get(SCORES, ()), start=1):
                self.on_trial_result(tune_controller, trial, {EPOCH: epoch, SCORE: score})


class _Lines(Callback):  # type: ignore[misc]
    """Prints a line when a trial has ended an epoch, and when it has ended itself."""

    def __init__(self, max_epochs: int) -> None:
        self._max_epochs = max_epochs

    def on_trial_result(self, *_: Any, trial: Any, result: dict[str, Any], **__: Any) -> None:
        number = trial.config["trial"]
        if result[FAILURE]:
            print(f"trial {number} failed: {result[FAILURE].splitlines()[0]}", flush=True)
        elif result[EPOCH] == result[TRAINED]:
            print(
                f"trial {number}: epoch {result[EPOCH]}/{self._max_epochs}, "
                f"balanced accuracy {result[SCORE]:.3f}",
                flush=True,
            )

    def on_trial_complete(self, *_: Any, trial: Any, **__: Any) -> None:
        last = trial.last_result
        if not last[FAILURE] and last[EPOCH] < self._max_epochs:
            print(f"trial {trial.config['trial']} is stopped early", flush=True)


def _trial(study: Study, result: Any) -> Trial:
    number = int(result.config["trial"])
    last = result.metrics or {}
    failure = str(last.get(FAILURE, ""))
    if result.error is not None:
        failure = str(readable(study.job_of(number), result.error))
    return Trial(
        number=number,
        values=study.values_of(number),
        scores=tuple(last.get(SCORES, ())),
        failure=failure.strip().splitlines()[0] if failure.strip() else "",
        conclusive=result.error is None,
    )
