"""The head alone, on features of the frozen network that are computed once.

A pass through the network costs a third of an epoch; the epochs of the head on its result cost
next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from components.backbones.inference import images_at_once
from components.backbones.zoo import features, head
from components.training import recipe
from components.training.losses import build_loss
from components.training.progress import Reporter, Throttle
from components.training.sampling import Ints, batches, class_quotas, epoch_order

if TYPE_CHECKING:
    from components.training.loop import Training

_HEAD_BATCH = 256


def train_head_first(training: Training) -> None:
    """Train the head for `head_epochs` before the rest; the network's own layers stay."""
    params = training.job.params
    lesson = _Lesson(training, params.head_epochs)
    for epoch in range(params.head_epochs):
        lesson.train_epoch(epoch)
    training.average = training.new_average()


def fit_head(training: Training, keep: Callable[[Training], None]) -> None:
    """Train nothing but the head, for `epochs`; call `keep` at the end.

    There is one checkpoint only: all epochs together take seconds.
    """
    params = training.job.params
    lesson = _Lesson(training, params.epochs)
    held_out = frozen_features(training, training.job.validation.rows).to(training.device)
    layer = head(training.model)
    reporter = Reporter(training.job, lesson.num_steps, silent=not training.ranks.is_first)
    while not training.finished:
        loss, rate = lesson.train_epoch(training.epoch)
        layer.eval()
        with torch.inference_mode(), recipe.weights_of(training.model, training.averaged):
            logits = layer(held_out).double().cpu().numpy()
        score = training.judge(logits, loss, rate)
        reporter.epoch_done(training.epoch, loss, score)
    keep(training)


class _Lesson:
    """Epochs of the head on the features of the training part; every worker does the same.

    Images are drawn as in the main training, but not augmented.
    """

    def __init__(self, training: Training, num_epochs: int) -> None:
        self._training = training
        self._labels = training.job.train.labels
        self._features = frozen_features(training, training.job.train.rows).to(training.device)
        self._layer = head(training.model).requires_grad_(True)
        params = training.job.params
        counts = np.bincount(self._labels, minlength=len(training.job.classes))
        # Of the images that are drawn here: the main training's epochs may have fewer.
        drawn = class_quotas(counts, params.sampling_power, len(self._labels))
        self._loss = build_loss(params, drawn, training.device)
        self._optimizer = torch.optim.AdamW(
            self._layer.parameters(), lr=params.head_learning_rate, weight_decay=params.weight_decay
        )
        self._batches = batches(len(self._labels), _HEAD_BATCH, 0, 1)
        self.num_steps = len(self._batches)
        self._schedule = recipe.Schedule(
            self._optimizer, num_epochs * self.num_steps, params.warmup
        )

    def train_epoch(self, epoch: int) -> tuple[float, float]:
        """Train for one epoch; return the mean loss and the largest learning rate."""
        training, labels = self._training, self._labels
        job = training.job
        order = epoch_order(labels, job.params.sampling_power, len(labels), job.seed, epoch)
        torch.manual_seed(training.dropout_seed(epoch, rank=0))
        self._layer.train()
        total, peak = 0.0, 0.0
        for step, (positions, size) in enumerate(self._batches):
            done = epoch * self.num_steps + step
            peak = max(peak, self._schedule.set(done))
            chosen = torch.from_numpy(order[positions]).to(training.device)
            targets = training.one_hot[torch.from_numpy(labels).to(training.device)[chosen]]
            loss = self._loss(self._layer(self._features[chosen]), targets).sum() / size
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            if training.average:
                training.average.update(done)
            total += loss.item() * size
        training.check(total, epoch, self.num_steps, peak, "head_learning_rate")
        return total / len(labels), peak


def frozen_features(training: Training, rows: Ints) -> torch.Tensor:
    """Return the features float32 `[len(rows), D]`; the workers share the work."""
    mine = np.arange(len(rows))[training.ranks.share(len(rows))]
    everything = np.zeros((len(rows), training.num_features))
    said = Throttle(training.job.name, len(mine), "images", silent=not training.ranks.is_first)
    together = images_at_once(training.job.preprocessing.image_size, training.device)
    training.model.eval()
    with torch.inference_mode():
        for start in range(0, len(mine), together):
            chosen = mine[start : start + together]
            images = training.job.preprocessing.to_input(training.squares[rows[chosen]])
            with recipe.autocast(training.device, training.precision):
                found = features(training.model, images)
            everything[chosen] = found.double().cpu().numpy()
            said.say(start + len(chosen), "features of the frozen network")
    return torch.from_numpy(training.ranks.sum(everything).astype(np.float32))
