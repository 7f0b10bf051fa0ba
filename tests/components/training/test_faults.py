"""What goes wrong on a cluster, done for real: processes killed, files damaged, memory short."""

import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from components.errors import TrainingError
from components.training.checkpoint import FACTS, TENSORS
from components.training.job import HISTORY, PROBABILITIES, WEIGHTS, Job, Part
from components.training.trainer import run_training

MakeJob = Callable[..., Job]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("connected")]
EPOCHS = 4


def content(folder: Path) -> dict[str, str]:
    """Return the hash of every file of a finished training."""
    names = (WEIGHTS, HISTORY, PROBABILITIES, "model.json")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def workers() -> list[psutil.Process]:
    """Return the processes of this test's Ray workers."""
    token = os.environ["RAY_AUTH_TOKEN_PATH"]
    found = []
    for process in psutil.process_iter():
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()) and (
                process.environ().get("RAY_AUTH_TOKEN_PATH") == token
            ):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def checkpoints(job: Job, epoch: int) -> list[Path]:
    return list(Path(job.checkpoints, job.identity).glob(f"epoch-{epoch:05d}-*/{FACTS}"))


@contextmanager
def after_epoch(job: Job, epoch: int, action: Callable[[], None]) -> Iterator[list[bool]]:
    """Do `action` once, as soon as the checkpoint of `epoch` is there; yield whether it was."""
    done: list[bool] = []

    def watch() -> None:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and not checkpoints(job, epoch):
            time.sleep(0.02)
        time.sleep(0.3)  # into the next epoch
        action()
        done.append(True)

    thread = threading.Thread(target=watch)
    thread.start()
    yield done
    thread.join()


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, dict[str, str]]:
    """Remember what undisturbed trainings left, by recipe."""
    return {}


@pytest.fixture
def expected(
    make_job: MakeJob, tmp_path: Path, undisturbed: dict[str, dict[str, str]]
) -> dict[str, str]:
    """Return the hashes of a training in which nothing went wrong."""
    if "plain" not in undisturbed:
        job = replace(make_job(epochs=EPOCHS), identity="undisturbed")
        run_training(job, tmp_path / "undisturbed")
        undisturbed["plain"] = content(tmp_path / "undisturbed")
    return undisturbed["plain"]


def kill_workers() -> None:
    for process in workers():
        process.kill()


def test_killed_worker_resumes_and_ends_with_the_same_bits(
    make_job: MakeJob,
    tmp_path: Path,
    expected: dict[str, str],
    capfd: pytest.CaptureFixture[str],
) -> None:
    job = make_job(epochs=EPOCHS)
    with after_epoch(job, 2, kill_workers) as killed:
        run_training(job, tmp_path / "left")
    assert killed
    assert "goes on after epoch" in capfd.readouterr().out
    assert content(tmp_path / "left") == expected


DRIVER = """
import pickle, sys
from pathlib import Path
from components.cluster import connect
from components.training.trainer import run_training
with connect():
    run_training(pickle.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2]))
"""


def test_killed_driver_resumes_when_started_again_even_with_a_damaged_checkpoint(
    make_job: MakeJob,
    tmp_path: Path,
    expected: dict[str, str],
    capfd: pytest.CaptureFixture[str],
) -> None:
    job = make_job(epochs=EPOCHS)
    (tmp_path / "job").write_bytes(pickle.dumps(job))
    command = [sys.executable, "-c", DRIVER, str(tmp_path / "job"), str(tmp_path / "left")]
    driver = subprocess.Popen(command)
    with after_epoch(job, 2, lambda: driver.send_signal(signal.SIGKILL)):
        driver.wait()
    assert driver.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 60
    while workers() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not workers(), "the killed driver's worker goes on"
    # On top of it, the newest checkpoint is cut off and Ray's own list of them is unreadable.
    newest = max(Path(job.checkpoints, job.identity).glob("epoch-*"))
    tensors = newest / TENSORS
    tensors.write_bytes(tensors.read_bytes()[:1000])
    (newest.parent / "checkpoint_manager_snapshot.json").write_text('{"half":')
    run_training(job, tmp_path / "left")
    assert "taking the one before" in capfd.readouterr().out
    assert content(tmp_path / "left") == expected
    assert not list(Path(job.checkpoints, job.identity).glob("epoch-*"))


def test_worker_that_is_killed_again_and_again_is_one_clear_error(
    make_job: MakeJob, tmp_path: Path
) -> None:
    job = make_job(epochs=50, max_failures=0)
    with (
        after_epoch(job, 1, kill_workers),
        pytest.raises(TrainingError, match="workers of mobilenet_v3_large-0 were lost") as raised,
    ):
        run_training(job, tmp_path / "left")
    assert "goes on after the last finished epoch" in raised.value.fix


def test_memory_that_does_not_suffice_is_one_clear_error(make_job: MakeJob, tmp_path: Path) -> None:
    # 96 images of 32 px, enlarged to 4,096 px in one batch, want hundreds of gigabytes.
    job = make_job("vgg11", epochs=1, batch_size=96, image_size=1024)
    large = job.preprocessing.model_copy(update={"image_size": 16_384})
    with pytest.raises(TrainingError, match="does not fit into memory") as raised:
        run_training(replace(job, preprocessing=large), tmp_path / "left")
    assert "lower batch_size (now 96)" in raised.value.fix


def test_two_workers_train_as_one_does(make_job: MakeJob, tmp_path: Path) -> None:
    # ViT has no batch norm: the gradients of both halves of a batch add up to the whole's.
    # 33 images make batches of 11, 6 for one worker and 5 for the other.
    # One share and one order of partners for both, so that mixup shows the same images.
    recipe = {"epochs": 1, "learning_rate": 1e-4, "mixup": 0.4, "cpus_per_worker": 1.0}
    histories = []
    for num_workers in (1, 2):
        job = make_job("vit_b_16", num_workers=num_workers, **recipe)
        few = Part(job.train.rows[:33], job.train.labels[:33])
        few_of_them = replace(job, train=few, identity=str(num_workers))
        run_training(few_of_them, tmp_path / str(num_workers))
        histories.append(json.loads((tmp_path / str(num_workers) / HISTORY).read_text())[0])
    one, two = histories
    assert one["train_loss"] == pytest.approx(two["train_loss"], rel=1e-4)
    assert one["validation_loss"] == pytest.approx(two["validation_loss"], rel=1e-3)
