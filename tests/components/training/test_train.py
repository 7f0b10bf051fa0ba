"""The stage as DVC runs it: files in, files out."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from components.backbones.saved import load_model, read_model
from components.backbones.zoo import create_backbone
from components.dataset.pack import PackedImages
from components.errors import SplitError
from components.layout import Layout
from components.params import load_params
from components.progress import Progress
from components.stage import read_stage_error
from components.tables import read_table, write_table
from components.training.own_weights import refresh_own_weights
from components.training.train import make_job, part_images

BACKBONE = "mobilenet_v3_large"


def train(
    layout: Layout, ray: dict[str, str], backbone: str = BACKBONE
) -> subprocess.CompletedProcess[str]:
    module = [sys.executable, "-m", "components.training.train"]
    return subprocess.run(
        [*module, "--backbone", backbone, "--seed", "0"],
        cwd=layout.root,
        env=os.environ | ray,
        capture_output=True,
        text=True,
        check=False,
    )


def test_stage_writes_a_run_and_says_what_it_does(
    stage: Callable[..., Layout], ray_cluster: dict[str, str]
) -> None:
    layout = stage()
    done = train(layout, ray_cluster)
    assert done.returncode == 0, done.stderr
    run = layout.run(BACKBONE, 0)
    assert sorted(path.name for path in run.iterdir()) == [
        "history.csv",
        "model.json",
        "model.safetensors",
        "validation.parquet",
    ]

    history = pd.read_csv(run / "history.csv")
    assert list(history["epoch"]) == [1, 2]
    model_file = read_model(run)
    best = history["validation_balanced_accuracy"].idxmax() + 1
    assert model_file.provenance["best_epoch"] == best
    assert model_file.provenance["num_train_images"] == 80
    assert model_file.classes == ("bkl", "mel", "nv")

    table = read_table(run / "validation.parquet")
    columns = ["image_id", "group_id", "lesion_id", "patient_id", "diagnosis"]
    columns += ["p_bkl", "p_mel", "p_nv", "age_years", "sex"]
    assert list(table.columns) == columns
    assert list(table["image_id"]) == [f"image{row:04d}" for row in range(80, 100)]
    packed = PackedImages.open(layout.packed)
    rows = packed.rows(list(table["image_id"]))
    predicted = load_model(run, device="cpu").predict_proba(packed.images, rows=rows)
    np.testing.assert_allclose(table[["p_bkl", "p_mel", "p_nv"]], predicted, atol=1e-6)

    # A terminal sees progress and nothing of Ray's; of Ray's checkpoints nothing is left.
    progress = [Progress.parse(line) for line in done.stdout.splitlines()]
    assert progress and None not in progress, done.stdout
    assert progress[-1] is not None and progress[-1].done == progress[-1].total
    assert "ray" not in done.stderr.lower(), done.stderr
    assert not list((layout.root / ".lesionflow/storage").rglob("epoch-*"))
    clock = json.loads((layout.state / "timings" / f"{BACKBONE}-0.json").read_text())
    assert clock["submitted"] < clock["first_step"] < clock["ended"] < clock["returned"]


def test_stage_refuses_own_weights_that_were_replaced_after_they_were_looked_at(
    stage: Callable[..., Layout],
) -> None:
    layout = stage()
    own = layout.root / "own.safetensors"
    torch.manual_seed(0)
    tensors = create_backbone(BACKBONE, 3).state_dict()
    save_file(tensors, own)
    recipe = layout.params.read_text(encoding="utf-8")
    layout.params.write_text(recipe.replace("weights: none", "weights: own.safetensors"))
    refresh_own_weights(load_params(layout.params), layout)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, own)
    done = train(layout, {})
    left = read_stage_error(layout.stage_error(f"train@{BACKBONE}-0"))
    assert done.returncode == 2, done.stderr
    assert left is not None
    assert "'own.safetensors' are others than when they were looked at" in left["message"]


@pytest.mark.slow
def test_stage_run_again_and_without_a_cluster_writes_the_same_bytes(
    stage: Callable[..., Layout], ray_cluster: dict[str, str]
) -> None:
    layout = stage()
    contents = []
    for ray in (ray_cluster, {}):  # the shared cluster, then a private one
        done = train(layout, ray)
        assert done.returncode == 0, done.stderr
        files = sorted(layout.run(BACKBONE, 0).iterdir())
        contents.append({path.name: path.read_bytes() for path in files})
        shutil.rmtree(layout.root / ".lesionflow/storage")
    assert contents[0] == contents[1]


@pytest.mark.slow
def test_trainings_run_side_by_side(
    stage: Callable[..., Layout], ray_cluster: dict[str, str]
) -> None:
    layout = stage()
    module = [sys.executable, "-m", "components.training.train"]
    started = [
        subprocess.Popen(
            [*module, "--backbone", BACKBONE, "--seed", str(seed)],
            cwd=layout.root,
            env=os.environ | ray_cluster,
        )
        for seed in range(3)
    ]
    assert [process.wait() for process in started] == [0, 0, 0]
    clocks = [
        json.loads((layout.state / "timings" / f"{BACKBONE}-{seed}.json").read_text())
        for seed in range(3)
    ]
    assert max(clock["entered"] for clock in clocks) < min(clock["ended"] for clock in clocks)


def test_error_of_the_stage_reaches_the_user(
    stage: Callable[..., Layout], ray_cluster: dict[str, str]
) -> None:
    layout = stage()
    text = layout.params.read_text().replace("cpus_per_worker: 0.5", "cpus_per_worker: 9.0")
    layout.params.write_text(text)
    done = train(layout, ray_cluster)
    assert done.returncode == 2
    assert "do not fit: the Ray cluster has 2 CPU" in done.stderr
    assert "Traceback" not in done.stderr


def test_fold_of_the_seed_is_held_out(stage: Callable[..., Layout]) -> None:
    layout = stage(folds=3)
    everything = read_table(layout.splits)
    for seed in (0, 1, 4):
        parts = part_images(layout, 3, seed)
        assert set(parts["validation"]["fold"]) == {seed % 3}
        assert set(parts["train"]["fold"]) == {0, 1, 2} - {seed % 3}
        used = set(parts["train"]["image_id"]) | set(parts["validation"]["image_id"])
        inside = everything["split"].isin(["train", "validation"])
        assert used == set(everything["image_id"][inside])


def identity(layout: Layout, backbone: str = BACKBONE, seed: int = 0) -> str:
    params = load_params(layout.params)
    return make_job(params, params, layout, backbone, seed)[0].identity


def test_identity_changes_with_what_a_result_follows_from(stage: Callable[..., Layout]) -> None:
    layout = stage()
    first = identity(layout)
    assert identity(layout) == first
    text = layout.params.read_text()
    layout.params.write_text(text.replace("storage: .lesionflow/storage", "storage: elsewhere"))
    assert identity(layout) == first, "where checkpoints lie changes no result"
    layout.params.write_text(text.replace("batch_size: 16", "batch_size: 8"))
    assert identity(layout) != first
    layout.params.write_text(text)
    assert identity(layout, seed=1) != first
    layout.params.write_text(text.replace("malignant: [mel]", "malignant: [bkl]"))
    assert identity(layout) != first, "the finished model says which classes are malignant"
    layout.params.write_text(text)
    labels = read_table(layout.labels)
    labels.loc[labels["image_id"] == "image0003", "diagnosis"] = "bkl"
    labels.loc[labels["image_id"] == "image0004", "diagnosis"] = "nv"
    write_table(labels, layout.labels)
    assert identity(layout) != first


def test_empty_part_and_missing_class_are_named(
    stage: Callable[..., Layout], diagnoses: list[str]
) -> None:
    no_mel = ["nv" if name == "mel" else name for name in diagnoses]
    layout = stage(diagnosis=no_mel)
    with pytest.raises(SplitError, match="no image of mel to train on"):
        identity(layout)
    splits = read_table(layout.splits)
    write_table(splits[splits["split"] != "validation"], layout.splits)
    with pytest.raises(SplitError, match=r"mel|validation part is empty"):
        identity(layout)
