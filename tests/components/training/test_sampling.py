import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from components.training.sampling import (
    batches,
    class_quotas,
    draws,
    epoch_order,
    with_partner,
)

LABELS = np.repeat(np.arange(4), (400, 60, 10, 30)).astype(np.int64)


@given(
    counts=st.lists(st.integers(0, 500), min_size=2, max_size=8).filter(lambda c: sum(c) > 0),
    power=st.floats(0, 1),
    num_images=st.integers(1, 3000),
)
def test_quotas_add_up_and_leave_out_only_classes_without_images(
    counts: list[int], power: float, num_images: int
) -> None:
    quotas = class_quotas(np.array(counts), power, num_images)
    assert quotas.sum() == num_images
    assert all(quota == 0 for quota, count in zip(quotas, counts, strict=True) if count == 0)


@given(
    counts=st.lists(st.integers(0, 10_000), min_size=2, max_size=9).filter(lambda c: sum(c) > 0),
    power=st.floats(0, 1),
    num_images=st.integers(1, 3000),
)
@example(counts=[7000, 2995, 5], power=1.0, num_images=1000)
@example(counts=[1, 1, 10_000], power=1.0, num_images=3)
@example(counts=[9999, 40, 11, 3, 0, 1], power=1.0, num_images=250)
def test_every_class_with_images_has_a_place_and_none_more_than_its_rounded_share(
    counts: list[int], power: float, num_images: int
) -> None:
    given_counts = np.array(counts)
    quotas = class_quotas(given_counts, power, num_images)
    there = given_counts > 0
    assert quotas.sum() == num_images
    assert (quotas[~there] == 0).all() and (quotas >= 0).all()
    if num_images >= there.sum():
        assert (quotas[there] > 0).all()
    weights = np.where(there, given_counts.astype(float) ** power, 0.0)
    share = num_images * weights / weights.sum()
    assert (quotas <= np.floor(share + 1e-6) + 1).all()
    large = there & (share > 1 + there.sum())
    # What a class gives away is at most one place for each of the others.
    assert (quotas[large] >= np.floor(share[large] - 1e-6) - there.sum()).all()
    # More images never have fewer places, but for the last one by the remainders.
    order = np.argsort(given_counts, kind="stable")
    assert (np.diff(quotas[order]) >= -1).all()


def test_a_class_of_five_images_among_thousands_takes_its_turn() -> None:
    assert class_quotas(np.array([7000, 2995, 5]), 1.0, 1000).tolist() == [700, 299, 1]
    labels = np.repeat(np.arange(3), (7000, 2995, 5)).astype(np.int64)
    seen = np.concatenate([epoch_order(labels, 1.0, 1000, 0, epoch) for epoch in range(5)])
    assert sorted(seen[labels[seen] == 2]) == list(range(9995, 10_000))


def test_power_one_keeps_the_classes_as_they_are_and_zero_makes_them_even() -> None:
    counts = np.bincount(LABELS)
    np.testing.assert_array_equal(class_quotas(counts, 1.0, len(LABELS)), counts)
    np.testing.assert_array_equal(class_quotas(counts, 0.0, 200), [50, 50, 50, 50])
    tempered = class_quotas(counts, 0.5, 1000)
    assert tempered[0] / tempered[2] == pytest.approx(np.sqrt(400 / 10), rel=0.05)


@given(power=st.floats(0, 1), seed=st.integers(0, 9), num_images=st.integers(20, 700))
def test_images_of_a_class_take_turns_over_the_epochs(
    power: float, seed: int, num_images: int
) -> None:
    seen = np.zeros(len(LABELS), dtype=int)
    for epoch in range(4):
        order = epoch_order(LABELS, power, num_images, seed, epoch)
        assert len(order) == num_images
        seen += np.bincount(order, minlength=len(LABELS))
    for label in range(4):
        times = seen[label == LABELS]
        assert times.max() - times.min() <= 1


def test_order_follows_from_seed_and_epoch_alone() -> None:
    first = epoch_order(LABELS, 0.5, 500, 3, 7)
    np.testing.assert_array_equal(first, epoch_order(LABELS, 0.5, 500, 3, 7))
    assert not np.array_equal(first, epoch_order(LABELS, 0.5, 500, 3, 8))
    assert not np.array_equal(first, epoch_order(LABELS, 0.5, 500, 4, 7))
    # It is shuffled as a whole, not class after class.
    assert len(np.unique(LABELS[first[:50]])) == 4


@given(num_images=st.integers(16, 500), batch_size=st.integers(8, 64), world_size=st.integers(1, 4))
def test_batches_cover_every_image_once_and_leave_no_worker_without_one(
    num_images: int, batch_size: int, world_size: int
) -> None:
    ranks = [batches(num_images, batch_size, rank, world_size) for rank in range(world_size)]
    together = np.concatenate([positions for rank in ranks for positions, _ in rank])
    np.testing.assert_array_equal(np.sort(together), np.arange(num_images))
    for step in zip(*ranks, strict=True):
        sizes = [len(positions) for positions, _ in step]
        assert sum(sizes) == step[0][1] <= batch_size
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) >= 1


def test_step_has_the_same_images_for_any_number_of_workers() -> None:
    alone = batches(103, 16, 0, 1)
    two = [batches(103, 16, rank, 2) for rank in range(2)]
    for (whole, size), (left, _), (right, _) in zip(alone, *two, strict=True):
        np.testing.assert_array_equal(whole, np.concatenate([left, right]))
        assert size == len(whole)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_part_of_a_batch_needs_one_image_more_and_the_whole_none(world_size: int) -> None:
    (whole, _), *_ = batches(20, 10, 0, 1)
    for rank in range(world_size):
        (positions, _), *_ = batches(20, 10, rank, world_size)
        needed = with_partner(positions, whole)
        assert len(needed) == len(positions) + (world_size > 1)
        before = np.roll(whole, 1)[np.isin(whole, positions)]
        np.testing.assert_array_equal(np.roll(needed, 1)[: len(positions)], before)


def test_draws_are_uniform_and_repeat() -> None:
    first = draws(1, 2, 5000, 4)
    np.testing.assert_array_equal(first, draws(1, 2, 5000, 4))
    assert not np.array_equal(first, draws(1, 3, 5000, 4))
    assert first.dtype == np.float32
    assert first.min() >= 0 and first.max() < 1
    np.testing.assert_allclose(first.mean(axis=0), 0.5, atol=0.03)
