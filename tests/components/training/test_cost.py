"""The order of trainings by their cost is known before any of them runs."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from components.backbones.zoo import ZOO, create_backbone
from components.training.config import TrainingParams
from components.training.cost import relative_cost


def test_the_zoo_says_the_multiply_adds_of_every_backbone() -> None:
    wrong = {}
    for name, entry in ZOO.items():
        with torch.device("meta"):  # shapes without numbers: nothing is computed
            model = create_backbone(name, 7).eval()
            images = torch.zeros(1, 3, 224, 224)
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            model(images)
        counted = counter.get_total_flops() / 2 / 1e9
        if counted != pytest.approx(entry.gigamacs, abs=0.006):
            wrong[name] = counted
    assert not wrong


@pytest.mark.parametrize(
    ("longer", "shorter"),
    [
        ({"epochs": 10}, {"epochs": 5}),
        ({"image_size": 224}, {"image_size": 128}),
        ({"unfreeze": "all"}, {"unfreeze": "last_block"}),
        ({"unfreeze": "last_block", "epochs": 1}, {"unfreeze": "none", "epochs": 50}),
        ({"head_epochs": 3}, {"head_epochs": 0}),
        ({"num_workers": 1}, {"num_workers": 2}),
    ],
)
def test_what_takes_longer_costs_more(
    longer: dict[str, object], shorter: dict[str, object]
) -> None:
    more = relative_cost("resnet18", TrainingParams.model_validate(longer))
    less = relative_cost("resnet18", TrainingParams.model_validate(shorter))
    assert more > less
