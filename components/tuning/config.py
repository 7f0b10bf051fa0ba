"""What `params.yaml` says of a search for hyperparameters: how many trials, how long, and where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from components.settings import Settings
from components.training.config import TrainingParams

SEARCHED = (
    *("learning_rate", "layer_decay", "warmup", "weight_decay", "batch_size", "ema_decay"),
    *("unfreeze", "head_epochs", "head_learning_rate"),
    *("sampling_power", "loss", "focal_gamma", "class_weight_power", "logit_adjustment"),
    *("label_smoothing", "augmentation", "mixup", "cutmix", "cutout"),
)
"""The keys of a recipe that can be searched.

Not among them: the data that a trial sees (`image_size`, `epoch_images`, `weights`), its budget
(`epochs`, `early_stopping`), what validation does not judge (`tta`), and where it runs.
"""

Value = bool | int | float | str


class Range(Settings):
    """Numbers from `low` to `high`, spread evenly, or with `log` evenly over their logarithm."""

    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} must be less than high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low {self.low:g} has no logarithm: give more than 0, or log: false")
        return self

    @property
    def extremes(self) -> tuple[Value, ...]:
        """The values that must be allowed for all others to be."""
        return self.low, self.high


def _kind(given: Any) -> str:
    return "range" if isinstance(given, Mapping | Range) else "choices"


Choices = Annotated[tuple[Value, ...], Field(min_length=1)]
Dimension = Annotated[
    Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")], Discriminator(_kind)
]


class TuneParams(Settings):
    """The search of `lesionflow tune`: random trials, the poor ones stopped early (ASHA)."""

    num_samples: int = Field(default=12, ge=2, le=1000)
    """Trials; the first is the recipe as it stands."""
    max_epochs: int | None = Field(default=None, ge=1, le=1000)
    """Epochs of a trial that is not stopped; null: as many as the recipe has."""
    grace_period: int = Field(default=2, ge=1, le=1000)
    """No trial is stopped before it has trained for so many epochs."""
    reduction_factor: int = Field(default=3, ge=2, le=100)
    """At 1, r, r², … times the grace period, about the best 1/r of the trials go on."""
    space: dict[str, Dimension] = Field(
        default={
            "learning_rate": Range(low=3e-4, high=1e-2, log=True),
            "layer_decay": Range(low=0.5, high=1.0),
            "weight_decay": Range(low=1e-3, high=1e-1, log=True),
            "batch_size": (16, 32, 64),
            "unfreeze": ("all", "last_block"),
            "sampling_power": Range(low=0.0, high=1.0),
            "augmentation": Range(low=0.0, high=2.0),
        },
        min_length=1,
    )
    """Per key of the recipe a range `{low, high, log}` or a list of values."""

    @model_validator(mode="after")
    def _recipes_can_have_these_values(self) -> Self:
        problems = []
        for key, dimension in self.space.items():
            if key not in SEARCHED:
                problems.append(f"space.{key}: cannot be searched, choose of {', '.join(SEARCHED)}")
                continue
            for value in extremes(dimension):
                try:
                    TrainingParams.model_validate({key: value})
                except ValidationError as error:
                    said = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
                    problems.append(f"space.{key}: {value!r} is not allowed ({said})")
        if problems:
            raise ValueError("; ".join(problems))
        return self


def extremes(dimension: Range | tuple[Value, ...]) -> tuple[Value, ...]:
    """Return the values of `dimension` that must be allowed for all of it to be."""
    return dimension.extremes if isinstance(dimension, Range) else dimension
