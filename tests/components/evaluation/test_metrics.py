"""Every metric against scikit-learn, and what happens where a metric is not defined."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from components.evaluation.metrics import (
    NUM_BINS,
    equal_count_bins,
    equal_width_bins,
    measure,
    point,
)
from components.evaluation.prediction_table import Predictions, parse_predictions

MakeTable = Callable[..., pd.DataFrame]


def _reference(table: Predictions, weights: np.ndarray | None = None) -> dict[str, float]:  # type: ignore[type-arg]
    """The same numbers by scikit-learn."""
    truth, predicted, shares = table.truth, table.predicted, table.probabilities
    labels = np.arange(len(table.classes))
    found = {
        "accuracy": sk.accuracy_score(truth, predicted, sample_weight=weights),
        "mcc": sk.matthews_corrcoef(truth, predicted, sample_weight=weights),
        "cohen_kappa": sk.cohen_kappa_score(truth, predicted, sample_weight=weights),
        "log_loss": sk.log_loss(truth, y_proba=shares, labels=labels, sample_weight=weights),
        "brier": sk.brier_score_loss(truth, shares, labels=labels, sample_weight=weights),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found["balanced_accuracy"] = sk.balanced_accuracy_score(
            truth, predicted, sample_weight=weights
        )
        for average in ("macro", "weighted"):
            values = sk.precision_recall_fscore_support(
                truth, predicted, average=average, sample_weight=weights, zero_division=0
            )
            for name, value in zip(("precision", "recall", "f1"), values[:3], strict=True):
                found[f"{average}_{name}"] = value
        for number, name in enumerate(table.classes):
            own = truth == number
            if own.any() and not own.all():
                arguments = (own, shares[:, number])
                key = f"per_class.{name}"
                found[f"{key}.auc"] = sk.roc_auc_score(*arguments, sample_weight=weights)
                found[f"{key}.average_precision"] = sk.average_precision_score(
                    *arguments, sample_weight=weights
                )
                called = predicted == number
                found[f"{key}.f1"] = sk.f1_score(own, called, sample_weight=weights)
                found[f"{key}.sensitivity"] = sk.recall_score(own, called, sample_weight=weights)
                found[f"{key}.specificity"] = sk.recall_score(~own, ~called, sample_weight=weights)
                found[f"{key}.accuracy"] = sk.accuracy_score(own, called, sample_weight=weights)
                if called.any():
                    found[f"{key}.ppv"] = sk.precision_score(own, called, sample_weight=weights)
                if not called.all():
                    found[f"{key}.npv"] = sk.precision_score(~own, ~called, sample_weight=weights)
    areas = [value for key, value in found.items() if key.endswith(".auc")]
    found["macro_auc"] = float(np.mean(areas))
    return found


def _assert_agrees(table: Predictions) -> None:
    ours = point(table)
    for name, value in _reference(table).items():
        assert ours[name] == pytest.approx(value, abs=1e-9), name


def test_numbers_of_a_table_like_ham10000_agree_with_scikit_learn(make_table: MakeTable) -> None:
    table = parse_predictions(make_table(num_images=2000, seed=3))
    _assert_agrees(table)
    assert point(table)["macro_auc"] == pytest.approx(
        sk.roc_auc_score(table.truth, table.probabilities, multi_class="ovr"), abs=1e-9
    )


@given(st.integers(0, 10_000), st.integers(2, 7), st.integers(20, 80), st.integers(1, 3))
@settings(deadline=None, max_examples=40)
def test_numbers_of_any_table_agree_with_scikit_learn(
    seed: int, num_classes: int, size: int, decimals: int
) -> None:
    """With few images classes go missing or are never predicted; rounding makes ties."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(num_classes, 0.7), size).round(decimals)
    shares[:, 0] += 1 - shares.sum(axis=1)
    shares = np.clip(shares, 0, 1)
    shares /= shares.sum(axis=1, keepdims=True)
    truth = rng.choice(num_classes, size, p=rng.dirichlet(np.ones(num_classes)))
    truth[:2] = 0, 1
    classes = tuple("abcdefg"[:num_classes])
    frame = pd.DataFrame({f"p_{name}": shares[:, n] for n, name in enumerate(classes)})
    frame.insert(0, "image_id", [f"i{number}" for number in range(size)])
    frame["diagnosis"] = np.array(classes)[truth]
    _assert_agrees(parse_predictions(frame))


def test_weights_mean_what_sample_weight_means_to_scikit_learn(make_table: MakeTable) -> None:
    table = parse_predictions(make_table(num_images=300, seed=1))
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 4, size=(3, len(table))) * 1.25
    measured = measure(table, weights)
    for row, own in enumerate(weights):
        for name, value in _reference(table, own).items():
            assert measured[name][row] == pytest.approx(value, abs=1e-9), name


def test_malignant_against_benign_is_the_sum_of_the_malignant_classes(
    make_table: MakeTable,
) -> None:
    table = parse_predictions(make_table(num_images=500, seed=2))
    assert table.malignant == ("akiec", "bcc", "mel")
    truth = np.isin(table.truth, [0, 1, 4])
    scores = table.probabilities[:, [0, 1, 4]].sum(axis=1)
    called = np.isin(table.predicted, [0, 1, 4])
    ours = point(table)
    assert ours["malignant.auc"] == pytest.approx(sk.roc_auc_score(truth, scores), abs=1e-9)
    assert ours["malignant.sensitivity"] == pytest.approx(sk.recall_score(truth, called))
    assert ours["malignant.specificity"] == pytest.approx(sk.recall_score(~truth, ~called))
    fpr, tpr, _ = sk.roc_curve(truth, scores, drop_intermediate=False)
    assert ours["malignant.sensitivity_at_90_specificity"] == pytest.approx(
        tpr[fpr <= 0.1 + 1e-9].max()
    )
    assert ours["malignant.specificity_at_95_sensitivity"] == pytest.approx(
        1 - fpr[tpr >= 0.95 - 1e-9].min()
    )


def test_benign_and_malignant_class_folders_have_the_binary_numbers(
    make_table: MakeTable,
) -> None:
    table = parse_predictions(make_table(classes=("benign", "malignant"), seed=4))
    assert table.malignant == ("malignant",)
    ours = point(table)
    assert ours["malignant.auc"] == pytest.approx(ours["per_class.malignant.auc"])
    assert ours["malignant.sensitivity"] == ours["per_class.malignant.sensitivity"]
    halved = sk.brier_score_loss(table.truth, table.probabilities[:, 1])
    assert ours["brier"] == pytest.approx(halved, abs=1e-9)


def _table(truth: list[str], rows: list[list[float]], classes: tuple[str, ...]) -> Predictions:
    frame = pd.DataFrame(rows, columns=[f"p_{name}" for name in classes])
    frame["image_id"] = [f"i{number}" for number in range(len(rows))]
    return parse_predictions(frame.assign(diagnosis=truth))


def test_the_calibration_error_of_four_images_worked_by_hand() -> None:
    # Confidences 0.95, 0.95 (one bin: one right), 0.7 (right), 0.6 (wrong).
    table = _table(
        ["a", "b", "a", "b"],
        [[0.95, 0.05], [0.95, 0.05], [0.7, 0.3], [0.6, 0.4]],
        ("a", "b"),
    )
    ece = (2 * abs(0.5 - 0.95) + abs(1 - 0.7) + abs(0 - 0.6)) / 4
    assert point(table)["ece"] == pytest.approx(ece)


def test_bins_of_the_calibration_error() -> None:
    edges = np.array([0.0, 1 / 15, 1 / 15 + 1e-9, 0.5, 1.0])
    assert equal_width_bins(edges).tolist() == [0, 0, 1, 7, NUM_BINS - 1]
    counts = np.bincount(equal_count_bins(np.random.default_rng(0).random(3000)))
    assert len(counts) == NUM_BINS and counts.min() == counts.max() == 200
    assert len(set(equal_count_bins(np.full(100, 0.7)).tolist())) == 1


def test_of_a_tie_the_class_that_comes_first_is_the_prediction() -> None:
    table = _table(["b", "a"], [[0.5, 0.5], [0.5, 0.5]], ("a", "b"))
    assert table.predicted.tolist() == [0, 0]
    assert point(table)["accuracy"] == 0.5
    assert point(table)["per_class.a.auc"] == 0.5


def test_a_class_without_images_leaves_balanced_accuracy_to_the_others() -> None:
    rows = [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.2, 0.7, 0.1]]
    ours = point(_table(["a", "b", "a"], rows, ("a", "b", "c")))
    assert ours["balanced_accuracy"] == pytest.approx((0.5 + 1.0) / 2)
    assert np.isnan(ours["per_class.c.sensitivity"]) and np.isnan(ours["per_class.c.auc"])
    assert np.isnan(ours["per_class.c.ppv"]) and ours["per_class.c.specificity"] == 1.0
    assert ours["macro_auc"] == pytest.approx(
        (ours["per_class.a.auc"] + ours["per_class.b.auc"]) / 2
    )
    assert ours["macro_f1"] == pytest.approx(sk.f1_score([0, 1, 0], [0, 1, 1], average="macro"))


def test_a_class_that_is_predicted_but_absent_costs_macro_f1_as_in_scikit_learn() -> None:
    rows = [[0.8, 0.1, 0.1], [0.1, 0.1, 0.8], [0.1, 0.8, 0.1]]
    ours = point(_table(["a", "b", "b"], rows, ("a", "b", "c")))
    expected = sk.f1_score([0, 1, 1], [0, 2, 1], average="macro", zero_division=0)
    assert ours["macro_f1"] == pytest.approx(expected)
    assert ours["per_class.c.ppv"] == 0.0


def test_one_class_only_has_an_accuracy_and_no_area() -> None:
    ours = point(_table(["a", "a"], [[0.9, 0.1], [0.4, 0.6]], ("a", "b")))
    assert ours["accuracy"] == ours["balanced_accuracy"] == 0.5
    assert np.isnan(ours["macro_auc"]) and np.isnan(ours["cohen_kappa"]) is np.False_
    right = point(_table(["a", "a"], [[0.9, 0.1], [0.6, 0.4]], ("a", "b")))
    assert np.isnan(right["mcc"]) and np.isnan(right["cohen_kappa"])


def test_a_certain_mistake_costs_a_finite_log_loss() -> None:
    ours = point(_table(["a", "b"], [[0.0, 1.0], [0.0, 1.0]], ("a", "b")))
    assert ours["log_loss"] == pytest.approx(-np.log(np.finfo(float).eps) / 2)
