"""A small packed set whose classes differ by colour, and jobs that train on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pandas as pd
import pytest
import torch
from moto.server import ThreadedMotoServer

from components.backbones.preprocess import Preprocessing
from components.backbones.weights import WeightsFile
from components.backbones.zoo import create_backbone
from components.cluster import connect, local_cluster
from components.dataset.decode import PackSpec
from components.dataset.pack import PackedImages, content_id_of
from components.layout import Layout
from components.tables import write_table
from components.training.batches import Squares
from components.training.config import TrainingParams
from components.training.job import Job, Part
from components.training.loop import Training

SIZE = 32
CLASSES = ("bkl", "mel", "nv")
_COUNTS = (24, 36, 60)


def write_packed(folder: Path) -> list[str]:
    """Write 120 packed squares into `folder`; return the class of each."""
    rng = np.random.default_rng(7)
    labels = rng.permutation(np.repeat(np.arange(len(CLASSES)), _COUNTS))
    colours = np.array([[190, 120, 90], [90, 60, 50], [150, 100, 130]])
    images = colours[labels][:, None, None, :] + rng.normal(0, 25, (len(labels), SIZE, SIZE, 3))
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "images.npy", np.clip(images, 0, 255).astype(np.uint8))
    ids = [f"image{row:04d}" for row in range(len(labels))]
    hashes = [f"{row:064x}" for row in range(len(labels))]
    index = pd.DataFrame({"row": range(len(ids)), "image_id": ids, "sha256": hashes})
    write_table(index, folder / "index.parquet")
    spec = PackSpec(SIZE, "crop")
    document = {
        "schema_version": 1,
        "content_id": content_id_of(spec.key(), ids, hashes),
        "pixels_follow_from": spec.key(),
        "image_size": SIZE,
        "fit": "crop",
    }
    (folder / "spec.json").write_text(json.dumps(document), encoding="utf-8")
    return [CLASSES[label] for label in labels]


@pytest.fixture(scope="session")
def packed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 120 packed images."""
    folder = tmp_path_factory.mktemp("data") / "packed"
    write_packed(folder)
    return folder


@pytest.fixture(scope="session")
def diagnoses(packed_folder: Path) -> list[str]:
    """Return the class of each packed image."""
    return write_packed(packed_folder.parent / "again")


@pytest.fixture
def make_job(packed_folder: Path, diagnoses: list[str], tmp_path: Path) -> Callable[..., Job]:
    """Return a function that makes a job (96 images to train on, 24 to validate on)."""
    labels = np.array([CLASSES.index(name) for name in diagnoses], dtype=np.int64)
    rows = np.arange(len(labels))

    def make(backbone: str = "mobilenet_v3_large", seed: int = 0, **params: Any) -> Job:
        given = {
            "weights": "none",
            "image_size": SIZE,
            "epochs": 2,
            "batch_size": 16,
            "precision": "fp32",
            "cpus_per_worker": 0.5,
        } | params
        recipe = TrainingParams.model_validate(given)
        return Job(
            backbone=backbone,
            seed=seed,
            identity="0123456789abcdef",
            params=recipe,
            classes=CLASSES,
            malignant=("mel",),
            preprocessing=Preprocessing.of(
                backbone, pack_size=SIZE, fit="crop", image_size=recipe.image_size
            ),
            packed=packed_folder,
            train=Part(rows[:96], labels[:96]),
            validation=Part(rows[96:], labels[96:]),
            weights=WeightsFile(None, "none (random start)"),
            storage=str(tmp_path / "storage"),
            provenance={"data_id": "test"},
        )

    return make


@pytest.fixture
def make_training() -> Callable[[Job], Training]:
    """Return a function that builds a job's training in this process, on one thread."""

    def make(job: Job) -> Training:
        torch.set_num_threads(1)
        torch.manual_seed(job.seed)
        device = torch.device("cpu")
        model = create_backbone(job.backbone, len(job.classes))
        model.to(memory_format=torch.channels_last)
        return Training(job, model, Squares(PackedImages.open(job.packed), device), device)

    return make


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[dict[str, str]]:
    """Run one private Ray cluster with two CPUs for the session; yield its environment."""
    with local_cluster(2) as environment:
        yield environment


@pytest.fixture
def connected(ray_cluster: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Connect this process to the session's cluster for one test."""
    for name, value in ray_cluster.items():
        monkeypatch.setenv(name, value)
    with connect():
        yield


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve S3; yield a prefix in a bucket of it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="lesions")
    yield "s3://lesions/some/prefix"
    server.stop()


PARAMS = """
recipe: test
seed: 0
sources: [{kind: synthetic, uri: "synthetic:"}]
diagnoses: {classes: [bkl, mel, nv], malignant: [mel]}
pairs: {}
validation: {}
split: {folds: FOLDS}
pack: {image_size: 32}
training: {weights: none, image_size: 32, epochs: 2, batch_size: 16, cpus_per_worker: 0.5}
backbones: {mobilenet_v3_large: {}, resnet18: {epochs: 1}}
seeds: [0]
evaluation: {}
ranking: {}
gates: {}
registry: {model_name: test}
storage: .lesionflow/storage
cluster: {num_cpus: 2}
"""


@pytest.fixture
def stage(
    tmp_path: Path, repo: Path, packed_folder: Path, diagnoses: list[str]
) -> Callable[..., Layout]:
    """Return a function that makes a workspace in which everything before `train` is done."""

    def make(folds: int = 0, **changed: list[str]) -> Layout:
        layout = Layout(tmp_path / "workspace")
        layout.packed.parent.mkdir(parents=True)
        layout.packed.symlink_to(packed_folder)
        (layout.root / "dvc.yaml").write_text((repo / "dvc.yaml").read_text())
        layout.params.write_text(PARAMS.replace("FOLDS", str(folds)))
        rows = np.arange(len(diagnoses))
        ids = [f"image{row:04d}" for row in rows]
        part = np.select([rows < 80, rows < 100, rows < 115], ["train", "validation", "test"], "")
        splits = pd.DataFrame(
            {
                "image_id": ids,
                "group_id": [f"group{row // 2}" for row in rows],
                "split": pd.Series(part).replace({"": None}),
                "fold": pd.array([row // 2 % 3 if row < 100 else None for row in rows], "Int64"),
                "reason": [None] * len(ids),
            }
        )
        labels = pd.DataFrame(
            {
                "image_id": ids,
                "lesion_id": [f"lesion{row // 2}" for row in rows],
                "patient_id": [None] * len(ids),
                "diagnosis": diagnoses,
                "age_years": 50.0,
                "sex": "female",
            }
            | changed
        )
        write_table(splits, layout.splits)
        write_table(labels.sample(frac=1, random_state=0), layout.labels)
        return layout

    return make
