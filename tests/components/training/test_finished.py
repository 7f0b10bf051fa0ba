"""What a finished training leaves in its storage, how long, and who takes it (no Ray in here)."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from components.errors import TrainingError
from components.training.checkpoint import Storage
from components.training.finished import (
    Finished,
    forget,
    forget_all,
    is_left,
    leave,
    put_model,
    stored,
    take,
)
from components.training.job import WEIGHTS, Job
from components.training.trainer import run_training

MakeJob = Callable[..., Job]


def train(job: Job, tmp_path: Path, weights: bytes = b"weights") -> None:
    """Leave what a training of `job` would, with a checkpoint and Ray's list of them."""
    model = tmp_path / "made"
    model.mkdir(exist_ok=True)
    for path in model.iterdir():
        path.unlink()
    (model / WEIGHTS).write_bytes(weights)
    (tmp_path / "epoch").mkdir(exist_ok=True)
    (tmp_path / "epoch" / "state.json").write_text("{}")
    stored(job).below("epoch-00001-a").put(tmp_path / "epoch")
    put_model(job, model, "model-1")
    leave(job, Finished("model-1", {"ended": 1.0}))


def test_a_storage_that_does_not_let_itself_be_read_is_one_clear_error(
    make_job: MakeJob, tmp_path: Path
) -> None:
    job = make_job()
    train(job, tmp_path)
    note = Path(job.checkpoints) / job.identity / "finished.json"
    note.unlink()
    note.mkdir()
    with pytest.raises(TrainingError, match="cannot read or write what it needs") as raised:
        run_training(job, tmp_path / "left")
    assert raised.value.where == f"storage: {job.storage}"


def never() -> None:
    raise AssertionError("trained again")


def grow_old(folder: Path, seconds: float) -> None:
    for path in (folder, *folder.rglob("*")):
        then = path.stat().st_mtime - seconds
        os.utime(path, (then, then))


@pytest.mark.parametrize("where", ["folder", "s3"])
def test_what_is_finished_is_taken_as_often_as_it_is_asked_for(
    make_job: MakeJob, tmp_path: Path, bucket: str, where: str
) -> None:
    job = make_job() if where == "folder" else replace(make_job(), storage=bucket)
    take(job, tmp_path / "first", lambda: train(job, tmp_path))
    clock = take(job, tmp_path / "again", never)
    assert clock["ended"] == 1.0 < clock["returned"]
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == b"weights"
    assert stored(job).names() == ["finished.json", "model-1"]  # what it went on from is gone
    forget(job)
    assert not is_left(job)
    train(job, tmp_path)
    assert forget_all(job.storage)
    assert not Storage.open(job.storage).below("runs").names()
    assert not forget_all(job.storage)


@pytest.mark.parametrize("damage", ["cut off", "no weights", "no note"])
def test_what_a_kill_has_cut_off_is_trained_again(
    make_job: MakeJob, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    job = make_job()
    train(job, tmp_path)
    folder = Path(stored(job).path)
    if damage == "cut off":
        (folder / "model-1" / WEIGHTS).write_bytes(b"wei")
    elif damage == "no weights":
        (folder / "model-1" / WEIGHTS).unlink()
    else:
        (folder / "finished.json").write_bytes(b"")
    seen = []

    def again() -> None:
        seen.extend(stored(job).names())
        train(job, tmp_path)

    take(job, tmp_path / "left", again)
    assert "epoch-00001-a" in seen, "there is nothing to go on from"
    assert (tmp_path / "left" / WEIGHTS).read_bytes() == b"weights"
    assert "its finished model is damaged" in capsys.readouterr().out


def test_a_model_that_is_not_there_after_all_is_an_error(make_job: MakeJob, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="has been trained, but its model is not there"):
        take(make_job(), tmp_path / "left", lambda: None)


def test_only_the_last_model_of_a_training_stays(make_job: MakeJob, tmp_path: Path) -> None:
    jobs = {name: replace(make_job(), identity=name) for name in ("last", "now", "half", "beside")}
    for name in ("last", "half", "beside"):
        train(jobs[name], tmp_path)
    stored(jobs["half"]).remove("finished.json")  # interrupted, and may go on
    for name in ("last", "half"):
        grow_old(Path(stored(jobs[name]).path), 2 * 3600)
    other = make_job(seed=1)
    train(other, tmp_path)
    grow_old(Path(stored(other).path), 2 * 3600)
    take(jobs["now"], tmp_path / "left", lambda: train(jobs["now"], tmp_path))
    assert Storage.open(jobs["now"].checkpoints).names() == ["beside", "half", "now"]
    grow_old(Path(stored(jobs["now"]).path), 2 * 3600)
    take(jobs["now"], tmp_path / "left", never)
    assert is_left(jobs["now"]) and is_left(other)
