"""What `params.yaml` says of the registry and of the gates before a promotion."""

from __future__ import annotations

from pydantic import Field

from components.settings import Settings


class RegistryParams(Settings):
    """Where model versions live, and under which name the aliases are kept."""

    uri: str = Field(default="registry", min_length=1)
    """A folder (relative to the workspace) or `s3://bucket/prefix`."""
    model_name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    pinned: tuple[str, ...] = ()
    """Versions that `lesionflow registry prune` never removes."""


class GateParams(Settings):
    """Bounds that a candidate must keep to be promoted; `null` turns a gate off.

    All of them are read off the test part, whose groups took no part in training or choosing.
    """

    min_balanced_accuracy: float | None = Field(default=None, ge=0, le=1)
    min_melanoma_sensitivity: float | None = Field(default=None, ge=0, le=1)
    """Sensitivity for melanoma (without that class: for malignant) at `melanoma_specificity`."""
    melanoma_specificity: float = Field(default=0.9, gt=0, lt=1)
    max_ece: float | None = Field(default=None, ge=0, le=1)
    """Expected calibration error of the calibrated probabilities."""
    max_subgroup_gap: float | None = Field(default=None, ge=0, le=1)
    """Largest difference in balanced accuracy between two subgroups that are large enough."""
    max_latency_ms: float | None = Field(default=None, gt=0)
    """Median for one picture on one CPU, as the stage `profile` measured it."""
    max_worse_than_champion: float | None = Field(default=0.02, ge=0, le=1)
    """By how much the balanced accuracy may lie below the champion's, on images whose group
    neither of them was trained or selected on."""
    champion_confidence: float = Field(default=0.8, ge=0.5, lt=1)
    """A candidate that measures worse, but by less than that, must be so surely (one-sided, paired
    bootstrap over groups)."""
    min_images_per_class: int = Field(default=5, ge=1)
    """With fewer such images of a class the comparison is undecided, which is not passed."""
