"""What helps against imbalance (two thirds of HAM10000 are nevi), judged on other lesions.

Trains MobileNetV2 with the recipe for HAM10000, smaller (64 px, 6 epochs of 4,000 images), once per
setting that differs, on four fifths of the lesions. Nothing is chosen on the other fifth: what
counts is the last epoch. Writes `benchmarks/results/imbalance.csv`; not a part of `make bench`, for
it measures no speed and takes an hour.

Usage: python -m benchmarks.imbalance [NAME …]
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from benchmarks.data import BenchmarkData
from benchmarks.machine import write_results
from benchmarks.training import DEVICE, THREADS, ham10000_recipe
from components.backbones.inference import softmax
from components.training.loop import balanced_accuracy, fit, validate

_SMALLER = {"image_size": 64, "epochs": 6, "epoch_images": 4000}
_PLAIN = {"sampling_power": 1.0, "logit_adjustment": 0.0}
SETTINGS: dict[str, dict[str, Any]] = {
    "nothing": _PLAIN,
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


def main() -> None:
    """Train with each setting, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*SETTINGS, []], default=[])
    chosen = parser.parse_args().names or list(SETTINGS)
    torch.set_num_threads(THREADS)
    data = BenchmarkData.find(None)
    rows = []
    for name in chosen:
        rows.append({"setting": name} | judged(data, SETTINGS[name]))
        print(rows[-1], flush=True)
        write_results("imbalance", rows)  # an hour's work is not lost with its last row


def judged(data: BenchmarkData, changed: dict[str, Any]) -> dict[str, float]:
    """Train with `changed` in the recipe; return the last epoch's metrics on other lesions."""
    params = data.params(**ham10000_recipe() | _SMALLER | changed)
    job = data.job("mobilenet_v2", params)
    training = data.training(job, DEVICE)
    fit(training, lambda _: None)
    logits, labels = validate(training), job.validation.labels
    melanoma = job.classes.index("mel")
    right = logits.argmax(axis=1) == labels
    auc = roc_auc_score(labels, softmax(logits), multi_class="ovr", average="macro")
    return {
        "balanced_accuracy": round(balanced_accuracy(labels, logits), 3),
        "accuracy": round(float(np.mean(right)), 3),
        "macro_auc": round(float(auc), 3),
        "melanoma_sensitivity": round(float(np.mean(right[labels == melanoma])), 3),
        "train_images": len(job.train),
        "validation_images": len(job.validation),
    }


if __name__ == "__main__":
    main()
