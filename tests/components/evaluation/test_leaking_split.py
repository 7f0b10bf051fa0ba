"""How much a split of single images flatters: on made-up features where the answer is known."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from components.atomic import write_json
from components.backbones.model_file import MODEL_JSON
from components.errors import WeightsError
from components.evaluation.leaking_split import (
    compare_splits,
    deal,
    draw_groups,
    measure_leaking_split,
    principal_components,
    starting_weights,
)
from components.layout import Layout

NUM_GROUPS, PER_GROUP = 300, 3


def _images(per_group: int, own: float) -> tuple[Any, ...]:
    """Features that tell the lesion (not the diagnosis, where `own` is 0), and their labels."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(NUM_GROUPS), per_group)
    truth = rng.integers(3, size=NUM_GROUPS)[group]
    lesion = rng.normal(size=(NUM_GROUPS, 120))[group]
    features = lesion + 0.1 * rng.normal(size=lesion.shape)
    features[:, :3] += own * np.eye(3)[truth]
    part = np.array(["train", "train", "validation", "test"])[group % 4]
    return features, np.array(["a", "b", "c"])[truth], group, part


def test_what_is_remembered_of_a_lesion_flatters_only_where_lesions_leak() -> None:
    found = compare_splits(*_images(PER_GROUP, own=0), seed=0)
    assert found["group_level"]["mean"] == pytest.approx(1 / 3, abs=0.05)
    assert found["difference"]["mean"] > 0.2
    assert found["leaking_share"] > 0.7


def test_where_every_image_is_a_lesion_of_its_own_nothing_is_gained() -> None:
    found = compare_splits(*_images(1, own=3.0), seed=0)
    assert found["leaking_share"] == 0
    assert abs(found["difference"]["mean"]) < 2 * found["difference"]["sd"]
    assert found["own_split"] == pytest.approx(found["group_level"]["mean"], abs=0.1)


def test_the_difference_is_that_of_the_two_means_and_the_same_every_time() -> None:
    images = _images(PER_GROUP, own=1.0)
    found = compare_splits(*images, seed=3)
    means = [found[kind]["mean"] for kind in ("image_level", "group_level")]
    assert found["difference"]["mean"] == pytest.approx(means[0] - means[1], abs=1e-5)
    assert compare_splits(*images, seed=3) == found
    assert compare_splits(*images, seed=4) != found


def test_groups_are_dealt_whole_and_both_ways_give_the_same_sizes() -> None:
    rng = np.random.default_rng(0)
    group = np.sort(rng.integers(200, size=500))
    group = np.unique(group, return_inverse=True)[1]
    truth = (rng.random(group.max() + 1) < 0.2).astype(np.int64)[group]
    for units in (group, np.arange(len(group))):
        train, test = deal(units, truth, (0.7, 0.15), rng)
        assert not (train & test).any()
        for number in (0, 1):
            own = truth == number
            assert train[own].mean() == pytest.approx(0.7, abs=0.04)
            assert test[own].mean() == pytest.approx(0.15, abs=0.04)
        assert not set(units[train]) & set(units[test])


def test_of_a_large_set_whole_groups_are_drawn() -> None:
    images = pd.DataFrame({"group_id": [f"g{number // 3}" for number in range(900)]})
    few = draw_groups(images, 100, seed=0)
    assert 100 <= len(few) < 103
    assert (few["group_id"].value_counts() == 3).all()
    assert len(draw_groups(images, 5000, seed=0)) == 900


def test_components_keep_the_distances_of_few_images_and_pass_over_constant_features() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(50, 30)).astype(np.float32)
    found = principal_components(np.concatenate([features, np.ones((50, 2), np.float32)], axis=1))
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    distances = [np.linalg.norm(own[0] - own[1:], axis=1) for own in (found, scaled)]
    assert distances[0] == pytest.approx(distances[1], rel=1e-4)


@pytest.mark.parametrize(
    ("spec", "sha256", "reason"),
    [
        ("registry:v0001", "", "has seen labels"),
        ("none", "0" * 64, "are others by now"),
        ("gone.pth", "", "no weights file"),
    ],
)
def test_a_start_that_would_not_be_honest_is_said_not_to_be_measured(
    tmp_path: Path, spec: str, sha256: str, reason: str
) -> None:
    layout = Layout(tmp_path)
    run = layout.run("resnet18", 0)
    _write_model(run, spec, sha256)
    with pytest.raises(WeightsError, match=reason):
        starting_weights(run, layout.root)
    member = {"backbone": "resnet18", "seed": 0}
    found = measure_leaking_split(layout, {"members": [member]}, seed=0)
    assert not found["measured"] and reason in found["reason"]


def test_a_weights_file_of_a_model_of_ours_has_seen_labels(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from components.backbones.zoo import create_backbone

    file = tmp_path / "copied.safetensors"
    save_file(create_backbone("resnet18", 2).state_dict(), file)
    run = Layout(tmp_path).run("resnet18", 0)
    _write_model(run, "copied.safetensors", hashlib.sha256(file.read_bytes()).hexdigest())
    with pytest.raises(WeightsError, match="has seen labels"):
        starting_weights(run, tmp_path)


def _write_model(run: Path, spec: str, sha256: str) -> None:
    from components.backbones.preprocess import Preprocessing
    from components.backbones.saved import Member, ModelFile

    preprocessing = Preprocessing.of("resnet18", pack_size=32, fit="crop", image_size=32)
    member = Member(file="model.safetensors", backbone="resnet18", preprocessing=preprocessing)
    provenance = {"weights": {"sha256": sha256}, "training": {"weights": spec}, "seed": 0}
    file = ModelFile(classes=("a", "b"), malignant=("a",), members=(member,), provenance=provenance)
    write_json(run / MODEL_JSON, file.model_dump(mode="json"))
