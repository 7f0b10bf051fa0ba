"""The whole flow on real dermoscopic images with real ImageNet weights, as a user would run it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.originals import read_originals

Command = Callable[..., subprocess.CompletedProcess[str]]
BACKBONES = ("mobilenet_v2", "mobilenet_v1", "tf_efficientnet_lite0")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def mini(
    real_data: Path,
    tmp_path_factory: pytest.TempPathFactory,
    copy_workspace: Callable[[Path], Path],
    lesionflow: Command,
) -> Path:
    """Return a workspace in which 691 real images were trained on for four epochs."""
    workspace = copy_workspace(tmp_path_factory.mktemp("mini") / "workspace")
    source = str(real_data / "ham10000-mini")
    used = lesionflow(
        workspace,
        *("use", "ham10000", "--source", source, "--image-size", "96"),
        *("--backbones", ",".join(BACKBONES)),
    )
    assert used.returncode == 0, used.stderr
    done = lesionflow(
        workspace,
        *("retrain", "-S", "training.epochs=4"),
        # The recipe's gates are for ten times as many images and four times as many epochs.
        *("-S", "gates={min_balanced_accuracy: 0.25, min_melanoma_sensitivity: 0.1}"),
        LESIONFLOW_WEIGHTS=str(real_data / "weights"),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return workspace


def test_the_champion_beats_always_guessing_one_class_on_lesions_never_trained_on(
    mini: Path,
) -> None:
    registry = mini / "registry" / "ham10000"
    champion = _json(registry / "aliases" / "champion.json")["version"]
    metrics = _json(registry / "versions" / champion / "metrics.json")
    low, _ = metrics["intervals"]["balanced_accuracy"]
    assert low > 1 / 7
    splits = pd.read_parquet(mini / "data" / "splits.parquet")
    labels = pd.read_parquet(mini / "data" / "raw" / "labels.parquet")
    parts = splits.merge(labels[["image_id", "lesion_id"]], on="image_id")
    parts = parts.dropna(subset=["split"])
    assert (parts.groupby("lesion_id")["split"].nunique() == 1).all()


def test_every_image_of_the_source_is_there_with_its_own_bytes(mini: Path, real_data: Path) -> None:
    labels = pd.read_parquet(mini / "data" / "raw" / "labels.parquet")
    assert len(labels) == 691
    ours, theirs = read_originals(mini / "data/raw/images"), real_data / "ham10000-mini/images"
    assert len(ours) == 691
    for name, data in ours.items():
        assert data == (theirs / name).read_bytes()


def test_no_real_image_is_quarantined_by_a_statistic(mini: Path) -> None:
    assert pd.read_parquet(mini / "data" / "quarantine.parquet").empty


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_weights_of_every_backbone_are_recorded(mini: Path, backbone: str) -> None:
    model = _json(mini / "runs" / f"{backbone}-0" / "model.json")
    assert model["provenance"]["weights"]["sha256"]


def test_evaluate_on_a_source_never_seen_leaves_the_workspace_as_it_was(
    mini: Path, real_data: Path, lesionflow: Command
) -> None:
    before = (mini / "dvc.lock").read_bytes()
    source = str(real_data / "ham10000-increment")
    done = lesionflow(mini, "evaluate", "--source", source, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["num_images"] == 193
    assert document["balanced_accuracy"] > 1 / 7
    assert (mini / "dvc.lock").read_bytes() == before


def test_predict_gives_the_row_of_the_prediction_table(
    mini: Path, lesionflow: Command, tmp_path: Path
) -> None:
    champion = _json(mini / "reports" / "leaderboard.json")["candidate"]["members"][0]
    run = f"{champion['backbone']}-{champion['seed']}"
    row = pd.read_parquet(mini / "evaluations" / run / "test.parquet").iloc[-1]
    image = tmp_path / f"{row['image_id']}.jpg"
    image.write_bytes(read_originals(mini / "data" / "raw" / "images")[image.name])
    done = lesionflow(mini, "predict", str(image), "--json")
    (predicted,) = json.loads(done.stdout)["images"]
    for name, value in predicted["probabilities"].items():
        assert value == pytest.approx(row[f"p_{name}"], abs=1e-5)


def test_predict_refuses_what_is_no_lesion_unless_told_to(
    mini: Path, lesionflow: Command, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    refused = lesionflow(mini, "predict", str(tmp_path / "noise.png"))
    assert refused.returncode == 2
    assert "does not look like" in refused.stdout
    assert "--any-picture" in refused.stdout
    done = lesionflow(mini, "predict", str(tmp_path / "noise.png"), "--any-picture", "--json")
    (predicted,) = json.loads(done.stdout)["images"]
    assert sum(predicted["probabilities"].values()) == pytest.approx(1)
