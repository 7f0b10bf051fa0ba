"""All that a worker must know of its training, as plain values (no torch in here)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.backbones.preprocess import Preprocessing
from components.backbones.weights import WeightsFile
from components.training.config import TrainingParams

Rows = npt.NDArray[np.int64]

WEIGHTS, HISTORY, PROBABILITIES = "model.safetensors", "history.json", "probabilities.npy"
"""What a finished training leaves, besides `model.json`."""


@dataclass(frozen=True)
class Part:
    """Images of one part: their rows in the packed set, and their classes as numbers."""

    rows: Rows
    labels: Rows

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes
    ----------
    backbone, seed
        Its name in the matrix.
    identity
        Hash of data, split, parameters and code: what is the same may be resumed.
    classes, malignant
        Of the recipe.
    packed
        Folder of the packed images, as the worker sees it.
    storage
        Absolute folder or `s3://` URI for checkpoints and what travels to other nodes.
    provenance
        Goes into `model.json`.
    packed_id
        Content of the packed images, if the workers have to fetch them from `storage`.
    trial
        Its number in a search for hyperparameters; None: it belongs to no search.
    """

    backbone: str
    seed: int
    identity: str
    params: TrainingParams
    classes: tuple[str, ...]
    malignant: tuple[str, ...]
    preprocessing: Preprocessing
    packed: Path
    train: Part
    validation: Part
    weights: WeightsFile
    storage: str
    provenance: dict[str, Any]
    packed_id: str | None = None
    trial: int | None = None

    @property
    def name(self) -> str:
        """As DVC's matrix names it, such as `resnet18-0`; a trial is `resnet18-0-trial-3`."""
        matrix = f"{self.backbone}-{self.seed}"
        return matrix if self.trial is None else f"{matrix}-trial-{self.trial}"

    @property
    def is_shipped(self) -> bool:
        """Whether its storage has what a node needs to train it."""
        return self.packed_id is not None

    @property
    def checkpoints(self) -> str:
        """Folder or URI below which Ray keeps this training's runs, each named by its identity."""
        return f"{self.storage}/runs/{self.name}"
