"""How many images go through a network at once where no gradients are kept.

That the number is no matter of the result is in `test_saved.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from components.backbones.inference import images_at_once
from components.backbones.preprocess import Preprocessing
from components.backbones.saved import Member, ModelFile, load_model, save_model
from components.backbones.zoo import create_backbone

CPU = torch.device("cpu")
SIZE = 160
COUNT = 31


def test_the_larger_the_images_the_fewer_on_a_cpu_and_never_none() -> None:
    counts = [images_at_once(size, CPU) for size in (32, 64, 128, 224, 600, 5000)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[3] > 1
    assert counts[-1] == 1


def test_a_gpu_is_given_as_many_of_any_size() -> None:
    assert len({images_at_once(size, torch.device("cuda")) for size in (32, 600)}) == 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a small saved model."""
    torch.manual_seed(0)
    preprocessing = Preprocessing.of("mobilenet_v2", pack_size=SIZE, fit="crop", image_size=SIZE)
    member = Member(file="model.safetensors", backbone="mobilenet_v2", preprocessing=preprocessing)
    document = ModelFile(
        classes=("mel", "nv"),
        malignant=("mel",),
        members=(member,),
        provenance={"data_id": "d1", "num_train_images": 5},
    )
    save_model(tmp_path, [create_backbone("mobilenet_v2", 2).state_dict()], document)
    return tmp_path


def test_a_model_is_given_that_many_at_once(folder: Path) -> None:
    model = load_model(folder)
    squares = np.random.default_rng(0).integers(0, 256, (COUNT, SIZE, SIZE, 3), dtype=np.uint8)
    seen: list[int] = []
    model.networks[0].register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    assert len(model.logits(0, squares)) == COUNT
    assert max(seen) == images_at_once(SIZE, CPU) < COUNT
    assert sum(seen) == COUNT
