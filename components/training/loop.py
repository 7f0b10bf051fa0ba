"""The training loop, to be read from top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from components.backbones.inference import images_at_once, softmax
from components.backbones.zoo import backbone
from components.errors import TrainingError
from components.training import augment, recipe
from components.training.batches import Squares
from components.training.checkpoint import Checkpoint
from components.training.job import Job
from components.training.losses import Loss, build_loss
from components.training.progress import Reporter
from components.training.ranks import Ranks
from components.training.sampling import (
    Ints,
    batches,
    class_quotas,
    draws,
    epoch_order,
    with_partner,
)

if TYPE_CHECKING:
    from components.backbones.heads import Classifier

Floats = npt.NDArray[np.float64]
_GPU_STEPS_BETWEEN_CHECKS = 20  # looking at the loss makes a GPU wait
_RATE = "learning_rate"


@dataclass
class Training:
    """One training in flight: the job, the network, and all that a checkpoint holds of them."""

    job: Job
    model: Classifier
    squares: Squares
    device: torch.device
    ranks: Ranks = field(default_factory=Ranks)
    epoch: int = 0
    """Epochs that are done."""
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    """The epoch (from 1) with the best validation balanced accuracy; the earlier one if equal."""
    best_state: dict[str, torch.Tensor] = field(default_factory=dict)
    clock: dict[str, float] = field(default_factory=dict)
    """Wall-clock times of the first and the last step, for benchmarks; never in a result."""

    def __post_init__(self) -> None:
        job, params = self.job, self.job.params
        self.num_images = params.epoch_images or len(job.train)
        self.steps = batches(
            self.num_images, params.batch_size, self.ranks.rank, self.ranks.world_size
        )
        # The same steps with the positions of all workers.
        self.whole_steps = batches(self.num_images, params.batch_size, 0, 1)
        recipe.freeze(self.model, params, job.backbone)
        self.optimizer = recipe.build_optimizer(self.model, params, job.backbone)
        self.schedule = recipe.Schedule(
            self.optimizer, params.epochs * len(self.steps), params.warmup
        )
        self.average = self.new_average()
        self.precision = recipe.choose_precision(params, job.backbone, self.device)
        counts = np.bincount(job.train.labels, minlength=len(job.classes))
        drawn = class_quotas(counts, params.sampling_power, self.num_images)
        self.loss: Loss = build_loss(params, drawn, self.device)
        self.one_hot = torch.eye(len(job.classes), device=self.device)

    @cached_property
    def network(self) -> torch.nn.Module:
        """What computes gradients: the model, or its data-parallel wrapper."""
        return recipe.data_parallel(self.model, self.ranks)

    def new_average(self) -> recipe.MovingAverage | None:
        """Return a moving average that starts from the model as it is; None if none is kept."""
        decay = self.job.params.ema_decay
        return recipe.MovingAverage(self.model, decay) if decay else None

    @property
    def judged_state(self) -> dict[str, torch.Tensor]:
        """The weights that validation judges and the run keeps: averaged ones if asked for."""
        return self.averaged or self.model.state_dict()

    @property
    def averaged(self) -> dict[str, torch.Tensor] | None:
        """The averaged weights, if they are what is judged."""
        return self.average.state if self.average else None

    @property
    def num_features(self) -> int:
        """Length of the vector that the head gets."""
        return backbone(self.job.backbone).num_features

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or early stopping ends the training."""
        patience = self.job.params.early_stopping
        stalled = patience is not None and self.epoch - self.best_epoch >= patience
        return self.epoch >= self.job.params.epochs or stalled

    def judge(self, logits: Floats, train_loss: float, rate: float) -> float:
        """End an epoch with the validation part's `logits`; return their balanced accuracy.

        Raises
        ------
        TrainingError
            Some are not finite: the epoch's last step may be the one that diverged, after its loss
            was looked at. Every worker has the same logits, and raises it.
        """
        if not np.isfinite(logits).all():
            what = f"{self.job.backbone} gives no numbers for the validation part any more"
            setting = "head_learning_rate" if self.job.params.unfreeze == "none" else _RATE
            raise _diverged(self.job, what, f"epoch {self.epoch + 1}", rate, setting)
        labels = self.job.validation.labels
        score = balanced_accuracy(labels, logits)
        self.epoch += 1
        self.history.append(
            {
                "epoch": self.epoch,
                "train_loss": train_loss,
                "validation_loss": cross_entropy(labels, logits),
                "validation_balanced_accuracy": score,
                "learning_rate": rate,
            }
        )
        best = self.history[self.best_epoch - 1] if self.best_epoch else None
        if best is None or score > best["validation_balanced_accuracy"]:
            self.best_epoch = self.epoch
            self.best_state = {k: v.detach().clone() for k, v in self.judged_state.items()}
        return score

    def check(self, loss: float, epoch: int, step: int, rate: float, setting: str = _RATE) -> None:
        """Raise `TrainingError` when `loss` is not a finite number; `setting` is its rate's."""
        if not math.isfinite(loss):
            what = f"the loss of {self.job.backbone} is no longer a number"
            raise _diverged(self.job, what, f"epoch {epoch + 1}, step {step}", rate, setting)

    def dropout_seed(self, epoch: int, rank: int) -> int:
        """Seed of what the network itself draws in an epoch: the same after a resume."""
        return int(np.random.SeedSequence((self.job.seed, epoch, rank)).generate_state(1)[0])

    def to_checkpoint(self) -> Checkpoint:
        """Return everything that the next epoch follows from."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best_state.items()}
        tensors |= {f"average.{name}": value for name, value in (self.averaged or {}).items()}
        tensors |= recipe.optimizer_tensors(self.optimizer)
        facts = {
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "history": self.history,
            "precision": recipe.precision_name(self.precision),
        }
        return Checkpoint(tensors, facts)

    def agree_on_precision(self) -> None:
        """Let all workers compute alike, whatever their nodes compute fastest; all call this."""
        self.precision = recipe.common_precision(self.precision, self.ranks)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to the state of `checkpoint`; every worker must call this.

        The precision is that of the checkpoint, too: `auto` may mean another one on this node.

        Raises
        ------
        TrainingError
            A worker's device cannot compute in that precision; every worker raises it.
        """
        name = str(checkpoint.facts["precision"])
        self.precision = recipe.precision_called(name)
        unable = not recipe.computes(self.device, self.precision)
        if self.ranks.sum(np.array([float(unable)]))[0]:
            raise _other_precision(self.job, name)
        tensors = checkpoint.tensors
        self.model.load_state_dict(_below(tensors, "model."))
        self.best_state = _below(tensors, "best.")
        if self.average:
            for name, value in _below(tensors, "average.").items():
                self.average.state[name].copy_(value)
        recipe.restore_optimizer(self.optimizer, tensors)
        self.epoch = int(checkpoint.facts["epoch"])
        self.best_epoch = int(checkpoint.facts["best_epoch"])
        self.history = list(checkpoint.facts["history"])


def fit(training: Training, keep: Callable[[Training], None]) -> None:
    """Train until `training.finished`; call `keep` after every epoch.

    Raises
    ------
    TrainingError
        The loss, or what validation gets, is not a number; every worker raises it at the same
        step.
    """
    reporter = Reporter(training.job, len(training.steps), silent=not training.ranks.is_first)
    while not training.finished:
        train_loss, rate = train_epoch(training, reporter)
        score = training.judge(validate(training), train_loss, rate)
        reporter.epoch_done(training.epoch, train_loss, score)
        keep(training)


def train_epoch(training: Training, reporter: Reporter) -> tuple[float, float]:
    """Train for one epoch; return the mean loss and the largest learning rate that was used."""
    job, params, epoch = training.job, training.job.params, training.epoch
    order = epoch_order(
        job.train.labels, params.sampling_power, training.num_images, job.seed, epoch
    )
    uniform = draws(job.seed, epoch, training.num_images, augment.NUM_DRAWS)
    torch.manual_seed(training.dropout_seed(epoch, training.ranks.rank))
    recipe.train_mode(training.model)
    check_every = 1 if training.device.type == "cpu" else _GPU_STEPS_BETWEEN_CHECKS
    total = torch.zeros((), device=training.device, dtype=torch.float64)
    peak = 0.0
    for step, (_, num_together) in enumerate(training.steps):
        done = epoch * len(training.steps) + step
        rate = training.schedule.set(done)
        peak = max(peak, rate)

        images, targets = shown(training, step, order, uniform)
        with recipe.autocast(training.device, training.precision):
            logits = training.network(images)
        # The mean over the images of all workers, who may have different numbers of them.
        loss = training.loss(logits, targets).sum() / num_together
        training.optimizer.zero_grad(set_to_none=True)
        (loss * training.ranks.world_size).backward()  # type: ignore[no-untyped-call]
        training.optimizer.step()
        if training.average:
            training.average.update(done)

        training.clock.setdefault("first_step", time.time())
        total += loss.detach() * num_together
        if step % check_every == 0 or step + 1 == len(training.steps):
            so_far = float(training.ranks.sum(np.array([total.item()]))[0])
            training.check(so_far, epoch, step + 1, rate)
            seen = sum(together for _, together in training.steps[: step + 1])
            reporter.step_done(epoch, step + 1, seen, so_far / seen)
    training.clock["last_step"] = time.time()
    return so_far / training.num_images, peak


def shown(
    training: Training, step: int, order: Ints, uniform: npt.NDArray[np.float32]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images and the targets of this worker in a step: augmented, and mixed.

    What an image looks like, and what it is mixed with, does not depend on who shows it.

    Parameters
    ----------
    order, uniform
        The images of the epoch, and the random numbers for each of them.
    """
    job, params = training.job, training.job.params
    positions, _ = training.steps[step]
    together, _ = training.whole_steps[step]
    needed = with_partner(positions, together) if augment.mixes(params) else positions
    chosen = order[needed]
    images = augment.augmented(
        training.squares[job.train.rows[chosen]],
        torch.from_numpy(uniform[needed]).to(training.device),
        job.preprocessing,
        params,
    )
    targets = training.one_hot[torch.from_numpy(job.train.labels[chosen]).to(training.device)]
    return augment.mixed(images, targets, uniform[together[0]], params, len(positions))


def validate(training: Training) -> Floats:
    """Return the logits `[N, C]` of the validation part, in the precision of the training."""
    job, part = training.job, training.job.validation
    logits = np.zeros((len(part), len(job.classes)))
    mine = np.arange(len(part))[training.ranks.share(len(part))]
    # Batch norm's statistics are those of each worker's own images: all take the first one's.
    training.ranks.copy_from_first(training.judged_state.values())
    together = images_at_once(job.preprocessing.image_size, training.device)
    training.model.eval()
    with torch.inference_mode(), recipe.weights_of(training.model, training.averaged):
        for start in range(0, len(mine), together):
            chosen = mine[start : start + together]
            images = job.preprocessing.to_input(training.squares[part.rows[chosen]])
            with recipe.autocast(training.device, training.precision):
                logits[chosen] = training.model(images).double().cpu().numpy()
    return training.ranks.sum(logits)


def balanced_accuracy(labels: npt.NDArray[np.int64], logits: Floats) -> float:
    """Return the mean recall over the classes that `labels` has."""
    correct = logits.argmax(axis=1) == labels
    return float(np.mean([correct[labels == label].mean() for label in np.unique(labels)]))


def cross_entropy(labels: npt.NDArray[np.int64], logits: Floats) -> float:
    """Return the mean negative log likelihood."""
    likelihood = softmax(logits)[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(likelihood, 1e-300)).mean())


def _below(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _diverged(job: Job, what: str, when: str, rate: float, setting: str) -> TrainingError:
    return TrainingError(
        f"{what} ({when}, learning rate {rate:.2g})",
        where=f"training {job.name}",
        fix=f"lower {setting} (now {getattr(job.params, setting):g}) below backbones."
        f"{job.backbone} or training in params.yaml, or raise warmup (now {job.params.warmup:g})"
        + ("; precision: fp32 may help, too" if job.params.precision != "fp32" else ""),
    )


def _other_precision(job: Job, name: str) -> TrainingError:
    return TrainingError(
        f"{job.name} was begun in {name}, and cannot go on on a device that has no {name}",
        where=f"training {job.name}: precision {job.params.precision}",
        fix=f"run it again where the devices compute {name}; or set precision: fp32 below "
        f"backbones.{job.backbone} or training in params.yaml, which trains it anew",
    )
