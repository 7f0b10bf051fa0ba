from typing import Any

import numpy as np
import pytest
import torch

from components.backbones.preprocess import Preprocessing
from components.training.augment import NUM_DRAWS, affine, augmented, mixed, resampled
from components.training.config import TrainingParams

SIZE = 24
PREPROCESSING = Preprocessing.of("mobilenet_v1", pack_size=SIZE, fit="crop", image_size=32)
SAME_SIZE = Preprocessing.of("mobilenet_v1", pack_size=32, fit="crop", image_size=32)


def squares(count: int = 6, size: int = 32) -> torch.Tensor:
    # Smooth pictures: resampling noise would say nothing.
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (count, 3, 4, 4)).astype(np.float32))
    fine = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 255)
    return fine.permute(0, 2, 3, 1).round().to(torch.uint8).contiguous()


def uniform(count: int = 6, seed: int = 1) -> torch.Tensor:
    return torch.from_numpy(
        np.random.default_rng(seed).random((count, NUM_DRAWS), dtype=np.float32)
    )


def params(**given: Any) -> TrainingParams:
    return TrainingParams(**given)


def test_strength_zero_is_the_plain_preprocessing() -> None:
    given = squares(size=SIZE)
    made = augmented(given, uniform(), PREPROCESSING, params(augmentation=0.0))
    assert torch.equal(made, PREPROCESSING.to_input(given))


def test_draws_from_the_middle_change_nothing() -> None:
    given = squares()
    made = augmented(given, torch.full((6, NUM_DRAWS), 0.5), SAME_SIZE, params())
    torch.testing.assert_close(made, SAME_SIZE.to_input(given), atol=2e-3, rtol=0)


def test_grid_is_that_of_torch() -> None:
    from torch.nn.functional import affine_grid, grid_sample

    images = torch.rand(6, 3, 20, 28)
    matrices = affine(uniform()[:, :8], 1.0)
    grid = affine_grid(matrices, [6, 3, 20, 28], align_corners=False)
    expected = grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    torch.testing.assert_close(resampled(images, matrices), expected, atol=1e-4, rtol=0)


def test_half_turn_and_mirror_are_exact() -> None:
    given = squares()
    middle = torch.full((6, NUM_DRAWS), 0.5)
    turned, mirrored = middle.clone(), middle.clone()
    turned[:, 0] = 1.0
    mirrored[:, 3] = 0.0
    plain = SAME_SIZE.to_input(given)
    made = augmented(given, turned, SAME_SIZE, params())
    torch.testing.assert_close(made, plain.flip(2, 3), atol=5e-3, rtol=0)
    made = augmented(given, mirrored, SAME_SIZE, params())
    torch.testing.assert_close(made, plain.flip(3), atol=5e-3, rtol=0)


def test_image_is_augmented_the_same_in_any_batch() -> None:
    given, numbers = squares(), uniform()
    recipe = params(cutout=0.3)
    together = augmented(given, numbers, SAME_SIZE, recipe)
    alone = torch.cat(
        [augmented(given[i : i + 1], numbers[i : i + 1], SAME_SIZE, recipe) for i in range(6)]
    )
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_every_image_is_augmented_in_its_own_way() -> None:
    given = squares(1).expand(6, -1, -1, -1)
    made = augmented(given, uniform(), SAME_SIZE, params())
    assert all((made[0] - made[other]).abs().mean() > 0.05 for other in range(1, 6))


@pytest.mark.parametrize("strength", [0.3, 1.0, 3.0])
def test_augmented_images_stay_in_the_range_of_images(strength: float) -> None:
    made = augmented(squares(), uniform(), SAME_SIZE, params(augmentation=strength))
    assert made.shape == (6, 3, 32, 32) and made.dtype == torch.float32
    assert made.is_contiguous(memory_format=torch.channels_last)
    assert torch.isfinite(made).all() and made.abs().max() < 2 + 2 * strength


def test_grey_stays_grey_and_keeps_its_place_under_colour_changes() -> None:
    grey = torch.full((1, 32, 32, 3), 128, dtype=torch.uint8)
    numbers = torch.full((1, NUM_DRAWS), 0.5)
    numbers[:, 10:12] = torch.tensor([0.9, 0.95])  # saturation and hue
    made = augmented(grey, numbers, SAME_SIZE, params())
    torch.testing.assert_close(made, SAME_SIZE.to_input(grey), atol=1e-5, rtol=0)


def test_cutout_greys_one_square_of_the_given_side() -> None:
    white = torch.full((1, 32, 32, 3), 255, dtype=torch.uint8)
    numbers = torch.full((1, NUM_DRAWS), 0.5)
    made = augmented(white, numbers, SAME_SIZE, params(augmentation=0.0, cutout=0.5))
    assert (made == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixing_gives_targets_the_share_of_what_is_seen(kind: str) -> None:
    images = torch.zeros(4, 3, 32, 32)
    images[1::2] = 1.0
    targets = torch.eye(2).repeat(2, 1)
    for seed in range(5):
        numbers = uniform(1, seed)[0].numpy()
        seen, shares = mixed(images, targets, numbers, params(**{kind: 0.8}))
        torch.testing.assert_close(shares.sum(dim=1), torch.ones(4))
        torch.testing.assert_close(seen.mean(dim=(1, 2, 3)), shares[:, 1], atol=1e-5, rtol=0)
    assert images[0].sum() == 0  # what was given is left alone


def test_nothing_is_mixed_unless_asked_for() -> None:
    images, targets = torch.rand(4, 3, 8, 8), torch.eye(4)
    seen, shares = mixed(images, targets, uniform(1)[0].numpy(), params())
    assert seen is images and shares is targets
