"""Predictions of a saved model for images of the packed set, as a prediction table."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.dataset.pack import PackedImages
from components.errors import TableError
from components.progress import Progress
from components.tables import probability_columns

if TYPE_CHECKING:
    from components.backbones.saved import LoadedModel

DESCRIBED = ("image_id", "group_id", "lesion_id", "patient_id", "diagnosis")
EXTRAS = ("age_years", "sex", "site", "diagnosis_method", "skin_type")
MEASURED = ("brightness", "contrast", "sharpness")
_CHUNK = 256


def predict_packed(
    model: LoadedModel, packed: PackedImages, image_ids: npt.NDArray[np.object_], what: str
) -> npt.NDArray[np.float64]:
    """Return probabilities, shape (len(image_ids), C); memory does not grow with their number.

    Parameters
    ----------
    model
        All its members want the squares of `packed`.
    packed
        The packed images.
    image_ids
        Which ones, in this order.
    what
        Named in the lines of progress, such as `evaluate`.

    Raises
    ------
    TableError
        An image is not packed, or the set was packed in another way than the model was trained on.
    """
    if set(model.pack_specs) != {packed.spec}:
        raise TableError(
            f"the packed images are {packed.spec}, the model wants {model.pack_specs}",
            where="data/packed",
            fix="run the stages `pack` and `train` again (`dvc repro`)",
        )
    rows = packed.rows(list(image_ids))
    parts = [np.zeros((0, len(model.file.classes)))]
    started = shown = time.monotonic()
    for start in range(0, len(rows), _CHUNK):
        parts.append(model.predict_proba(packed.images, rows=rows[start : start + _CHUNK]))
        done, now = min(start + _CHUNK, len(rows)), time.monotonic()
        if done == len(rows) or now - shown > 1:
            shown = now
            speed = f"{done / max(now - started, 1e-9):.0f} images/s"
            print(Progress(what, done, len(rows), "images", speed), flush=True)
    return np.concatenate(parts)


def prediction_table(
    images: pd.DataFrame, probabilities: npt.NDArray[np.float64], classes: tuple[str, ...]
) -> pd.DataFrame:
    """Return the prediction table of `images`, sorted by image.

    Parameters
    ----------
    images
        `DESCRIBED`, and of `EXTRAS` and `MEASURED` what there is.
    probabilities
        Shape (len(images), len(classes)).
    classes
        In the order of the probabilities.
    """
    columns = probability_columns(classes)
    extras = [name for name in (*EXTRAS, *MEASURED) if name in images.columns]
    values = pd.DataFrame(probabilities, columns=columns, index=images.index)
    table = pd.concat([images[list(DESCRIBED)], values, images[extras]], axis=1)
    return table.sort_values("image_id", ignore_index=True)
