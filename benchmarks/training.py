"""How fast training is, as ratios of things measured in turn in one run.

Usage: python -m benchmarks.training [loop] [tutorial] [head] [startup] [parallel] [workers]

Each name writes `benchmarks/results/training-<name>.csv`. Needs the real HAM10000 images and
MobileNetV2's published weights (`LESIONFLOW_REAL_DATA`); elsewhere it measures on noise.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.data import BenchmarkData, subset
from benchmarks.machine import write_results
from components.backbones.heads import Classifier
from components.training import recipe
from components.training.loop import Training, fit, train_epoch
from components.training.progress import Reporter

Row = dict[str, Any]
REPO = Path(__file__).resolve().parents[1]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
THREADS = os.cpu_count() or 1
ROUNDS = 5
STEPS = {"mobilenet_v2": 10, "resnet50": 4}
"""Optimizer steps of 32 images per round and backbone on a CPU."""
_GPU_STEPS = 60
_HEAD_ROUNDS = 3


def loop(data: BenchmarkData) -> Iterator[Row]:
    """Our loop on real packed data ÷ the same network fed one batch that lies ready."""
    recipes = {"data path": {"augmentation": 0.0}, "recipe ham10000": ham10000_recipe()}
    for backbone, steps_of_32 in STEPS.items():
        for name, changed in recipes.items():
            batch_size = changed.get("batch_size", 32)
            steps = steps_per_round(steps_of_32, batch_size)
            images = steps * batch_size
            params = data.params(**changed | {"image_size": 224, "epoch_images": images})
            job = data.job(backbone, params)
            training = data.training(job, DEVICE)
            ceiling = Ceiling(training, data.training(job, DEVICE).model)
            silent = Reporter(training.job, steps, silent=True)
            ours, theirs = in_turn(
                partial(timed, partial(train_epoch, training, silent)),
                partial(timed, partial(ceiling.run, steps)),
            )
            yield {
                "backbone": backbone,
                "image_size": 224,
                "batch_size": batch_size,
                "what": name,
                "ours_images_per_s": round(images / ours, 2),
                "ceiling_images_per_s": round(images / theirs, 2),
                "ratio": round(theirs / ours, 3),
            }


def ham10000_recipe() -> Row:
    """Return the recipe for real images, on one worker with all cores."""
    from components.params import load_params

    recipe = load_params(REPO / "params" / "ham10000.yaml").training
    where = {"threads", "cpus_per_worker", "num_workers"}
    return recipe.model_dump(exclude_unset=True, exclude=where)


def steps_per_round(steps_of_32: int, batch_size: int) -> int:
    """Return the steps of a round: on a CPU as many images for any batch size."""
    return steps_of_32 * 32 // batch_size if DEVICE.type == "cpu" else _GPU_STEPS


class Ceiling:
    """Optimizer steps on one batch that already lies on the device."""

    def __init__(self, training: Training, model: Classifier) -> None:
        params, job = training.job.params, training.job
        self._autocast = partial(recipe.autocast, training.device, training.precision)
        self._model = model.train()
        self._optimizer = recipe.build_optimizer(self._model, params, job.backbone)
        shape = (params.batch_size, 3, params.image_size, params.image_size)
        images = torch.randn(shape, device=DEVICE)
        self._images = images.contiguous(memory_format=torch.channels_last)
        self._labels = torch.randint(0, len(job.classes), shape[:1], device=DEVICE)

    def run(self, steps: int) -> None:
        """Take `steps` steps."""
        for _ in range(steps):
            with self._autocast():
                logits = self._model(self._images)
            self._optimizer.zero_grad(set_to_none=True)
            cross_entropy(logits.float(), self._labels).backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()


def tutorial(data: BenchmarkData) -> Iterator[Row]:
    """Our recipe for real images ÷ ImageFolder, PIL transforms, DataLoader and a float32 loop."""
    changed = ham10000_recipe()
    batch_size = changed["batch_size"]
    for backbone, steps_of_32 in STEPS.items():
        steps = steps_per_round(steps_of_32, batch_size)
        images = steps * batch_size
        params = data.params(**changed | {"image_size": 224, "epoch_images": images})
        job = data.job(backbone, params)
        training = data.training(job, DEVICE)
        silent = Reporter(job, steps, silent=True)
        theirs_model = data.training(job, DEVICE).model
        theirs_model.to(memory_format=torch.contiguous_format)
        with data.class_folders() as folder:
            usual = Tutorial(theirs_model, folder, batch_size)
            ours, theirs = in_turn(
                partial(timed, partial(train_epoch, training, silent)), partial(usual.run, steps)
            )
        yield {
            "backbone": backbone,
            "image_size": 224,
            "batch_size": batch_size,
            "ours": "recipe ham10000",
            "ours_images_per_s": round(images / ours, 2),
            "tutorial_images_per_s": round(images / theirs, 2),
            "ratio": round(theirs / ours, 2),
        }


class Tutorial:
    """What people write: one JPEG at a time through PIL, in float32."""

    def __init__(self, model: nn.Module, folder: Path, batch_size: int) -> None:
        from torchvision import transforms
        from torchvision.datasets import ImageFolder

        transform = transforms.Compose(
            [
                transforms.Resize(256),
                transforms.RandomAffine(180, (0.1, 0.1), (0.8, 1.25)),
                transforms.CenterCrop(224),
                transforms.RandomHorizontalFlip(),
                transforms.ColorJitter(0.1, 0.2, 0.2, 0.02),
                transforms.ToTensor(),
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )
        self._images = ImageFolder(str(folder), transform)
        self._batch_size = batch_size
        self._model = model.train()
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def run(self, steps: int) -> float:
        """Return the seconds of `steps` steps of a running epoch.

        Not counted: the start of the loader's processes, and the steps on what they laid in store
        meanwhile (two batches each). They end with the round, and take no time from ours.
        """
        stored = 2 * THREADS
        batches = self._running_epoch(2 * stored + steps)
        self._train(batches, stored)
        return timed(partial(self._train, batches, steps))

    def _running_epoch(self, num_batches: int) -> Iterator[Any]:
        """Start an epoch; with more batches than are taken, the loader is at work to the end."""
        from torch.utils.data import DataLoader, RandomSampler

        shuffled = RandomSampler(self._images, num_samples=num_batches * self._batch_size)
        return iter(
            DataLoader(self._images, self._batch_size, sampler=shuffled, num_workers=THREADS)
        )

    def _train(self, batches: Iterable[Any], steps: int) -> None:
        for images, labels in islice(batches, steps):
            loss = cross_entropy(self._model(images.to(DEVICE)), labels.to(DEVICE))
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()


def head(data: BenchmarkData) -> Iterator[Row]:
    """Ten epochs of the head on cached features ÷ ten with a frozen network the usual way."""
    from components.training.features import fit_head

    changed = {"augmentation": 0.0, "sampling_power": 1.0, "learning_rate": 1e-3}
    params = data.params(image_size=128, epochs=10, **changed)
    few = subset(data.job("mobilenet_v2", params), 1000, 300)

    def cached() -> Training:
        recipe = params.model_copy(update={"unfreeze": "none", "head_learning_rate": 1e-2})
        training = data.training(replace(few, params=recipe), DEVICE)
        fit_head(training, lambda _: None)
        return training

    def usual() -> Training:
        training = data.training(few, DEVICE)
        training.model.body.requires_grad_(False)
        fit(training, lambda _: None)
        return training

    runs = {"cached features": cached, "frozen network": usual}
    times: dict[str, list[float]] = {name: [] for name in runs}
    scores = {}
    for _ in range(_HEAD_ROUNDS):  # in turn: the machine may be slower for a while
        for name, run in runs.items():
            started = time.perf_counter()
            training = run()
            times[name].append(time.perf_counter() - started)
            scores[name] = max(epoch["validation_balanced_accuracy"] for epoch in training.history)
    ratios = [usual_s / cached_s for cached_s, usual_s in zip(*times.values(), strict=True)]
    yield {
        "backbone": "mobilenet_v2",
        "image_size": 128,
        "images": len(few.train),
        "cached_s": round(statistics.median(times["cached features"]), 1),
        "usual_s": round(statistics.median(times["frozen network"]), 1),
        "ratio": round(statistics.median(ratios), 1),
        "least_ratio": round(min(ratios), 1),
        "greatest_ratio": round(max(ratios), 1),
        "cached_balanced_accuracy": round(scores["cached features"], 3),
        "usual_balanced_accuracy": round(scores["frozen network"], 3),
    }


def startup(data: BenchmarkData) -> Iterator[Row]:
    """From `fit()` to the first step and from the last step to the return, cold and warm.

    Most of it is imports; so what a bare import of torch and Ray Train takes is told beside it.
    """
    from components.cluster import connect
    from components.training.trainer import run_training

    params = data.params(image_size=64, epochs=1, epoch_images=320, threads=THREADS)
    few = subset(data.job("mobilenet_v2", params), 320, 64)
    bare = [sys.executable, "-c", "import torch, ray.train"]
    imports = statistics.median(
        timed(partial(subprocess.run, bare, check=True)) for _ in range(ROUNDS)
    )
    with tempfile.TemporaryDirectory() as folder, connect():
        for number in range(4):
            stored = replace(few, storage=f"{folder}/storage", identity=f"startup{number}")
            clock = run_training(stored, Path(folder) / f"left{number}")
            to_first_step = clock["first_step"] - clock["submitted"]
            yield {
                "cluster": "warm" if number else "just started",
                "fit_to_worker_s": round(clock["entered"] - clock["submitted"], 2),
                "fit_to_first_step_s": round(to_first_step, 2),
                "last_step_to_return_s": round(clock["returned"] - clock["last_step"], 2),
                "bare_import_s": round(imports, 2),
                "first_step_to_bare_import": round(to_first_step / imports, 2),
            }


def parallel(data: BenchmarkData) -> Iterator[Row]:
    """Three trainings side by side ÷ one after another, on one warm cluster."""
    backbones = ("mobilenet_v2", "resnet18", "mobilenet_v3_large")
    params = data.params(
        image_size=64, epochs=2, epoch_images=1600, threads=1, cpus_per_worker=THREADS / 4
    )
    with data.on_one_cluster([data.job(name, params) for name in backbones]) as commands:
        started = time.perf_counter()
        for command in commands("alone"):
            subprocess.run(command, check=True)
        alone = time.perf_counter() - started
        started = time.perf_counter()
        running = [subprocess.Popen(command) for command in commands("together")]
        codes = [process.wait() for process in running]
        together = time.perf_counter() - started
    if any(codes):
        raise SystemExit("a training failed")
    yield {
        "trainings": " ".join(backbones),
        "one_after_another_s": round(alone, 1),
        "side_by_side_s": round(together, 1),
        "ratio": round(together / alone, 2),
    }


def workers(data: BenchmarkData) -> Iterator[Row]:
    """One worker with all threads ÷ two workers that share them (DDP over gloo on a CPU)."""
    from components.cluster import connect
    from components.training.trainer import run_training

    shared: dict[str, Any] = {"image_size": 128, "epochs": 2, "epoch_images": 1600}
    times = {}
    with tempfile.TemporaryDirectory() as folder, connect():
        for count in (1, 2):
            threads = max(1, THREADS // count)
            params = data.params(
                **shared, num_workers=count, threads=threads, cpus_per_worker=float(threads)
            )
            few = subset(data.job("mobilenet_v2", params), 1600, 64)
            stored = replace(few, storage=f"{folder}/storage", identity=f"workers{count}")
            clock = run_training(stored, Path(folder) / f"left{count}")
            times[count] = clock["last_step"] - clock["first_step"]
    yield {
        "backbone": "mobilenet_v2",
        "image_size": 128,
        "one_worker_s": round(times[1], 1),
        "two_workers_s": round(times[2], 1),
        "ratio": round(times[1] / times[2], 2),
    }


def timed(action: Callable[[], object]) -> float:
    """Run `action`; return its seconds."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    action()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def in_turn(*actions: Callable[[], float]) -> list[float]:
    """Run `actions` in turn, `ROUNDS` times after one to warm up; return each one's median.

    Each returns the seconds that count.
    """
    times: list[list[float]] = [[] for _ in actions]
    for round_number in range(ROUNDS + 1):
        for action, mine in zip(actions, times, strict=True):
            seconds = action()
            if round_number:
                mine.append(seconds)
    return [statistics.median(mine) for mine in times]


BENCHMARKS = {
    "loop": loop,
    "tutorial": tutorial,
    "head": head,
    "startup": startup,
    "parallel": parallel,
    "workers": workers,
}


def main() -> None:
    """Run the benchmarks named on the command line (all by default)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], default=[])
    chosen = parser.parse_args().names or list(BENCHMARKS)
    torch.set_num_threads(THREADS)
    data = BenchmarkData.find()
    for name in chosen:
        rows = []
        for row in BENCHMARKS[name](data):
            print(name, row, flush=True)
            rows.append(row)
            written = write_results(f"training-{name}", rows)  # some rows take half an hour
        print(written, flush=True)


if __name__ == "__main__":
    main()
