"""Stage `evaluate` on a real network: calibrated on validation, never on test."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from components.backbones.saved import load_model
from components.dataset.pack import PackedImages
from components.errors import SplitError, TableError, TrainingError
from components.evaluation import evaluate
from components.evaluation.calibration import apply_temperature, fit_temperature
from components.evaluation.predict import predict_packed
from components.evaluation.prediction_table import parse_predictions
from components.evaluation.score import score_table
from components.layout import Layout
from components.tables import read_table, write_table


@pytest.fixture
def workspace_of(trained: Any, tmp_path: Path) -> Layout:
    """Return a copy of the workspace, to change."""
    return Layout(Path(shutil.copytree(trained.layout.root, tmp_path / "workspace")))


def _evaluate(trained: Any, layout: Layout) -> dict[str, bytes]:
    evaluate.run(trained.params, layout, trained.backbone, 0)
    folder = layout.evaluation(trained.backbone, 0)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_an_evaluation_has_what_the_others_read(trained: Any, workspace_of: Layout) -> None:
    files = _evaluate(trained, workspace_of)
    assert list(files) == [
        "calibration.json",
        "metrics.json",
        "test.parquet",
        "validation.parquet",
        "validation_metrics.json",
    ]
    folder = workspace_of.evaluation(trained.backbone, 0)
    splits = read_table(workspace_of.splits)
    for part, name in (("test", "metrics.json"), ("validation", "validation_metrics.json")):
        table = read_table(folder / f"{part}.parquet")
        wanted = sorted(splits.loc[splits["split"] == part, "image_id"])
        assert table["image_id"].tolist() == wanted
        assert {"group_id", "lesion_id", "patient_id", "diagnosis", "sharpness"} <= set(table)
        document = json.loads(files[name])
        again = score_table(table, resamples=100, seed=trained.params.seed)
        assert {key: document[key] for key in again} == again
        assert set(document["uncalibrated"]) == {"log_loss", "brier", "ece", "adaptive_ece"}
    assert {"sex", "age_years"} <= set(read_table(folder / "test.parquet"))
    assert "sex" in json.loads(files["metrics.json"])["subgroups"]


def test_the_same_run_gives_the_same_bytes(trained: Any, workspace_of: Layout) -> None:
    assert _evaluate(trained, workspace_of) == _evaluate(trained, workspace_of)


def test_test_predictions_are_the_models_own_from_the_bytes(
    trained: Any, workspace_of: Layout
) -> None:
    files = _evaluate(trained, workspace_of)
    temperature = json.loads(files["calibration.json"])["temperature"]
    table = read_table(workspace_of.evaluation(trained.backbone, 0) / "test.parquet")
    model = load_model(workspace_of.run(trained.backbone, 0))
    raw = model.predict_bytes([trained.images[name] for name in table["image_id"]])
    columns = [f"p_{name}" for name in model.file.classes]
    assert np.allclose(table[columns], apply_temperature(raw, temperature), atol=1e-5)
    assert np.ptp(raw, axis=0).max() > 0.01  # the network does look at the pictures


def test_temperature_and_thresholds_come_from_validation_alone(
    trained: Any, workspace_of: Layout
) -> None:
    before = json.loads(_evaluate(trained, workspace_of)["calibration.json"])
    raw = parse_predictions(
        read_table(workspace_of.run(trained.backbone, 0) / "validation.parquet")
    )
    assert before["temperature"] == fit_temperature(raw.probabilities, raw.truth)
    labels = read_table(workspace_of.labels)
    splits = read_table(workspace_of.splits)
    test = labels["image_id"].isin(splits.loc[splits["split"] == "test", "image_id"])
    labels.loc[test, "diagnosis"] = "nv"
    write_table(labels, workspace_of.labels)
    assert json.loads(_evaluate(trained, workspace_of)["calibration.json"]) == before


def test_thresholds_from_validation_are_judged_on_test(trained: Any, workspace_of: Layout) -> None:
    files = _evaluate(trained, workspace_of)
    chosen = json.loads(files["calibration.json"])["thresholds"]
    reached = json.loads(files["metrics.json"])["operating_points"]
    assert [one["threshold"] for one in reached] == [one["threshold"] for one in chosen]
    table = parse_predictions(
        read_table(workspace_of.evaluation(trained.backbone, 0) / "test.parquet")
    )
    called = table.malignant_score >= chosen[0]["threshold"]
    truth = table.is_malignant[table.truth]
    assert reached[0]["sensitivity"] == pytest.approx(called[truth].mean())


def test_validation_predictions_of_another_model_are_refused(
    trained: Any, workspace_of: Layout
) -> None:
    path = workspace_of.run(trained.backbone, 0) / "validation.parquet"
    table = read_table(path)
    columns = [name for name in table.columns if name.startswith("p_")]
    table[columns] = np.roll(table[columns].to_numpy(), 1, axis=0)
    write_table(table, path)
    with pytest.raises(TrainingError, match="does not give its own validation predictions"):
        _evaluate(trained, workspace_of)


def test_an_empty_test_part_is_refused(trained: Any, workspace_of: Layout) -> None:
    splits = read_table(workspace_of.splits)
    write_table(splits[splits["split"] != "test"], workspace_of.splits)
    with pytest.raises(SplitError, match="the test part is empty"):
        _evaluate(trained, workspace_of)


def test_pictures_that_were_packed_otherwise_are_refused(
    trained: Any, workspace_of: Layout
) -> None:
    from components.dataset.decode import PackSpec
    from components.dataset.pack import pack_images

    quality = read_table(workspace_of.quality)
    pack_images(
        quality, workspace_of.images, PackSpec(40, "crop"), workspace_of.packed, workspace_of.cache
    )
    packed = PackedImages.open(workspace_of.packed)
    model = load_model(workspace_of.run(trained.backbone, 0))
    with pytest.raises(TableError, match="the model wants"):
        predict_packed(model, packed, np.array(["picture-000"], dtype=object), "test")


def test_predictions_come_in_the_order_asked_for(trained: Any, capsys: Any) -> None:
    packed = PackedImages.open(trained.layout.packed)
    model = load_model(trained.layout.run(trained.backbone, 0))
    ids = np.array(["picture-030", "picture-002", "picture-017"], dtype=object)
    together = predict_packed(model, packed, ids, "evaluate-x")
    for number, name in enumerate(ids):
        alone = model.predict_bytes([trained.images[name]])
        assert np.allclose(together[number], alone[0], atol=1e-5)
    assert "progress evaluate-x: 3/3 images" in capsys.readouterr().out


def test_prediction_tables_keep_what_subgroups_need(trained: Any) -> None:
    images = evaluate.part_table(trained.layout, "test")
    assert isinstance(images, pd.DataFrame) and images["image_id"].is_monotonic_increasing
    assert images[["sex", "age_years", "brightness"]].notna().all(axis=None)
