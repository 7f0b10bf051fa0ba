"""One trial, on a Ray worker: the usual training, which tells Ray Tune about every epoch."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from pathlib import Path
from typing import Any

from components.errors import TrainingError
from components.training.checkpoint import Storage, folder_name, save
from components.training.failures import explained
from components.training.job import Job
from components.training.loop import Training
from components.training.ranks import Ranks
from components.training.worker import learn
from components.tuning.study import Study

EPOCH, SCORE, TRAINED, SCORES, FAILURE = "epoch", "score", "trained", "scores", "failure"
"""What a trial reports: an epoch (from 1), its validation balanced accuracy, how many epochs it has
trained in truth, the scores up to the reported one, and why it cannot go on."""
_KEPT_CHECKPOINTS = 2  # the last one, and the one before in case it is damaged


def run_trial(config: dict[str, Any], study: Study) -> None:
    """Train trial `config["trial"]` of `study` from where its last checkpoint left it.

    A loss that is no number, or too little memory, is the trial's result: it is reported, because
    Ray Tune would try again what is raised.
    """
    import ray.tune

    logging.getLogger("ray").setLevel(logging.ERROR)
    job = study.job_of(int(config["trial"]))
    reports = _Reports(job)
    try:
        # The search says how its trials get on; lines of all of them would hide that.
        with contextlib.redirect_stdout(io.StringIO()):
            training = learn(job, Ranks(), reports.keep, clock={})
        reports.tell(training)
    except Exception as error:
        failure = explained(job, error)
        if failure is None:
            raise
        if not isinstance(failure, TrainingError) or isinstance(error, OSError):
            raise failure from error  # says nothing about the trial's values
        ray.tune.report(reports.failed(failure))


class _Reports:
    """Keeps the checkpoints of one trial, and reports each of its epochs once.

    A trial that was interrupted begins with reports on the epochs that it had done: whether it goes
    on is judged by them, as it was before.
    """

    def __init__(self, job: Job) -> None:
        self._storage = Storage.open(job.checkpoints).below(job.identity)
        self._scores: list[float] = []

    def keep(self, training: Training) -> None:
        """Store a checkpoint of `training`, then report."""
        with tempfile.TemporaryDirectory(prefix="lesionflow-") as folder:
            save(Path(folder), training.to_checkpoint())
            self._storage.below(folder_name(training.epoch)).put(Path(folder))
        for name in self._storage.names()[:-_KEPT_CHECKPOINTS]:
            self._storage.below(name).remove()
        self.tell(training)

    def tell(self, training: Training) -> None:
        """Report the epochs that have not been reported; Ray Tune may end the trial in here."""
        import ray.tune

        for entry in training.history[len(self._scores) :]:
            self._scores.append(entry["validation_balanced_accuracy"])
            trained = {TRAINED: training.epoch, FAILURE: ""}
            ray.tune.report(self._result(self._scores[-1]) | trained)

    def failed(self, failure: TrainingError) -> dict[str, Any]:
        """Return the last report of a trial that cannot go on: the worst possible score."""
        result = self._result(0.0)
        return result | {EPOCH: result[EPOCH] + 1, TRAINED: result[EPOCH], FAILURE: str(failure)}

    def _result(self, score: float) -> dict[str, Any]:
        return {EPOCH: len(self._scores), SCORE: score, SCORES: list(self._scores)}
