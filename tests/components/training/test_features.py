from collections.abc import Callable

import numpy as np
import pytest
import torch

from components.errors import TrainingError
from components.training.features import fit_head, frozen_features, train_head_first
from components.training.job import Job
from components.training.loop import Training, balanced_accuracy, fit, validate

MakeJob = Callable[..., Job]
MakeTraining = Callable[[Job], Training]


def test_features_and_head_make_the_models_logits(
    make_job: MakeJob, make_training: MakeTraining
) -> None:
    training = make_training(make_job())
    features = frozen_features(training, training.job.validation.rows)
    training.model.eval()
    with torch.inference_mode():
        logits = training.model.head(features).double().numpy()
    np.testing.assert_allclose(logits, validate(training), atol=1e-5)


def test_head_first_learns_and_leaves_the_network_alone(
    make_job: MakeJob, make_training: MakeTraining
) -> None:
    training = make_training(make_job("resnet18", head_epochs=20, ema_decay=0.9))
    before = {name: value.clone() for name, value in training.model.body.state_dict().items()}
    train_head_first(training)
    after = training.model.body.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    labels = training.job.validation.labels
    assert balanced_accuracy(labels, validate(training)) > 0.6
    # The average starts from the trained head.
    assert training.average is not None
    head = training.average.state["head.1.weight"]
    assert torch.equal(head, training.model.head[1].weight)


def test_head_only_trains_for_all_epochs_with_one_checkpoint(
    make_job: MakeJob, make_training: MakeTraining
) -> None:
    training = make_training(make_job("resnet18", unfreeze="none", epochs=12))
    kept: list[int] = []
    fit_head(training, lambda training: kept.append(training.epoch))
    assert kept == [12] and len(training.history) == 12
    best = training.history[training.best_epoch - 1]["validation_balanced_accuracy"]
    training.model.load_state_dict(training.best_state)
    labels = training.job.validation.labels
    assert balanced_accuracy(labels, validate(training)) == pytest.approx(best)


def test_divergence_of_the_head_is_found_by_validation(
    make_job: MakeJob, make_training: MakeTraining
) -> None:
    recipe = {"unfreeze": "none", "head_learning_rate": 1e37, "warmup": 0.0}
    training = make_training(make_job("resnet18", **recipe))
    with pytest.raises(TrainingError, match=r"validation part any more \(epoch 1, ") as raised:
        fit_head(training, lambda _: None)
    assert "lower head_learning_rate (now 1e+37)" in raised.value.fix


def test_the_loss_of_the_head_follows_from_what_is_drawn_for_it(
    make_job: MakeJob, make_training: MakeTraining
) -> None:
    """However few images an epoch of the main training has: with 2 it has no room for a class."""
    recipe = {"unfreeze": "none", "epochs": 3, "class_weight_power": 1.0, "logit_adjustment": 1.0}
    states = []
    for epoch_images in (None, 2):
        training = make_training(make_job("resnet18", epoch_images=epoch_images, **recipe))
        fit_head(training, lambda _: None)
        states.append(training.model.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_main_training_follows_a_head_first(make_job: MakeJob, make_training: MakeTraining) -> None:
    training = make_training(make_job(head_epochs=2, epochs=1, unfreeze="last_block"))
    train_head_first(training)
    fit(training, lambda _: None)
    assert training.finished
