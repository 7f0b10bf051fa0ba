"""The bootstrap: drawn by group, by stratum, by seed; and how often its intervals are right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from components.evaluation.intervals import (
    exact_interval,
    group_weights,
    image_weights,
    interval,
    stack,
    strata_of,
)
from components.evaluation.metrics import measure
from components.evaluation.prediction_table import parse_predictions

MakeTable = Callable[..., pd.DataFrame]


def _all_weights(strata: list[int], resamples: int = 400, seed: int = 0) -> np.ndarray:  # type: ignore[type-arg]
    return np.concatenate(list(group_weights(np.array(strata), resamples, seed)))


def test_every_resample_keeps_the_size_of_every_stratum() -> None:
    strata = [0] * 30 + [1] * 4 + [2]
    weights = _all_weights(strata)
    for number, size in ((0, 30), (1, 4), (2, 1)):
        sums = weights[:, np.array(strata) == number].sum(axis=1)
        assert np.allclose(sums, size)


def test_weights_are_the_same_for_the_same_seed_only() -> None:
    strata = [0] * 10 + [1] * 10
    assert (_all_weights(strata, seed=1) == _all_weights(strata, seed=1)).all()
    assert (_all_weights(strata, seed=1) != _all_weights(strata, seed=2)).any()
    # More resamples begin with the same ones: the chunks do not matter.
    assert (_all_weights(strata, 400)[:100] == _all_weights(strata, 100)).all()


def test_the_variance_of_a_mean_is_right_also_for_a_small_stratum() -> None:
    values = np.array([0.0, 0.0, 1.0, 1.0, 1.0])
    means = _all_weights([0] * 5, resamples=20_000) @ values / 5
    assert means.var() == pytest.approx(values.var(ddof=1) / 5, rel=0.05)


def test_images_of_a_group_are_drawn_together(make_table: MakeTable) -> None:
    table = parse_predictions(make_table(num_images=60))
    weights = np.concatenate(list(image_weights(table, 50, 0)))
    for group in range(table.num_groups):
        own = weights[:, table.groups == group]
        assert (own == own[:, :1]).all()


def test_a_groups_stratum_is_its_rarest_diagnosis() -> None:
    frame = pd.DataFrame(
        {
            "image_id": list("abcdef"),
            "diagnosis": ["nv", "mel", "nv", "nv", "nv", "mel"],
            "patient_id": ["p", "p", "q", "r", "r", "s"],
            "p_mel": 0.5,
            "p_nv": 0.5,
        }
    )
    table = parse_predictions(frame)
    strata = strata_of(table)
    named = {frame["patient_id"][i]: table.classes[strata[g]] for i, g in enumerate(table.groups)}
    assert named == {"p": "mel", "q": "nv", "r": "nv", "s": "mel"}


def test_copies_of_an_image_do_not_make_the_interval_narrower(make_table: MakeTable) -> None:
    frame = make_table(num_images=150, lesions=False)
    frame["group_id"] = frame["image_id"]
    copies = pd.concat([frame, frame.assign(image_id="copy-" + frame["image_id"])])
    widths = []
    for one in (frame, copies):
        table = parse_predictions(one)
        values = np.concatenate(
            [measure(table, w)["accuracy"] for w in image_weights(table, 2000, 0)]
        )
        widths.append(np.ptp(np.quantile(values, [0.025, 0.975])))
    assert widths[1] == pytest.approx(widths[0], rel=0.05)


def test_intervals_hold_the_truth_about_as_often_as_they_say(make_table: MakeTable) -> None:
    """Tables from one population with lesions of several images; the truth is a huge table's."""
    names = ("accuracy", "balanced_accuracy", "macro_auc", "log_loss")
    classes = ("mel", "nv", "bkl")
    big = parse_predictions(make_table(40_000, seed=99, classes=classes, skill=1.0))
    truth = measure(big, np.ones((1, len(big))))
    held, trials = dict.fromkeys(names, 0), 100
    for seed in range(trials):
        table = parse_predictions(make_table(150, seed=seed, classes=classes, skill=1.0))
        resampled = stack([measure(table, w) for w in image_weights(table, 300, seed)])
        for name in names:
            low, high = interval(0.0, resampled[name]) or [0.0, 0.0]
            held[name] += low <= truth[name][0] <= high
    assert all(0.87 <= count / trials <= 1.0 for count in held.values()), held


def test_the_interval_of_a_calibration_error_is_not_pushed_upwards() -> None:
    resampled = np.random.default_rng(0).normal(0.06, 0.01, 5000)  # biased: the number is 0.05
    low, high = interval(0.05, resampled, reflected=True) or [0.0, 0.0]
    assert low == pytest.approx(0.0204, abs=0.002) and high == pytest.approx(0.0596, abs=0.002)
    low, high = interval(0.01, resampled, reflected=True) or [1.0, 1.0]
    assert low == 0.0 and high == 0.01  # never below nothing, and it holds the number itself


def test_what_tells_nothing_of_spread_has_no_interval() -> None:
    assert interval(1.0, np.ones(1000)) is None
    mostly_undefined = np.where(np.arange(1000) % 5 == 0, np.nan, np.arange(1000.0))
    assert interval(0.5, mostly_undefined) is None


def test_the_exact_interval_is_clopper_and_pearsons() -> None:
    from scipy.stats import binomtest

    for size in (5, 20, 300):
        expected = binomtest(size, size).proportion_ci(0.95, method="exact")
        assert exact_interval(size, all_right=True) == pytest.approx([expected.low, 1.0])
        expected = binomtest(0, size).proportion_ci(0.95, method="exact")
        assert exact_interval(size, all_right=False) == pytest.approx([0.0, expected.high])
