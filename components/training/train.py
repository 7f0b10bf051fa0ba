"""Stage `train`: fine-tune one backbone with one seed on Ray Train.

Usage: python -m components.training.train --backbone resnet18 --seed 0
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from components.atomic import write_json
from components.backbones.preprocess import Preprocessing
from components.backbones.saved import MODEL_JSON
from components.backbones.weights import resolve_weights
from components.dataset.pack import PackedImages
from components.errors import SplitError
from components.layout import Layout
from components.params import Params, load_params
from components.recorded import run_by_force
from components.stage import run_stage
from components.tables import probability_columns, read_table, write_table
from components.training.checkpoint import absolute, check_writable
from components.training.finished import forget, is_left
from components.training.identity import content_hash, identity_of
from components.training.job import HISTORY, PROBABILITIES, WEIGHTS, Job, Part
from components.training.own_weights import check_own_weights, registry_of

LABELS = ("image_id", "lesion_id", "patient_id", "diagnosis")
HISTORY_COLUMNS = (
    "epoch",
    "train_loss",
    "validation_loss",
    "validation_balanced_accuracy",
    "learning_rate",
)
EXTRAS = ("age_years", "sex", "site", "diagnosis_method", "skin_type")


def run(params: Params, layout: Layout, backbone: str, seed: int) -> None:
    """Train `backbone` with `seed`; write `runs/<backbone>-<seed>/`."""
    everything = load_params(layout.params)  # where to run and to store changes no result
    job, images = make_job(params, everything, layout, backbone, seed)
    check_own_weights(everything, layout, backbone)
    check_writable(job.checkpoints)
    if is_left(job) and run_by_force(layout.root, f"train@{job.name}"):
        print(f"{job.name}: is recorded, and trained anew since DVC was told to", flush=True)
        forget(job)
    left = layout.trained / job.name
    shutil.rmtree(left, ignore_errors=True)
    clock = _train(job, everything, left)
    write_json(layout.state / "timings" / f"{job.name}.json", clock)
    write_run(job, images, left, layout.run(backbone, seed))
    shutil.rmtree(left, ignore_errors=True)


def _train(job: Job, everything: Params, left: Path) -> dict[str, float]:
    from components.cluster import connect, is_job_server

    address = os.environ.get("RAY_ADDRESS", "")
    if is_job_server(address):
        from components.training.remote import check_storage, run_remotely

        check_storage(everything.storage)
        return run_remotely(job, left, address)
    from components.training.trainer import run_training

    with connect(everything.cluster.num_cpus):
        return run_training(job, left)


def make_job(
    params: Params, everything: Params, layout: Layout, backbone: str, seed: int
) -> tuple[Job, pd.DataFrame]:
    """Return the job, and the table of its validation images in the order of their rows.

    Raises
    ------
    SplitError
        The training or the validation part is empty, or lacks a class.
    WeightsError
        The weights that the training starts from are not to be had.
    """
    recipe = params.training_of(backbone)
    classes = params.diagnoses.classes
    packed = PackedImages.open(layout.packed)
    images = part_images(layout, params.split.folds, seed)
    train, validation = images["train"], images["validation"]
    _check_classes(train, validation, classes, layout)
    weights = resolve_weights(
        recipe.weights, backbone, base=layout.root, registry=registry_of(everything)
    )
    provenance = {
        "backbone": backbone,
        "seed": seed,
        "weights": weights.provenance(),
        "training": recipe.model_dump(mode="json"),
        "data_id": packed.content_id,
        "split_id": content_hash(pd.concat([train, validation])),
        "num_train_images": len(train),
        "num_validation_images": len(validation),
    }
    job = Job(
        backbone=backbone,
        seed=seed,
        identity=identity_of(provenance, classes, params.diagnoses.malignant),
        params=recipe,
        classes=classes,
        malignant=params.diagnoses.malignant,
        preprocessing=Preprocessing.of(
            backbone,
            pack_size=packed.spec.image_size,
            fit=packed.spec.fit,
            image_size=recipe.image_size,
        ),
        packed=layout.packed,
        train=_part(train, packed, classes),
        validation=_part(validation, packed, classes),
        weights=weights,
        storage=absolute(everything.storage, layout.root),
        provenance=provenance,
    )
    return job, validation


def part_images(layout: Layout, folds: int, seed: int) -> dict[str, pd.DataFrame]:
    """Return the images of `train` and `validation` with their labels, sorted by id.

    With folds, the run with seed s validates on fold s mod `folds` and trains on the others.
    """
    splits = read_table(layout.splits, ("image_id", "group_id", "split", "fold"))
    labels = read_table(layout.labels, LABELS)
    kept = [*LABELS, *(name for name in EXTRAS if name in labels.columns)]
    images = splits.merge(labels[kept], on="image_id", validate="one_to_one")
    images = images.sort_values("image_id", ignore_index=True)
    if not folds:
        return {part: images[images["split"] == part] for part in ("train", "validation")}
    inside = images["split"].isin(["train", "validation"]) & images["fold"].notna()
    held_out = inside & (images["fold"] == seed % folds)
    return {"train": images[inside & ~held_out], "validation": images[held_out]}


def write_run(job: Job, images: pd.DataFrame, left: Path, target: Path) -> None:
    """Write the outputs of the stage from what the workers `left`."""
    target.mkdir(parents=True, exist_ok=True)
    for name in (WEIGHTS, MODEL_JSON):
        shutil.copyfile(left / name, target / name)
    history = json.loads((left / HISTORY).read_text(encoding="utf-8"))
    write_table(pd.DataFrame(history, columns=list(HISTORY_COLUMNS)), target / "history.csv")
    probabilities = np.load(left / PROBABILITIES)
    described = ["image_id", "group_id", *LABELS[1:]]
    extras = [name for name in EXTRAS if name in images.columns]
    columns = probability_columns(job.classes)
    table = images[[*described, *extras]].reset_index(drop=True)
    table = pd.concat([table, pd.DataFrame(probabilities, columns=columns)], axis=1)
    write_table(table[[*described, *columns, *extras]], target / "validation.parquet")


def _part(images: pd.DataFrame, packed: PackedImages, classes: tuple[str, ...]) -> Part:
    numbers = pd.Index(classes).get_indexer(pd.Index(images["diagnosis"]))
    return Part(packed.rows(list(images["image_id"])), np.asarray(numbers, dtype=np.int64))


def _check_classes(
    train: pd.DataFrame, validation: pd.DataFrame, classes: tuple[str, ...], layout: Layout
) -> None:
    for name, images in (("training", train), ("validation", validation)):
        missing = [label for label in classes if label not in set(images["diagnosis"])]
        if len(missing) == len(classes):
            raise SplitError(
                f"the {name} part is empty",
                where=str(layout.splits),
                fix="give more images, or another share of them (split.train, split.validation)",
            )
        if missing and name == "training":
            raise SplitError(
                f"no image of {', '.join(missing)} to train on",
                where=str(layout.splits),
                fix="give more images of it, or take it out of diagnoses.classes",
            )


def main() -> None:
    """Run the stage for the matrix item on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--seed", type=int, required=True)
    chosen = parser.parse_args()

    def work(params: Params, layout: Layout) -> None:
        run(params, layout, chosen.backbone, chosen.seed)

    run_stage("train", work, item=f"{chosen.backbone}-{chosen.seed}")


if __name__ == "__main__":
    main()
