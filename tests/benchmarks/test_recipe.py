"""The tables of what the recipe's choices are worth: what they keep, and what their numbers are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import machine
from benchmarks.data import BenchmarkData
from benchmarks.machine import read_results, write_results
from benchmarks.recipe import CONTROL, NOTHING, judged, merged, table_of, without_prior
from components.training.job import Job, Part

COUNTS = np.array([10, 30, 160])
CLASSES = ("bkl", "mel", "nv")


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Job:
    """Return a training on 200 images of three classes, judged on 300 of 150 lesions."""
    monkeypatch.setattr("benchmarks.data._REAL", tmp_path)
    data = BenchmarkData.find(21)
    labels = np.repeat(np.arange(3), COUNTS).astype(np.int64)
    held_out = np.repeat(np.arange(3), 100).astype(np.int64)
    return replace(
        data.job("mobilenet_v2", data.params(image_size=32)),
        classes=CLASSES,
        train=Part(np.arange(200), labels),
        validation=Part(np.arange(200, 500), held_out),
    )


def test_rows_that_are_not_measured_again_stay_with_their_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "RESULTS", tmp_path)
    assert read_results("imbalance") == []
    monkeypatch.setattr(machine, "machine", lambda: "the first")
    write_results(
        "imbalance", merged("imbalance", [], [{"setting": "focal loss", "accuracy": 0.5}])
    )
    monkeypatch.setattr(machine, "machine", lambda: "the second")
    new = [{"setting": CONTROL, "accuracy": 0.7}, {"setting": NOTHING, "accuracy": 0.6}]
    write_results("imbalance", merged("imbalance", read_results("imbalance"), new))
    again = [{"setting": CONTROL, "accuracy": 0.8}]
    write_results("imbalance", merged("imbalance", read_results("imbalance"), again))
    assert [tuple(row.values()) for row in read_results("imbalance")] == [
        (NOTHING, "0.6", "the second"),
        (CONTROL, "0.8", "the second"),
        ("focal loss", "0.5", "the first"),
    ]


def test_without_the_prior_what_a_model_says_of_noise_is_even(job: Job) -> None:
    """A model that knows nothing but how frequent the classes are says their log prior."""
    logits = np.tile(np.log(COUNTS / COUNTS.sum()), (300, 1)) + 5.0
    left = without_prior(logits, job)
    np.testing.assert_allclose(left, left[:, :1].repeat(3, axis=1))


def test_interval_is_bootstrapped_over_lesions(job: Job) -> None:
    rng = np.random.default_rng(0)
    own = np.eye(3)[job.validation.labels] + rng.normal(0, 1, (300, 3))
    own[1::2] = own[::2]  # both images of a lesion are judged alike
    widths = []
    for lesions in ([f"lesion{n // 2}" for n in range(300)], [f"lesion{n}" for n in range(300)]):
        found = judged(table_of(own, job, lesions))
        low, value, high = (found[f"balanced_accuracy{which}"] for which in ("_low", "", "_high"))
        assert low is not None and value is not None and high is not None
        assert low < value < high
        widths.append(high - low)
    assert widths[0] > 1.2 * widths[1]  # half as many lesions: wider by about the root of two
