"""Ranks: by what, on what, what shares one, and how seeds and images make an interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest

from components.errors import TableError
from components.evaluation.ensembles import RunName
from components.evaluation.ranking import (
    Contender,
    PartNumbers,
    backbone_document,
    backbone_resamples,
    measure_part,
    rank_contenders,
    seed_weights,
)
from components.evaluation.score import score_table

MakeTable = Callable[..., pd.DataFrame]
CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
MALIGNANT = ("akiec", "bcc", "mel")


def blurred(frame: pd.DataFrame, noise: float, seed: int) -> pd.DataFrame:
    """The same images by a model that mixes in noise."""
    columns = [f"p_{name}" for name in CLASSES]
    other = np.random.default_rng(seed).dirichlet(np.ones(len(columns)), len(frame))
    mixed = (1 - noise) * frame[columns].to_numpy() + noise * other
    return frame.assign(**dict(zip(columns, mixed.T, strict=True)))


def measured(frames: Mapping[RunName, pd.DataFrame], resamples: int = 400) -> PartNumbers:
    return measure_part(frames, CLASSES, MALIGNANT, resamples, 0)


def contender(part: PartNumbers, *runs: RunName, macs: int = 1, **changes: Any) -> Contender:
    values = [part.values[run] for run in runs]
    own = {
        "balanced_accuracy": float(np.mean([v["balanced_accuracy"] for v in values])),
        "melanoma_sensitivity": float(np.mean([v["melanoma_sensitivity"] for v in values])),
    }
    resampled = backbone_resamples(part, runs, 0)["balanced_accuracy"]
    return Contender(
        backbone=runs[0].backbone, runs=runs, macs=macs, resampled=resampled, **(own | changes)
    )


def test_numbers_are_those_of_score(make_table: MakeTable) -> None:
    frame = make_table(num_images=300)
    run = RunName("resnet18", 0)
    part = measured({run: frame})
    document = score_table(frame, resamples=400)
    row = backbone_document(part, [run], backbone_resamples(part, [run], 0))
    for name in ("balanced_accuracy", "macro_auc", "ece"):
        assert row[name]["mean"] == pytest.approx(document[name], abs=1e-9)
        assert [row[name]["low"], row[name]["high"]] == pytest.approx(document["intervals"][name])
    assert row["melanoma_sensitivity"]["mean"] == document["per_class"]["mel"]["sensitivity"]
    assert row["balanced_accuracy"]["sd"] is None


def test_several_seeds_give_mean_spread_and_a_wider_interval(make_table: MakeTable) -> None:
    frame = make_table(num_images=400)
    runs = [RunName("resnet18", seed) for seed in range(3)]
    frames = {run: blurred(frame, (0.1, 0.45, 0.8)[run.seed], run.seed) for run in runs}
    part = measured(frames)
    row = backbone_document(part, runs, backbone_resamples(part, runs, 0))["balanced_accuracy"]
    alone = [
        backbone_document(part, [run], backbone_resamples(part, [run], 0))["balanced_accuracy"]
        for run in runs
    ]
    own = [one["mean"] for one in alone]
    assert row["mean"] == pytest.approx(np.mean(own)) and row["by_seed"] == own
    assert row["sd"] == pytest.approx(np.std(own, ddof=1))
    widths = [one["high"] - one["low"] for one in alone]
    assert row["high"] - row["low"] > max(widths)  # the seeds differ more than the images do


def test_all_melanomas_found_is_not_a_certainty(make_table: MakeTable) -> None:
    frame = make_table(num_images=300, skill=12.0)
    run = RunName("resnet18", 0)
    part = measured({run: frame})
    row = backbone_document(part, [run], backbone_resamples(part, [run], 0))
    groups = frame.loc[frame["diagnosis"] == "mel", "group_id"].nunique()
    found = row["melanoma_sensitivity"]
    assert (found["mean"], found["high"]) == (1.0, 1.0)
    assert found["low"] == pytest.approx(0.025 ** (1 / groups))


def test_the_variance_over_seeds_is_that_of_their_mean() -> None:
    values = np.array([0.5, 0.7, 0.9])
    means = seed_weights("resnet18", 3, 40_000, 0) @ values
    assert means.mean() == pytest.approx(0.7, abs=0.002)
    assert means.var() == pytest.approx(values.var(ddof=1) / 3, rel=0.05)
    assert (seed_weights("resnet18", 1, 5, 0) == 1).all()
    # Another backbone draws its own seeds; the same one always the same.
    assert (seed_weights("vgg11", 3, 50, 0) != seed_weights("resnet18", 3, 50, 0)).any()


def test_what_cannot_be_told_apart_shares_a_rank(make_table: MakeTable) -> None:
    frame = make_table(num_images=500)
    names = {"resnet18": 0.3, "vgg11": 0.3, "swin_t": 0.95}
    runs = {name: RunName(name, 0) for name in names}
    part = measured(
        {
            runs[name]: blurred(frame, noise, number)
            for number, (name, noise) in enumerate(names.items())
        }
    )
    ranked, comparisons = rank_contenders(
        [contender(part, run) for run in runs.values()], part, 0.05
    )
    assert [(rank, one.backbone) for rank, one in ranked][-1] == (3, "swin_t")
    assert [rank for rank, _ in ranked] == [1, 1, 3]
    leader = comparisons[0]["first"]
    apart = {one["second"]: one["distinguishable"] for one in comparisons if one["first"] == leader}
    assert apart.pop("swin_t") and not any(apart.values())
    for one in comparisons:
        assert one["p_holm"] >= one["p_value"]
        assert {"only_first", "only_second", "p_value", "seed"} <= set(one["mcnemar"])


def test_ties_go_by_melanoma_sensitivity_then_by_multiply_adds_then_by_name(
    make_table: MakeTable,
) -> None:
    frame = make_table(num_images=200)
    runs = {name: RunName(name, 0) for name in ("resnet18", "vgg11", "swin_t", "densenet121")}
    part = measured(dict.fromkeys(runs.values(), frame), resamples=100)
    contenders = [
        contender(part, runs["resnet18"], macs=5, melanoma_sensitivity=0.8),
        contender(part, runs["vgg11"], macs=9, melanoma_sensitivity=0.9),
        contender(part, runs["swin_t"], macs=4, melanoma_sensitivity=0.8),
        contender(part, runs["densenet121"], macs=5, melanoma_sensitivity=0.8 + 1e-13),
    ]
    ranked, _ = rank_contenders(contenders, part, 0.05)
    assert [one.backbone for _, one in ranked] == ["vgg11", "swin_t", "densenet121", "resnet18"]
    assert {rank for rank, _ in ranked} == {1}


def test_folds_are_ranked_on_their_own_images(make_table: MakeTable) -> None:
    frame = make_table(num_images=400)
    groups = frame["group_id"].drop_duplicates().reset_index(drop=True)
    fold = frame["group_id"].map(dict(zip(groups, groups.index % 2, strict=True)))
    frames = {
        RunName(name, seed): blurred(frame[fold == seed], noise, seed)
        for name, noise in (("resnet18", 0.1), ("vgg11", 0.95))
        for seed in range(2)
    }
    part = measured(frames)
    both = [contender(part, RunName(name, 0), RunName(name, 1)) for name in ("resnet18", "vgg11")]
    ranked, _ = rank_contenders(both, part, 0.05)
    assert [(rank, one.backbone) for rank, one in ranked] == [(1, "resnet18"), (2, "vgg11")]


def test_runs_of_other_splits_are_not_compared(make_table: MakeTable) -> None:
    frame = make_table(num_images=200)
    frames = {RunName("resnet18", 0): frame, RunName("vgg11", 0): frame.iloc[:-5]}
    part = measured(frames, resamples=100)
    with pytest.raises(TableError, match="not validated on the same images"):
        rank_contenders([contender(part, run) for run in frames], part, 0.05)
    wrong = frame.assign(diagnosis=np.roll(frame["diagnosis"], 1))
    with pytest.raises(TableError, match="disagree on the diagnosis"):
        measured({RunName("resnet18", 0): frame, RunName("vgg11", 0): wrong}, resamples=100)
