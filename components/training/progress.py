"""What a training says while it runs: one line now and then, read back by whoever watches."""

from __future__ import annotations

import time

from components.progress import Progress
from components.training.job import Job
from components.training.ranks import Ranks

_SECONDS_BETWEEN_LINES = 2.0


def say_where(job: Job, ranks: Ranks, node: str) -> None:
    """Print which node this worker trains on; a training that goes on elsewhere says it again."""
    worker = f"worker {ranks.rank + 1} of {ranks.world_size} " if ranks.world_size > 1 else ""
    print(f"{job.name}: {worker}trains on {node}", flush=True)


class Throttle:
    """Prints progress at most every two seconds, and always the last of it."""

    def __init__(self, name: str, total: int, unit: str, *, silent: bool = False) -> None:
        self._name, self._total, self._unit = name, total, unit
        self._silent = silent
        self._printed = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time for another line."""
        waited = time.monotonic() - self._printed
        return not self._silent and waited >= _SECONDS_BETWEEN_LINES

    def say(self, done: int, detail: str, *, always: bool = False) -> None:
        """Print that `done` are done, if it is time for it, it is the last, or `always`."""
        if self._silent or not (always or self.due or done == self._total):
            return
        self._printed = time.monotonic()
        print(Progress(self._name, done, self._total, self._unit, detail), flush=True)


class Reporter:
    """Says how a training gets on: loss, validation metric, images/s and time left.

    Only the first worker prints.
    """

    def __init__(self, job: Job, steps_per_epoch: int, *, silent: bool = False) -> None:
        self._epochs = job.params.epochs
        self._steps = steps_per_epoch
        self._lines = Throttle(job.name, self._epochs * steps_per_epoch, "steps", silent=silent)
        self._epoch_started = time.monotonic()
        self._seconds_per_epoch: float | None = None
        self._score = ""

    def step_done(self, epoch: int, step: int, num_images: int, loss: float) -> None:
        """Say that `step` steps and `num_images` images of `epoch` (from 0) are done."""
        if step == self._steps or not self._lines.due:
            return
        spent = time.monotonic() - self._epoch_started
        per_epoch = self._seconds_per_epoch or spent * self._steps / step
        left = per_epoch * (self._epochs - epoch - step / self._steps)
        speed = f"{num_images / spent:.0f} images/s, {_clock(left)} left"
        self._lines.say(epoch * self._steps + step, self._detail(epoch + 1, loss, speed))

    def epoch_done(self, epoch: int, loss: float, score: float) -> None:
        """Say that `epoch` epochs are done."""
        now = time.monotonic()
        self._seconds_per_epoch = now - self._epoch_started
        self._epoch_started = now
        self._score = f", balanced accuracy {score:.3f}"
        left = f"{_clock(self._seconds_per_epoch * (self._epochs - epoch))} left"
        self._lines.say(epoch * self._steps, self._detail(epoch, loss, left), always=True)

    def _detail(self, epoch: int, loss: float, tail: str) -> str:
        return f"epoch {epoch}/{self._epochs}, loss {loss:.3f}{self._score}, {tail}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
