"""What each choice of the recipe for HAM10000 is worth, judged on other lesions.

Trains MobileNetV2 with the recipe, smaller (64 px, 6 epochs of 4,000 images), once per setting that
differs, on four fifths of the lesions. Nothing is chosen on the other fifth: what counts is the
last epoch. Each balanced accuracy has its 95 % interval, bootstrapped over lesions. The tables are
`imbalance` (two thirds of the images are nevi), `regularisation`, and `fine_tuning` (what is
trained, and when). Writes `benchmarks/results/TABLE.csv` after every training; rows of settings
that are not trained this time stay. Not a part of `make bench`, for it measures no speed and takes
an hour.

Usage: python -m benchmarks.recipe TABLE [NAME …]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.data import BenchmarkData
from benchmarks.machine import read_results, write_results
from benchmarks.training import DEVICE, THREADS, ham10000_recipe
from components.backbones.inference import softmax
from components.evaluation.intervals import image_weights, interval, one_thread
from components.evaluation.metrics import confusion_matrices, from_confusion, point
from components.evaluation.prediction_table import Predictions, parse_predictions
from components.tables import probability_columns
from components.training.job import Job
from components.training.loop import Floats, validate
from components.training.worker import follow_recipe

Row = Mapping[str, object]
_SMALLER = {"image_size": 64, "epochs": 6, "epoch_images": 4000}
_PLAIN = {"sampling_power": 1.0, "logit_adjustment": 0.0}
NOTHING = "nothing"
IMBALANCE: dict[str, dict[str, Any]] = {
    NOTHING: _PLAIN,
    "class weights, square root": _PLAIN | {"class_weight_power": 0.5},
    "class weights": _PLAIN | {"class_weight_power": 1.0},
    "focal loss": _PLAIN | {"loss": "focal"},
    "sampling, square root": _PLAIN | {"sampling_power": 0.5},
    "sampling, even": _PLAIN | {"sampling_power": 0.0},
    "sampling, square root, and focal loss": _PLAIN | {"sampling_power": 0.5, "loss": "focal"},
    "logit adjustment 1": _PLAIN | {"logit_adjustment": 1.0},
    "sampling, square root, and logit adjustment 1": {"logit_adjustment": 1.0},
    "the recipe: sampling, square root, and logit adjustment 1.4": {},
}
CONTROL = "nothing, log prior subtracted after training"
"""The cheapest remedy, for comparison: it comes with `NOTHING` and takes no training."""
REGULARISATION: dict[str, dict[str, Any]] = {
    "the recipe": {},
    "without mixup": {"mixup": 0.0},
    "label smoothing 0.1 in place of mixup": {"mixup": 0.0, "label_smoothing": 0.1},
    "label smoothing 0.1 and mixup": {"label_smoothing": 0.1},
    "weight decay 0.01": {"weight_decay": 0.01},
    "without averaged weights": {"ema_decay": 0.0},
    "half the augmentation": {"augmentation": 0.5},
    "twice the augmentation": {"augmentation": 2.0},
    "rates times 0.9 per block": {"layer_decay": 0.9},
    "rates times 0.75 per block": {"layer_decay": 0.75},
}
FINE_TUNING: dict[str, dict[str, Any]] = {
    "the recipe": {},
    "head first, 5 epochs": {"head_epochs": 5},
    "head first, 20 epochs": {"head_epochs": 20},
    "last block": {"unfreeze": "last_block"},
    "last block, head first for 20 epochs": {"unfreeze": "last_block", "head_epochs": 20},
    "head only, 20 epochs": {"unfreeze": "none", "epochs": 20},
    "without warm-up": {"warmup": 0.0},
    "warm-up over 0.3 of the steps": {"warmup": 0.3},
}
TABLES = {"imbalance": IMBALANCE, "regularisation": REGULARISATION, "fine_tuning": FINE_TUNING}
_RESAMPLES = 2000


def main() -> None:
    """Train with each setting, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    settings = TABLES[arguments.table]
    unknown = set(arguments.names) - settings.keys()
    if unknown:
        parser.error(f"{sorted(unknown)}: there are {', '.join(settings)}")
    torch.set_num_threads(THREADS)
    data = BenchmarkData.find(None)
    if not data.real:
        parser.error("there is no HAM10000 here, and noise has no classes to tell apart")
    measure(data, arguments.table, arguments.names or list(settings), _SMALLER)


def measure(
    data: BenchmarkData, table: str, names: Sequence[str], smaller: Mapping[str, Any]
) -> None:
    """Train with each of these settings; add its rows to the table before the next one."""
    for name in names:
        rows = rows_of(data, name, {**smaller, **TABLES[table][name]})
        for row in rows:
            print(row, flush=True)
        write_results(table, merged(table, read_results(table), rows))


def merged(table: str, there: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """Return the rows that are there with the new ones in place of theirs, in one order."""
    rows = {row["setting"]: row for row in [*there, *new]}
    in_order = list(TABLES[table])
    if NOTHING in in_order:
        in_order.insert(in_order.index(NOTHING) + 1, CONTROL)
    return [rows[name] for name in in_order if name in rows]


def rows_of(data: BenchmarkData, name: str, changes: Mapping[str, Any]) -> list[Row]:
    """Train with the recipe but for `changes`; return the last epoch's metrics on other lesions."""
    params = data.params(**{**ham10000_recipe(), **changes})
    job = data.job("mobilenet_v2", params)
    training = data.training(job, DEVICE)
    follow_recipe(training, lambda _: None)
    logits = {name: validate(training)}
    if name == NOTHING:
        logits[CONTROL] = without_prior(logits[name], job)
    lesions = [data.lesions[row] for row in job.validation.rows]
    sizes: dict[str, object] = {
        "train_images": len(job.train),
        "validation_images": len(job.validation),
    }
    return [
        {"setting": setting, **judged(table_of(found, job, lesions)), **sizes}
        for setting, found in logits.items()
    ]


def without_prior(logits: Floats, job: Job) -> Floats:
    """Return logits minus the log prior of the training part (Menon et al. 2021, section 4.1)."""
    counts = np.bincount(job.train.labels, minlength=len(job.classes))
    # A class that was not there to train on has no prior; it keeps its logits.
    return logits - np.where(counts > 0, np.log(np.maximum(counts, 1) / counts.sum()), 0.0)


def table_of(logits: Floats, job: Job, lesions: Sequence[str]) -> Predictions:
    """Return the validation part's predictions, in groups by lesion."""
    described = {
        "image_id": [str(row) for row in job.validation.rows],
        "lesion_id": lesions,
        "diagnosis": [job.classes[label] for label in job.validation.labels],
    }
    columns = dict(zip(probability_columns(job.classes), softmax(logits).T, strict=True))
    return parse_predictions(pd.DataFrame(described | columns), job.classes)


def judged(table: Predictions) -> dict[str, float | None]:
    """Return the metrics of a table, the balanced accuracy with its interval."""
    measured = point(table)
    with one_thread():
        resampled = [
            from_confusion(confusion_matrices(table, weights), table.classes)["balanced_accuracy"]
            for weights in image_weights(table, _RESAMPLES, seed=0)
        ]
    found = interval(measured["balanced_accuracy"], np.concatenate(resampled))
    low, high = found or (None, None)
    numbers = {
        "balanced_accuracy": measured["balanced_accuracy"],
        "balanced_accuracy_low": low,
        "balanced_accuracy_high": high,
        "accuracy": measured["accuracy"],
        "macro_auc": measured["macro_auc"],
        "melanoma_sensitivity": measured["per_class.mel.sensitivity"],
    }
    return {name: None if value is None else round(value, 3) for name, value in numbers.items()}


if __name__ == "__main__":
    main()
