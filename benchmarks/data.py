"""Images to measure on: of HAM10000 as users have them, or noise where it is not at hand."""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
import torch

from components.backbones.fetch import sha256_of
from components.backbones.preprocess import Preprocessing
from components.backbones.weights import load_into, resolve_weights
from components.backbones.zoo import create_backbone
from components.cluster import local_cluster
from components.dataset.decode import PackSpec
from components.dataset.originals import OriginalsWriter
from components.dataset.pack import PackedImages, pack_images
from components.training.batches import Squares
from components.training.config import TrainingParams
from components.training.job import Job, Part
from components.training.loop import Training

NUM_IMAGES = 2000
_REPO = Path(__file__).resolve().parents[1]
_REAL = Path(os.environ.get("LESIONFLOW_REAL_DATA", _REPO.parent / "shared" / "data"))
_DRIVER = """
import pickle, sys
from pathlib import Path
from components.cluster import connect
from components.training.trainer import run_training
with connect():
    run_training(pickle.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2]))
"""


@dataclass(frozen=True)
class BenchmarkData:
    """JPEG files with their diagnoses, packed on demand below `folder`."""

    files: tuple[Path, ...]
    diagnoses: tuple[str, ...]
    lesions: tuple[str, ...]
    real: bool
    folder: tempfile.TemporaryDirectory[str]

    @staticmethod
    def find(num_images: int | None = NUM_IMAGES) -> BenchmarkData:
        """Take so many of the real images (None: all), or make pictures of noise in their size."""
        folder = tempfile.TemporaryDirectory(prefix="lesionflow-bench-")
        table = _REAL / "ham10000" / "HAM10000_metadata.csv"
        if not table.is_file():
            print(f"no HAM10000 at {_REAL}: measuring on noise, from random weights", flush=True)
            files, diagnoses = _noise(Path(folder.name) / "noise", num_images or NUM_IMAGES)
            lesions = tuple(path.stem for path in files)
            return BenchmarkData(files, diagnoses, lesions, False, folder)
        os.environ.setdefault("LESIONFLOW_WEIGHTS", str(_REAL / "weights"))
        metadata = pd.read_csv(table)
        if num_images is not None:
            metadata = metadata.sample(num_images, random_state=0)
        metadata = metadata.sort_values("image_id")
        found = {path.stem: path for path in table.parent.rglob("*.jpg")}
        files = tuple(found[image_id] for image_id in metadata["image_id"])
        lesions = tuple(metadata["lesion_id"])
        return BenchmarkData(files, tuple(metadata["dx"]), lesions, True, folder)

    @property
    def classes(self) -> tuple[str, ...]:
        """The diagnoses, sorted."""
        return tuple(sorted(set(self.diagnoses)))

    def params(self, **changed: Any) -> TrainingParams:
        """Return the default recipe on all cores, with these values."""
        on_gpu = {"gpus_per_worker": 1.0} if torch.cuda.is_available() else {}
        given = {"weights": "imagenet", "threads": os.cpu_count() or 1, "cpus_per_worker": 1.0}
        return TrainingParams.model_validate(given | on_gpu | changed)

    def packed(self, image_size: int) -> Path:
        """Return the folder of all images packed at `image_size`."""
        target = Path(self.folder.name) / f"packed{image_size}"
        if not target.exists():
            images = Path(self.folder.name) / "images"
            if not images.exists():
                images.mkdir()
                with OriginalsWriter(images, "benchmark") as writer:
                    for path in sorted(self.files, key=lambda path: path.stem):
                        writer.add(path.stem, path.suffix, path.read_bytes())
            quality = pd.DataFrame(
                {
                    "image_id": [path.stem for path in self.files],
                    "sha256": [sha256_of(path) for path in self.files],
                    "decodes": True,
                }
            )
            cache = Path(self.folder.name) / "cache"
            pack_images(quality, images, PackSpec(image_size, "crop"), target, cache)
        return target

    def job(self, backbone: str, params: TrainingParams) -> Job:
        """Return a training on about four fifths of the lesions, validated on the others.

        Only MobileNetV2's published weights are at hand; the speed of the others does not
        depend on them.
        """
        at_hand = self.real and backbone == "mobilenet_v2"
        params = params.model_copy(update={} if at_hand else {"weights": "none"})
        labels = np.array([self.classes.index(name) for name in self.diagnoses], dtype=np.int64)
        rows = np.arange(len(labels))
        held_out = np.array([crc32(lesion.encode()) % 5 == 0 for lesion in self.lesions])
        return Job(
            backbone=backbone,
            seed=0,
            identity=f"bench-{backbone}",
            params=params,
            classes=self.classes,
            malignant=(),
            preprocessing=Preprocessing.of(
                backbone, pack_size=params.image_size, fit="crop", image_size=params.image_size
            ),
            packed=self.packed(params.image_size),
            train=Part(rows[~held_out], labels[~held_out]),
            validation=Part(rows[held_out], labels[held_out]),
            weights=resolve_weights(params.weights, backbone),
            storage=str(Path(self.folder.name) / "storage"),
            provenance={},
        )

    def training(self, job: Job, device: torch.device) -> Training:
        """Return `job` ready to train in this process."""
        torch.manual_seed(job.seed)
        model = create_backbone(job.backbone, len(job.classes))
        load_into(model, job.backbone, job.weights, job.classes)
        model.to(device).to(memory_format=torch.channels_last)
        return Training(job, model, Squares(PackedImages.open(job.packed), device), device)

    @contextmanager
    def class_folders(self) -> Iterator[Path]:
        """Yield the same files in one folder per class."""
        with tempfile.TemporaryDirectory(dir=self.folder.name) as folder:
            for path, name in zip(self.files, self.diagnoses, strict=True):
                (Path(folder) / name).mkdir(exist_ok=True)
                (Path(folder) / name / path.name).symlink_to(path)
            yield Path(folder)

    @contextmanager
    def on_one_cluster(self, jobs: Sequence[Job]) -> Iterator[Callable[[str], list[list[str]]]]:
        """Yield a function that returns a command for each of `jobs`, on one local cluster."""
        work = Path(self.folder.name)
        with local_cluster() as environment:
            os.environ.update(environment)

            def commands(name: str) -> list[list[str]]:
                made = []
                for job in jobs:
                    path = work / f"{job.name}-{name}.pickle"
                    path.write_bytes(pickle.dumps(replace(job, identity=f"{name}-{job.name}")))
                    made.append([sys.executable, "-c", _DRIVER, str(path), str(path) + "-left"])
                return made

            yield commands
            for name in environment:
                os.environ.pop(name, None)


def subset(job: Job, num_train: int, num_validation: int) -> Job:
    """Return `job` on its first images only."""
    train = Part(job.train.rows[:num_train], job.train.labels[:num_train])
    validation = job.validation
    held_out = Part(validation.rows[:num_validation], validation.labels[:num_validation])
    return replace(job, train=train, validation=held_out)


def _noise(folder: Path, num_images: int) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    from PIL import Image

    folder.mkdir()
    rng = np.random.default_rng(0)
    files = []
    for number in range(num_images):
        coarse = Image.fromarray(rng.integers(0, 255, (30, 40, 3), dtype=np.uint8))
        files.append(folder / f"noise{number:05d}.jpg")
        coarse.resize((300, 225), Image.Resampling.BICUBIC).save(files[-1], quality=90)
    return tuple(files), tuple(f"class{number % 7}" for number in range(num_images))
