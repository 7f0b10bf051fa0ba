from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from components.training.config import TrainingParams
from components.training.losses import build_loss

COUNTS = np.array([700, 200, 100])
LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, -0.3], [-2.0, 0.0, 3.0], [1.0, 1.0, 1.0]])
LABELS = torch.tensor([0, 1, 2, 0])
TARGETS = one_hot(LABELS, 3).float()


def loss_of(**params: Any) -> torch.Tensor:
    built = build_loss(TrainingParams(**params), COUNTS, torch.device("cpu"))
    return built(LOGITS, TARGETS)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_plain_loss_is_torchs_cross_entropy(smoothing: float) -> None:
    expected = cross_entropy(LOGITS, LABELS, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(loss_of(label_smoothing=smoothing), expected)


def test_focal_loss_weighs_by_what_is_left_to_learn() -> None:
    p = torch.softmax(LOGITS, dim=1)[torch.arange(4), LABELS]
    expected = -((1 - p) ** 2) * p.log()
    torch.testing.assert_close(loss_of(loss="focal", focal_gamma=2.0), expected)
    torch.testing.assert_close(loss_of(loss="focal", focal_gamma=0.0), loss_of())


def test_class_weights_are_inverse_to_the_counts_and_one_on_average() -> None:
    weights = loss_of(class_weight_power=1.0) / loss_of()
    assert weights[1] / weights[0] == pytest.approx(3.5)
    assert weights[2] / weights[0] == pytest.approx(7)
    per_class = torch.stack([weights[0], weights[1], weights[2]]).double().numpy()
    assert (per_class * COUNTS).sum() / COUNTS.sum() == pytest.approx(1)


def test_logit_adjustment_adds_the_log_prior() -> None:
    shifted = LOGITS + torch.tensor(COUNTS / COUNTS.sum()).log().float()
    torch.testing.assert_close(
        loss_of(logit_adjustment=1.0), cross_entropy(shifted, LABELS, reduction="none")
    )


def test_class_that_is_never_drawn_does_no_harm() -> None:
    built = build_loss(
        TrainingParams(class_weight_power=1.0, logit_adjustment=1.0),
        np.array([5, 0, 5]),
        torch.device("cpu"),
    )
    assert torch.isfinite(built(LOGITS[:1], TARGETS[:1])).all()


def test_bf16_logits_are_judged_in_float32() -> None:
    built = build_loss(TrainingParams(), COUNTS, torch.device("cpu"))
    assert built(LOGITS.bfloat16(), TARGETS).dtype == torch.float32
