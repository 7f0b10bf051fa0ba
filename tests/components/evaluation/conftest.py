"""Prediction tables to measure: made up, with lesions of several images and rare classes."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from components.layout import Layout
from components.params import Params
from components.tables import write_table
from tests.originals import write_originals

CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
SHARES = np.array([0.033, 0.051, 0.110, 0.011, 0.111, 0.670, 0.014])
MakeTable = Callable[..., pd.DataFrame]


@pytest.fixture(scope="session")
def make_table() -> MakeTable:
    """Return a maker of prediction tables that look like HAM10000's."""

    def make(
        num_images: int = 400,
        seed: int = 0,
        skill: float = 2.0,
        classes: Sequence[str] = CLASSES,
        lesions: bool = True,
        temperature: float = 1.0,
    ) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        shares = SHARES if len(classes) == len(SHARES) else np.ones(len(classes))
        num_lesions = max(len(classes), int(num_images * 0.75)) if lesions else num_images
        truth_of = rng.choice(len(classes), num_lesions, p=shares / shares.sum())
        truth_of[: len(classes)] = np.arange(len(classes))
        lesion = np.concatenate(
            [np.arange(num_lesions), rng.integers(num_lesions, size=num_images - num_lesions)]
        )
        truth = truth_of[lesion]
        logits = rng.normal(size=(num_images, len(classes)))
        logits += rng.normal(size=(num_lesions, len(classes)))[lesion]
        logits[np.arange(num_images), truth] += skill
        powers = np.exp(logits / temperature)
        probabilities = powers / powers.sum(axis=1, keepdims=True)
        frame = pd.DataFrame(
            {
                "image_id": [f"image-{number:05d}" for number in range(num_images)],
                "diagnosis": np.array(classes)[truth],
            }
        )
        if lesions:
            frame["group_id"] = [f"lesion:L{number}" for number in lesion]
            frame["lesion_id"] = [f"L{number}" for number in lesion]
            frame["patient_id"] = None
        for number, name in enumerate(classes):
            frame[f"p_{name}"] = probabilities[:, number]
        return frame

    return make


@dataclass(frozen=True)
class Trained:
    """A workspace in which one network (with random weights) has been trained."""

    params: Params
    layout: Layout
    backbone: str
    images: dict[str, bytes]
    """PNG files of the source."""
    labels: pd.DataFrame


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, repo: Path) -> Trained:
    """Return packed pictures, labels, split and a run, made by the parts that make them."""
    import torch
    from ruamel.yaml import YAML

    from components.backbones.preprocess import Preprocessing
    from components.backbones.saved import Member, ModelFile, load_model, save_model
    from components.backbones.zoo import create_backbone
    from components.dataset.decode import PackSpec
    from components.dataset.pack import PackedImages, pack_images
    from components.params import parse_params

    layout = Layout(tmp_path_factory.mktemp("trained"))
    document = YAML(typ="safe").load((repo / "params" / "quickstart.yaml").read_text())
    document |= {"backbones": {"mobilenet_v2": {}}, "seeds": [0]}
    document["evaluation"] = {"bootstrap_resamples": 100}
    document["pack"] = {"image_size": 32}
    params = parse_params(document, where="test")
    images, labels = _pictures(90)
    write_originals(layout.images, {f"{name}.png": data for name, data in images.items()})
    quality = pd.DataFrame(
        {
            "image_id": labels["image_id"],
            "file_name": labels["image_id"] + ".png",
            "sha256": labels["sha256"],
            "decodes": True,
        }
    )
    rng = np.random.default_rng(0)
    for name in ("brightness", "contrast", "sharpness"):
        quality[name] = rng.random(len(quality))
    write_table(labels, layout.labels)
    write_table(quality, layout.quality)
    write_table(_splits(labels), layout.splits)
    pack_images(quality, layout.images, PackSpec(32, "crop"), layout.packed, layout.cache)

    torch.manual_seed(0)
    network = create_backbone("mobilenet_v2", len(CLASSES))
    _settle(
        network, Preprocessing.of("mobilenet_v2", pack_size=32, fit="crop", image_size=32), layout
    )
    model = ModelFile(
        classes=CLASSES,
        malignant=("akiec", "bcc", "mel"),
        members=(
            Member(
                file="model.safetensors",
                backbone="mobilenet_v2",
                preprocessing=Preprocessing.of(
                    "mobilenet_v2", pack_size=32, fit="crop", image_size=32
                ),
            ),
        ),
    )
    run = layout.run("mobilenet_v2", 0)
    save_model(run, [network.state_dict()], model)
    loaded, packed = load_model(run), PackedImages.open(layout.packed)
    validation = _splits(labels).query("split == 'validation'")[["image_id", "group_id"]]
    validation = validation.merge(
        labels[["image_id", "lesion_id", "patient_id", "diagnosis"]], on="image_id"
    )
    probabilities = loaded.predict_proba(
        packed.images, rows=packed.rows(list(validation["image_id"]))
    )
    columns = pd.DataFrame(probabilities, columns=[f"p_{name}" for name in CLASSES])
    write_table(pd.concat([validation, columns], axis=1), run / "validation.parquet")
    return Trained(params, layout, "mobilenet_v2", images, labels)


def _settle(network: Any, preprocessing: Any, layout: Layout) -> None:
    """Give a random network the statistics of the pictures, so that its answers differ."""
    import torch

    from components.dataset.pack import PackedImages

    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        squares = np.array(PackedImages.open(layout.packed).images)
        network.train()(preprocessing.to_input(torch.from_numpy(squares)))
        list(network.parameters())[-2].mul_(5)  # the head's weights


def _pictures(count: int) -> tuple[dict[str, bytes], pd.DataFrame]:
    """Return small PNG pictures and their labels, two pictures per lesion."""
    from PIL import Image

    rng = np.random.default_rng(5)
    images = {}
    for number in range(count):
        pixels = rng.integers(0, 255, size=(4, 5, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).resize((50, 40)).save(stream, "PNG")
        images[f"picture-{number:03d}"] = stream.getvalue()
    lesion = np.arange(count) // 2
    labels = pd.DataFrame(
        {
            "image_id": list(images),
            "patient_id": None,
            "lesion_id": [f"L{number}" for number in lesion],
            "diagnosis": np.array(CLASSES)[lesion % len(CLASSES)],
            "diagnosis_method": "histo",
            "age_years": rng.integers(20, 80, count).astype(float),
            "sex": np.where(rng.random(count) < 0.5, "female", "male"),
            "site": "back",
            "skin_type": None,
            "source": "test",
            "sha256": [hashlib.sha256(data).hexdigest() for data in images.values()],
        }
    )
    return images, labels


def _splits(labels: pd.DataFrame) -> pd.DataFrame:
    part = np.array(["train", "validation", "test"])[np.arange(len(labels)) // 2 // 7 % 3]
    return pd.DataFrame(
        {
            "image_id": labels["image_id"],
            "group_id": "lesion:" + labels["lesion_id"],
            "split": part,
            "fold": pd.array([None] * len(labels), dtype="Int64"),
            "reason": None,
        }
    )
