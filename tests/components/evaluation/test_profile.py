"""Stage `profile`: counts that can be checked by hand, and times that are times."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from components.backbones.saved import load_model
from components.backbones.zoo import ZOO, create_backbone
from components.evaluation import profile
from components.evaluation.profile import multiply_adds
from components.layout import Layout


def test_a_profile_has_size_work_and_latency(trained: Any, tmp_path: Path) -> None:
    layout = Layout(Path(shutil.copytree(trained.layout.root, tmp_path / "workspace")))
    threads = torch.get_num_threads()
    profile.run(trained.params, layout, trained.backbone)
    document = json.loads(layout.profile(trained.backbone).read_text())
    weights = layout.run(trained.backbone, 0) / "model.safetensors"
    assert document["backbone"] == trained.backbone
    assert document["size_bytes"] == weights.stat().st_size
    # MobileNetV2 without its head has 2,223,872 parameters; the head 1280 × 7 + 7.
    assert document["num_parameters"] == 2_223_872 + 1280 * 7 + 7
    network = load_model(trained.layout.run(trained.backbone, 0), device="cpu").networks[0]
    assert document["macs"] == multiply_adds(network, 32)
    latency = document["latency_ms"]["cpu_batch1"]
    assert 0 < latency["median"] <= latency["p95"] < 10_000
    assert document["machine"]["cpu"] and document["machine"]["cpu_threads"] == 1
    assert torch.get_num_threads() == threads


def test_multiply_adds_are_counted_once() -> None:
    """A convolution and a linear layer, counted by hand."""

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = torch.nn.Conv2d(3, 8, kernel_size=3, padding=1)
            self.linear = torch.nn.Linear(8, 7)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.linear(self.convolution(images).mean(dim=(2, 3)))

    assert multiply_adds(Network(), 32) == 32 * 32 * 3 * 3 * 3 * 8 + 8 * 7


@pytest.mark.parametrize("name", ["mobilenet_v2", "swin_t", "vit_b_16"])
def test_the_published_count_of_a_network_is_met(name: str) -> None:
    """As the stage has it: on a processor, in evaluation mode; attention counts as the rest."""
    network = create_backbone(name, 7).eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert multiply_adds(network, 224) / 1e9 == pytest.approx(ZOO[name].gigamacs, abs=0.006)
    # The network itself is as it was, and can still predict.
    after = network.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
