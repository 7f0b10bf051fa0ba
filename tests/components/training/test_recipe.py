import copy
import math

import pytest
import torch
from torch import nn

from components.backbones.zoo import create_backbone, head_parameters, last_block_parameters
from components.training import recipe
from components.training.config import TrainingParams

BACKBONE = "mobilenet_v3_large"
CPU = torch.device("cpu")


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return create_backbone(BACKBONE, 3)


def test_schedule_rises_to_its_peak_and_falls_to_nearly_zero() -> None:
    factors = [recipe.schedule_factor(step, 100, 0.1) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[9] == 1.0
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert 0 < factors[-1] < 0.001
    assert recipe.schedule_factor(0, 100, 0.0) == pytest.approx(1.0, abs=1e-3)
    assert 0 < recipe.schedule_factor(0, 1, 0.0) <= 1


def test_schedule_keeps_the_ratio_of_the_groups(model: nn.Module) -> None:
    optimizer = recipe.build_optimizer(model, TrainingParams(layer_decay=0.5), BACKBONE)
    peaks = [group["lr"] for group in optimizer.param_groups]
    recipe.Schedule(optimizer, 10, 0.0).set(5)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert [rate / peak for rate, peak in zip(rates, peaks, strict=True)] == pytest.approx(
        [rates[0] / peaks[0]] * len(peaks)
    )


def test_norms_and_biases_have_no_weight_decay_and_the_stem_the_smallest_rate(
    model: nn.Module,
) -> None:
    params = TrainingParams(learning_rate=1e-2, layer_decay=0.5, weight_decay=0.1)
    optimizer = recipe.build_optimizer(model, params, BACKBONE)
    grouped = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(grouped) == len(list(model.parameters())) == len(set(grouped))
    for group in optimizer.param_groups:
        assert group["weight_decay"] == (0.1 if group["params"][0].ndim > 1 else 0.0)
        assert len({p.ndim > 1 for p in group["params"]}) == 1
    rate = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rate[next(model.body.parameters())] == pytest.approx(1e-2 * 0.5**4)
    assert {rate[p] for p in head_parameters(model)} == {1e-2}
    assert {rate[p] for p in last_block_parameters(model, BACKBONE)} == {1e-2}


def test_last_block_leaves_all_else_and_its_statistics_as_they_are(model: nn.Module) -> None:
    params = TrainingParams(unfreeze="last_block")
    recipe.freeze(model, params, BACKBONE)
    recipe.train_mode(model)
    trained = set(head_parameters(model)) | set(last_block_parameters(model, BACKBONE))
    assert {p for p in model.parameters() if p.requires_grad} == trained
    before = copy.deepcopy(model.state_dict())
    optimizer = recipe.build_optimizer(model, params, BACKBONE)
    model(torch.randn(4, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    names = {name for name, p in model.named_parameters() if p in trained}
    for name, value in model.state_dict().items():
        module = name.rsplit(".", 1)[0]
        frozen = not any(other.rsplit(".", 1)[0] == module for other in names)
        if frozen:
            assert torch.equal(value, before[name]), name
    assert any(not torch.equal(model.state_dict()[name], before[name]) for name in names)


@pytest.mark.parametrize(("precision", "expected"), [("fp32", None), ("bf16", torch.bfloat16)])
def test_precision_is_what_was_asked_for(precision: str, expected: torch.dtype | None) -> None:
    params = TrainingParams.model_validate({"precision": precision})
    assert recipe.choose_precision(params, "resnet18", CPU) == expected


def test_light_networks_are_computed_in_float32_on_small_images() -> None:
    for backbone in ("mobilenet_v2", "tf_efficientnet_lite0"):
        assert recipe.choose_precision(TrainingParams(image_size=128), backbone, CPU) is None


def test_average_follows_at_first_and_lags_later(model: nn.Module) -> None:
    average = recipe.MovingAverage(model, 0.9)
    parameter = next(model.parameters())
    with torch.no_grad():
        parameter.fill_(1.0)
    name = next(iter(dict(model.named_parameters())))
    average.state[name].zero_()
    average.update(0)
    assert average.state[name].mean() == pytest.approx(0.9)  # decay 1/10
    average.state[name].zero_()
    average.update(10_000)
    assert average.state[name].mean() == pytest.approx(0.1)
    counter = "body.features.0.1.num_batches_tracked"
    model.body.features[0][1].num_batches_tracked += 5
    average.update(10_000)
    assert average.state[counter] == 5


def test_average_does_not_share_memory_with_the_model(model: nn.Module) -> None:
    average = recipe.MovingAverage(model, 0.9)
    before = {name: value.clone() for name, value in average.state.items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(value, before[name]) for name, value in average.state.items())


def test_other_weights_are_lent_for_a_block_only(model: nn.Module) -> None:
    own = copy.deepcopy(model.state_dict())
    other = {name: torch.zeros_like(value) for name, value in own.items()}
    with recipe.weights_of(model, other):
        assert all(not value.any() for value in model.state_dict().values())
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())


def test_optimizer_goes_on_bitwise_after_a_restore() -> None:
    def network() -> nn.Module:
        torch.manual_seed(1)
        layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3))
        return layers.to(memory_format=torch.channels_last)

    def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        torch.manual_seed(seed)
        optimizer.zero_grad()
        model(torch.randn(4, 3, 12, 12)).square().mean().backward()
        optimizer.step()

    first = network()
    optimizer = torch.optim.AdamW(first.parameters(), lr=0.1, fused=True)
    for seed in range(3):
        step(first, optimizer, seed)
    second = network()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    restored = torch.optim.AdamW(second.parameters(), lr=0.1, fused=True)
    saved = {n: t.contiguous() for n, t in recipe.optimizer_tensors(optimizer).items()}
    recipe.restore_optimizer(restored, saved)
    for seed in range(3, 6):
        step(first, optimizer, seed)
        step(second, restored, seed)
    for left, right in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(left, right)
    state = restored.state[next(second.parameters())]["exp_avg"]
    assert state.stride() == next(second.parameters()).stride()


def test_schedule_never_leaves_its_range() -> None:
    for num_steps in (1, 2, 3, 7, 50):
        for warmup in (0.0, 0.3, 0.99):
            for step in range(num_steps):
                factor = recipe.schedule_factor(step, num_steps, warmup)
                assert 0 <= factor <= 1 and math.isfinite(factor)
