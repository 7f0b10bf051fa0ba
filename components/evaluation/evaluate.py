"""Stage `evaluate`: calibrate a run on validation, predict test, and measure both.

Nothing is fitted on test: temperature and thresholds come from the validation part.

Usage: python -m components.evaluation.evaluate --backbone resnet18 --seed 0
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from components.atomic import write_json
from components.dataset.pack import PackedImages
from components.errors import SplitError, TrainingError
from components.evaluation.calibration import (
    apply_temperature,
    fit_temperature,
    table_at,
    thresholds,
)
from components.evaluation.part_document import part_document
from components.evaluation.predict import (
    EXTRAS,
    MEASURED,
    predict_packed,
    prediction_table,
)
from components.evaluation.prediction_table import parse_predictions
from components.layout import Layout
from components.params import Params
from components.stage import run_stage
from components.tables import probability_columns, read_table, write_table

if TYPE_CHECKING:
    from components.backbones.saved import LoadedModel

_CHECKED_IMAGES, _CHECK_TOLERANCE = 16, 1e-3


def run(params: Params, layout: Layout, backbone: str, seed: int) -> None:
    """Write `evaluations/<backbone>-<seed>/`."""
    from components.backbones.saved import load_model

    folder = layout.run(backbone, seed)
    classes = params.diagnoses.classes
    raw_validation = read_table(folder / "validation.parquet", probability_columns(classes))
    packed, model = PackedImages.open(layout.packed), load_model(folder)
    _check_same_model(model, packed, raw_validation, classes, folder)
    test_images = part_table(layout, "test")
    what = f"evaluate-{backbone}-{seed}"
    raw_test = prediction_table(
        test_images,
        predict_packed(model, packed, test_images["image_id"].to_numpy(), what),
        classes,
    )
    write_evaluation(params, layout, layout.evaluation(backbone, seed), raw_validation, raw_test)


def write_evaluation(
    params: Params,
    layout: Layout,
    target: Path,
    raw_validation: pd.DataFrame,
    raw_test: pd.DataFrame,
) -> None:
    """Calibrate on `raw_validation` and write the five files of an evaluation.

    Parameters
    ----------
    raw_validation, raw_test
        Prediction tables at temperature 1.
    """
    classes, malignant = params.diagnoses.classes, params.diagnoses.malignant
    raw_validation = with_measures(raw_validation, layout)
    validation = parse_predictions(raw_validation, classes, malignant, where="validation part")
    temperature = fit_temperature(validation.probabilities, validation.truth)
    scaled = apply_temperature(validation.probabilities, temperature)
    chosen = thresholds(replace(validation, probabilities=scaled))
    calibration = {
        "schema_version": 1,
        "fitted_on": "validation",
        "num_images": len(validation),
        "temperature": temperature,
        "thresholds": chosen,
    }
    for part, raw in (("validation", raw_validation), ("test", raw_test)):
        calibrated = table_at(raw, classes, temperature)
        document = part_document(
            params, part, raw, calibrated, temperature=temperature, chosen=chosen
        )
        write_table(calibrated, target / f"{part}.parquet")
        name = "metrics.json" if part == "test" else "validation_metrics.json"
        write_json(target / name, document)
    write_json(target / "calibration.json", calibration)


def part_table(layout: Layout, part: str) -> pd.DataFrame:
    """Return labels, group and measures of the images of one part, sorted by image.

    Raises
    ------
    SplitError
        The part is empty.
    """
    splits = read_table(layout.splits, ("image_id", "group_id", "split"))
    labels = read_table(layout.labels, ("image_id", "lesion_id", "patient_id", "diagnosis"))
    chosen = splits.loc[splits["split"] == part, ["image_id", "group_id"]]
    if chosen.empty:
        raise SplitError(
            f"the {part} part is empty",
            where=str(layout.splits),
            fix=f"give more images, or another share of them (split.{part})",
        )
    kept = ["image_id", "lesion_id", "patient_id", "diagnosis"]
    kept += [name for name in EXTRAS if name in labels.columns]
    images = chosen.merge(labels[kept], on="image_id", how="left", validate="one_to_one")
    return with_measures(images.sort_values("image_id", ignore_index=True), layout)


def with_measures(images: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """Add the measures of picture quality, for the subgroups."""
    quality = read_table(layout.quality, ("image_id", *MEASURED))[["image_id", *MEASURED]]
    return images.merge(quality, on="image_id", how="left", validate="one_to_one")


def _check_same_model(
    model: LoadedModel,
    packed: PackedImages,
    validation: pd.DataFrame,
    classes: tuple[str, ...],
    folder: Path,
) -> None:
    """Predict a few validation images again: the table must be this model's, in this order."""
    if model.file.classes != classes:
        raise TrainingError(
            f"the model has the classes {', '.join(model.file.classes)}, "
            f"params.yaml has {', '.join(classes)}",
            where=str(folder),
            fix="train it again (`dvc repro`)",
        )
    step = max(1, len(validation) // _CHECKED_IMAGES)
    few = validation.iloc[::step]
    ours = model.predict_proba(packed.images, rows=packed.rows(list(few["image_id"])))
    distance: Any = np.abs(ours - few[probability_columns(classes)].to_numpy()).max()
    if not distance <= _CHECK_TOLERANCE:
        raise TrainingError(
            f"the saved model does not give its own validation predictions (off by {distance:.2g})",
            where=str(folder),
            fix="train it again: run this stage's training with `dvc repro -f`",
        )


def main() -> None:
    """Run the stage for the matrix item on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--seed", type=int, required=True)
    chosen = parser.parse_args()

    def work(params: Params, layout: Layout) -> None:
        run(params, layout, chosen.backbone, chosen.seed)

    run_stage("evaluate", work, item=f"{chosen.backbone}-{chosen.seed}")


if __name__ == "__main__":
    main()
