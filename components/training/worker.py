"""What runs on every Ray worker: one training, from its job to its finished model."""

from __future__ import annotations

import logging
import os
import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from components.atomic import write_json
from components.backbones.saved import Member, ModelFile, load_model, save_model
from components.backbones.weights import load_into
from components.backbones.zoo import create_backbone
from components.dataset.pack import PackedImages
from components.errors import LesionflowError, TrainingError
from components.training import features
from components.training.batches import Squares
from components.training.checkpoint import folder_name, newest_whole, save
from components.training.failures import explained
from components.training.finished import put_model, stored
from components.training.job import HISTORY, PROBABILITIES, WEIGHTS, Job
from components.training.loop import Training, fit
from components.training.memory import keep_freed_memory
from components.training.progress import say_where
from components.training.ranks import Ranks
from components.training.transfer import receive


def train_worker(config: dict[str, Any]) -> dict[str, Any]:
    """Train `config["job"]` as one worker of Ray Train.

    Returns
    -------
    dict
        `model`: name of the folder in the run's storage that holds the finished model; `failure`:
        why there is none (an error of ours, which is returned and not raised: Ray would take a
        raised one for a lost worker, and try again); `clock`: when it began, took its first and
        last step, and ended.
    """
    import ray.train

    logging.getLogger("ray").setLevel(logging.ERROR)
    job: Job = config["job"]
    clock = {"entered": time.time()}
    context = ray.train.get_context()
    ranks = Ranks(context.get_world_rank(), context.get_world_size())
    if job.is_shipped:
        say_where(job, ranks, ray.util.get_node_ip_address())
    try:
        model = train(job, ranks, keep, clock)
    except (LesionflowError, MemoryError, RuntimeError, OSError, ValidationError) as error:
        failure = explained(job, error)
        if failure is None:
            raise
        agreed = isinstance(error, TrainingError)  # a loss that is no number: all stop there
        if ranks.world_size > 1 and not agreed:
            raise failure from error  # the others wait for this one
        return {"failure": failure, "clock": clock}
    clock["ended"] = time.time()
    return {"model": model, "failure": None, "clock": clock}


def train(job: Job, ranks: Ranks, keep: Callable[[Training], None], clock: dict[str, float]) -> str:
    """Train `job`, calling `keep` after every epoch; return where the model is stored."""
    training = learn(job, ranks, keep, clock)
    name = f"model-{secrets.token_hex(4)}"
    if ranks.is_first:
        with tempfile.TemporaryDirectory(prefix="lesionflow-") as folder:
            write_model(training, Path(folder))
            put_model(job, Path(folder), name)
    return name


def learn(
    job: Job, ranks: Ranks, keep: Callable[[Training], None], clock: dict[str, float]
) -> Training:
    """Train `job` to its end from its newest whole checkpoint; call `keep` after every epoch."""
    torch.set_num_threads(job.params.threads)
    device = torch.device("cuda" if job.params.gpus_per_worker > 0 else "cpu")
    if device.type == "cuda":
        _same_bits_every_time()
    else:
        keep_freed_memory()
    job = receive(job)
    squares = Squares(PackedImages.open(job.packed), device)
    torch.manual_seed(job.seed)
    model = create_backbone(job.backbone, len(job.classes))
    load_into(model, job.backbone, job.weights, job.classes)
    model.to(device).to(memory_format=torch.channels_last)
    training = Training(job, model, squares, device, ranks, clock=clock)
    checkpoint = newest_whole(stored(job))
    if checkpoint is None:
        training.agree_on_precision()
    else:
        training.restore(checkpoint)
        if ranks.is_first:
            print(f"{job.name}: goes on after epoch {training.epoch}", flush=True)
    follow_recipe(training, keep)
    return training


def follow_recipe(training: Training, keep: Callable[[Training], None]) -> None:
    """Train from where `training` stands to its end; call `keep` after every epoch."""
    params = training.job.params
    if params.unfreeze == "none":
        features.fit_head(training, keep)
        return
    if params.head_epochs and training.epoch == 0:
        features.train_head_first(training)
    fit(training, keep)


def keep(training: Training) -> None:
    """Hand a checkpoint of `training` to Ray Train; every worker must call this.

    Each attempt at an epoch has a name of its own: Ray may remove an earlier one at any time.
    """
    import ray.train

    metrics = training.history[-1]
    name = f"{folder_name(training.epoch)}-{secrets.token_hex(4)}"
    if not training.ranks.is_first:
        ray.train.report(metrics, checkpoint_dir_name=name)
        return
    with tempfile.TemporaryDirectory(prefix="lesionflow-") as folder:
        save(Path(folder), training.to_checkpoint())
        checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report(metrics, checkpoint=checkpoint, checkpoint_dir_name=name)


def _same_bits_every_time() -> None:
    """Take only GPU kernels that give the same result twice, where there is a choice."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)


def write_model(training: Training, folder: Path) -> None:
    """Write the best epoch's model, its history and its validation predictions into `folder`.

    The predictions are made by the model as it is read back from disk, so that they are those of
    anybody who loads it.
    """
    job = training.job
    member = Member(
        file=WEIGHTS, backbone=job.backbone, preprocessing=job.preprocessing, tta=job.params.tta
    )
    facts = {"best_epoch": training.best_epoch, "precision": str(training.precision or "fp32")}
    model_file = ModelFile(
        classes=job.classes,
        malignant=job.malignant,
        members=(member,),
        provenance=job.provenance | facts,
    )
    save_model(folder, [training.best_state], model_file)
    write_json(folder / HISTORY, training.history)
    model = load_model(folder, device=str(training.device))
    packed = PackedImages.open(job.packed)
    probabilities = model.predict_proba(packed.images, rows=job.validation.rows)
    np.save(folder / PROBABILITIES, probabilities)
