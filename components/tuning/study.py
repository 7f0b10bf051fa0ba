"""One search, as plain values: the training that is varied, and what each trial changes in it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from components.backbones.config import BACKBONE_NAMES
from components.errors import ParamsError
from components.layout import Layout
from components.params import Params
from components.training.config import TrainingParams
from components.training.identity import code_hash
from components.training.job import Job
from components.tuning.config import extremes
from components.tuning.space import Changes, suggest


@dataclass(frozen=True)
class Study:
    """A search.

    Attributes
    ----------
    job
        The training as the recipe stands.
    trials
        What each trial changes in it; the first changes nothing.
    max_epochs
        Epochs of a trial that is not stopped.
    grace_period, reduction_factor
        When ASHA stops trials.
    identity
        Hash of data, split, recipe, space, seed and code: what is the same may be resumed.
    """

    job: Job
    trials: tuple[Changes, ...]
    max_epochs: int
    grace_period: int
    reduction_factor: int
    identity: str

    @property
    def keys(self) -> tuple[str, ...]:
        """The searched keys."""
        return tuple(self.trials[-1])

    @property
    def storage(self) -> str:
        """Folder or URI below which Ray Tune keeps searches of this backbone."""
        return f"{self.job.storage}/tune/{self.job.backbone}"

    def with_job(self, job: Job) -> Study:
        """Return the same search with what the workers of other nodes need to know of it."""
        return replace(self, job=job)

    def job_of(self, trial: int) -> Job:
        """Return the training of one trial: one worker, whatever the recipe says."""
        return replace(
            self.job,
            params=_recipe_of(self.job.params, self.trials[trial], self.max_epochs),
            identity=self.identity,
            trial=trial,
        )

    def values_of(self, trial: int) -> Changes:
        """Return the value that a trial has for every searched key."""
        recipe = self.job_of(trial).params
        return {key: getattr(recipe, key) for key in self.keys}


def make_study(params: Params, layout: Layout, backbone: str) -> Study:
    """Return the search for `backbone`; the packed images and the split must be there.

    Raises
    ------
    ParamsError
        As `check_study`.
    SplitError, WeightsError
        As for a training.
    """
    from components.training.train import make_job

    check_study(params, backbone)
    job, _ = make_job(params, params, layout, backbone, params.seeds[0])
    tune = params.tune
    suggestions = suggest(tune.space, tune.num_samples - 1, params.seed)
    recipe = job.params
    return Study(
        job=job,
        trials=({}, *suggestions),
        max_epochs=tune.max_epochs or recipe.epochs,
        grace_period=tune.grace_period,
        reduction_factor=tune.reduction_factor,
        identity=_identity(job, {"seed": params.seed, **tune.model_dump(mode="json")}),
    )


def check_study(params: Params, backbone: str) -> None:
    """Raise an error for what is wrong with a search before anything is done for it.

    Raises
    ------
    ParamsError
        The backbone does not exist or is not in `params.yaml`; a value of the space does not go
        with its recipe; the grace period is longer than a trial.
    """
    if backbone not in params.backbones:
        known = backbone in BACKBONE_NAMES
        raise ParamsError(
            f"{backbone!r} is not among the backbones to train"
            if known
            else f"unknown backbone {backbone!r}",
            where="params.yaml: backbones",
            fix=f"add `{backbone}: {{}}` there, or choose of {', '.join(params.backbones)}"
            if known
            else f"choose of {', '.join(params.backbones)}",
        )
    recipe, tune = params.training_of(backbone), params.tune
    epochs = tune.max_epochs or recipe.epochs
    if tune.grace_period > epochs:
        raise ParamsError(
            f"grace_period {tune.grace_period} is more than the {epochs} epochs of a trial",
            where="params.yaml: tune",
            fix="lower tune.grace_period, or raise tune.max_epochs",
        )
    for key, dimension in tune.space.items():
        for value in extremes(dimension):
            try:
                TrainingParams.model_validate(recipe.model_dump() | {key: value})
            except ValidationError as error:
                said = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
                raise ParamsError(
                    f"{key}: {value!r} does not go with the recipe of {backbone}: {said}",
                    where=f"params.yaml: tune.space.{key}",
                    fix="take it out of the space, or change the recipe",
                ) from error


def _recipe_of(recipe: TrainingParams, changes: Changes, epochs: int) -> TrainingParams:
    given = changes | {"epochs": epochs, "num_workers": 1}
    return TrainingParams.model_validate(recipe.model_dump() | given)


def _identity(job: Job, tune: dict[str, Any]) -> str:
    document = {"job": job.identity, "tune": tune, "code": code_hash([Path(__file__).parent])}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:32]
