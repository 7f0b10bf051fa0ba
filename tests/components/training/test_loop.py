import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from components.errors import TrainingError
from components.training.augment import NUM_DRAWS
from components.training.checkpoint import Checkpoint, Storage, newest_whole, save
from components.training.job import Job
from components.training.loop import Training, balanced_accuracy, cross_entropy, fit, shown
from components.training.ranks import Ranks
from components.training.sampling import draws, epoch_order

MakeJob = Callable[..., Job]
MakeTraining = Callable[[Job], Training]


def run(training: Training, keep: Callable[[Training], None] = lambda _: None) -> Training:
    fit(training, keep)
    return training


def copy(checkpoint: Checkpoint) -> Checkpoint:
    tensors = {name: value.clone() for name, value in checkpoint.tensors.items()}
    return Checkpoint(tensors, checkpoint.facts | {"history": list(checkpoint.facts["history"])})


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


GOLDEN = [0.65320, 0.68383]


def test_golden_losses(make_job: MakeJob, make_training: MakeTraining) -> None:
    """A change that should change no result must leave these as they are."""
    recipe = {"ema_decay": 0.9, "label_smoothing": 0.1, "layer_decay": 0.8, "mixup": 0.3}
    training = run(make_training(make_job("resnet18", **recipe)))
    losses = [epoch["train_loss"] for epoch in training.history]
    assert losses == pytest.approx(GOLDEN, rel=5e-3)


def test_same_seed_gives_the_same_bits_and_another_seed_does_not(
    make_job: MakeJob, make_training: MakeTraining
) -> None:
    first = run(make_training(make_job(epochs=1)))
    again = run(make_training(make_job(epochs=1)))
    other = run(make_training(make_job(epochs=1, seed=1)))
    assert first.history == again.history
    assert same(first.best_state, again.best_state)
    assert not same(first.best_state, other.best_state)


def test_training_learns(make_job: MakeJob, make_training: MakeTraining) -> None:
    training = run(make_training(make_job("resnet18", epochs=3, learning_rate=3e-4)))
    losses = [epoch["train_loss"] for epoch in training.history]
    assert losses[-1] < 0.6 * losses[0] and losses[0] < 1.2
    assert max(epoch["validation_balanced_accuracy"] for epoch in training.history) > 0.8


@pytest.mark.parametrize("recipe", [{}, {"ema_decay": 0.9, "mixup": 0.4, "unfreeze": "last_block"}])
def test_training_goes_on_from_a_checkpoint_to_the_same_bits(
    make_job: MakeJob,
    make_training: MakeTraining,
    tmp_path: Path,
    recipe: dict[str, float],
) -> None:
    job = make_job(epochs=3, label_smoothing=0.1, **recipe)

    def keep(training: Training) -> None:
        folder = tmp_path / f"epoch-{training.epoch:05d}-a"
        folder.mkdir()
        save(folder, training.to_checkpoint())

    whole = run(make_training(job), keep)
    for epoch in (1, 2):
        # As if killed after this epoch: a new process finds only the checkpoints up to it.
        for later in range(epoch + 1, 4):
            (tmp_path / f"epoch-{later:05d}-a").rename(tmp_path / f"later-{later}")
        stored = newest_whole(Storage.open(str(tmp_path)))
        assert stored is not None
        resumed = make_training(job)
        resumed.restore(stored)
        assert resumed.epoch == epoch
        run(resumed)
        assert resumed.history == whole.history
        assert same(resumed.best_state, whole.best_state)
        assert same(resumed.judged_state, whole.judged_state)
        for later in range(epoch + 1, 4):
            (tmp_path / f"later-{later}").rename(tmp_path / f"epoch-{later:05d}-a")


@pytest.mark.parametrize("recipe", [{}, {"mixup": 0.4}, {"cutmix": 1.0}], ids=str)
@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_what_is_shown_does_not_depend_on_the_number_of_workers(
    make_job: MakeJob, make_training: MakeTraining, num_workers: int, recipe: dict[str, float]
) -> None:
    job = make_job(epoch_images=50, **recipe)  # batches of 13 and 12: uneven for two and three
    alone = make_training(job)
    ranks = [Ranks(rank, num_workers) for rank in range(num_workers)]
    workers = [Training(job, alone.model, alone.squares, alone.device, each) for each in ranks]
    order = epoch_order(job.train.labels, 0.5, 50, job.seed, epoch=1)
    uniform = draws(job.seed, 1, 50, NUM_DRAWS)
    for step in range(len(alone.steps)):
        images, targets = shown(alone, step, order, uniform)
        parts = [shown(worker, step, order, uniform) for worker in workers]
        assert [len(part[0]) for part in parts] == [len(each.steps[step][0]) for each in workers]
        assert bool((targets.max(dim=1).values == 1).all()) == (not recipe)
        torch.testing.assert_close(
            torch.cat([part[0] for part in parts]), images, atol=1e-4, rtol=0
        )
        torch.testing.assert_close(torch.cat([part[1] for part in parts]), targets)


def judged(training: Training, correct: list[int]) -> None:
    """End an epoch in which the images numbered `correct` are the right ones."""
    labels = training.job.validation.labels
    logits = np.zeros((len(labels), 3))
    guesses = np.where(np.isin(np.arange(len(labels)), correct), labels, (labels + 1) % 3)
    logits[np.arange(len(labels)), guesses] = 1.0
    training.judge(logits, 1.0, 0.1)


def test_best_epoch_is_the_first_of_equals(make_job: MakeJob, make_training: MakeTraining) -> None:
    training = make_training(make_job(epochs=9))
    for correct in ([0], [0, 1, 2], [0, 1, 2], [1]):
        judged(training, correct)
    assert training.best_epoch == 2


def test_early_stopping_counts_epochs_without_a_better_one(
    make_job: MakeJob, make_training: MakeTraining
) -> None:
    training = make_training(make_job(epochs=9, early_stopping=2))
    judged(training, [0, 1])
    judged(training, [0])
    assert not training.finished
    judged(training, [0, 1])
    assert training.finished


def test_best_state_is_not_changed_by_what_follows(
    make_job: MakeJob, make_training: MakeTraining
) -> None:
    training = make_training(make_job(epochs=2))
    judged(training, [0, 1, 2])
    kept = {name: value.clone() for name, value in training.best_state.items()}
    with torch.no_grad():
        for parameter in training.model.parameters():
            parameter.add_(1)
    judged(training, [0])
    assert same(training.best_state, kept)


def test_loss_that_is_no_number_stops_with_what_to_do(
    make_job: MakeJob, make_training: MakeTraining
) -> None:
    training = make_training(make_job(learning_rate=1e30, warmup=0.0))
    with pytest.raises(TrainingError) as raised:
        run(training)
    message = str(raised.value)
    for part in ("mobilenet_v3_large", "epoch 1", "step", "1e+30", "lower learning_rate"):
        assert part in message


def test_divergence_in_the_last_step_is_found_by_validation(
    make_job: MakeJob, make_training: MakeTraining
) -> None:
    recipe = {"batch_size": 96, "learning_rate": 1e30, "warmup": 0.0}  # one step in an epoch
    training = make_training(make_job("resnet18", **recipe))
    kept: list[int] = []
    with pytest.raises(TrainingError) as raised:
        run(training, lambda training: kept.append(training.epoch))
    message = str(raised.value)
    for part in ("resnet18", "validation part", "epoch 1", "1e+30", "lower learning_rate"):
        assert part in message
    assert kept == [] and training.history == []


def test_a_resumed_training_keeps_its_precision_on_another_kind_of_node(
    make_job: MakeJob, make_training: MakeTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job("resnet18", precision="auto", epochs=2)

    def on_a_node(*, fast_bf16: bool) -> Training:
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
            monkeypatch.setattr(torch.cpu, name, lambda: fast_bf16)
        return make_training(job)

    for fast_bf16, precision in ((True, torch.bfloat16), (False, None)):
        stored: list[Checkpoint] = []
        whole = on_a_node(fast_bf16=fast_bf16)
        run(whole, lambda training, stored=stored: stored.append(copy(training.to_checkpoint())))
        resumed = on_a_node(fast_bf16=not fast_bf16)
        assert resumed.precision != precision
        resumed.restore(stored[0])
        assert resumed.precision == precision
        run(resumed)
        assert resumed.history == whole.history
        assert same(resumed.best_state, whole.best_state)


def test_a_device_without_the_precision_of_the_checkpoint_is_an_error(
    make_job: MakeJob, make_training: MakeTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = make_training(make_job("resnet18", precision="bf16")).to_checkpoint()
    training = make_training(make_job("resnet18", precision="auto"))
    training.device = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(TrainingError, match="was begun in bf16") as raised:
        training.restore(stored)
    assert "precision: fp32" in raised.value.fix


def test_averaged_weights_are_what_is_judged_and_kept(
    make_job: MakeJob, make_training: MakeTraining
) -> None:
    training = run(make_training(make_job(epochs=1, ema_decay=0.99)))
    assert training.average is not None
    assert same(training.best_state, training.average.state)
    assert not same(training.best_state, training.model.state_dict())


def test_rows_and_classes_that_a_part_lacks_do_not_matter(
    make_job: MakeJob, make_training: MakeTraining
) -> None:
    job = make_job(epochs=1)
    few = replace(job.validation, rows=job.validation.rows[:3], labels=np.array([0, 0, 1]))
    training = run(make_training(replace(job, validation=few)))
    assert 0 <= training.history[0]["validation_balanced_accuracy"] <= 1


def test_balanced_accuracy_is_the_mean_recall() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1])
    logits = np.eye(3)[[0, 0, 0, 1, 1, 2]]
    assert balanced_accuracy(labels, logits) == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert cross_entropy(labels, np.zeros((6, 3))) == pytest.approx(math.log(3))
