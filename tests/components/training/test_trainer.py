"""One training on a real Ray cluster; what goes wrong there is in test_faults.py."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.backbones.saved import load_model
from components.dataset.pack import PackedImages
from components.errors import ResourceError, TrainingError
from components.training.job import HISTORY, PROBABILITIES, WEIGHTS, Job
from components.training.loop import Training, fit
from components.training.trainer import run_training
from components.training.transfer import ship

MakeJob = Callable[..., Job]

pytestmark = pytest.mark.usefixtures("connected")


def test_training_on_ray_is_the_training_in_this_process(
    make_job: MakeJob,
    make_training: Callable[[Job], Training],
    tmp_path: Path,
) -> None:
    job = make_job(epochs=2)
    clock = run_training(job, tmp_path / "left")
    order = ("submitted", "entered", "first_step", "last_step", "ended", "returned")
    assert [clock[name] for name in order] == sorted(clock.values())

    here = make_training(job)
    fit(here, lambda _: None)
    assert json.loads((tmp_path / "left" / HISTORY).read_text()) == here.history

    model = load_model(tmp_path / "left", device="cpu")
    state = model.networks[0].state_dict()
    assert all((state[name] == value).all() for name, value in here.best_state.items())
    packed = PackedImages.open(job.packed)
    stored = np.load(tmp_path / "left" / PROBABILITIES)
    expected = model.predict_proba(packed.images, rows=job.validation.rows)
    np.testing.assert_array_equal(stored, expected)
    stored = sorted(path.name for path in Path(job.checkpoints, job.identity).iterdir())
    assert [name.partition("-")[0] for name in stored] == ["finished.json", "model"], stored
    again = run_training(job, tmp_path / "again")
    assert [again[name] == clock[name] for name in ("ended", "returned")] == [True, False]
    assert content(tmp_path / "again") == content(tmp_path / "left")


def test_where_several_nodes_may_train_each_worker_says_which_one_it_is_on(
    make_job: MakeJob, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    here = make_job(epochs=1)
    run_training(here, tmp_path / "here")
    anywhere = ship(replace(make_job(epochs=1, num_workers=2), identity="anywhere"))
    run_training(anywhere, tmp_path / "anywhere")
    said, deadline = "", time.monotonic() + 30
    # What workers print reaches this process some time later, also after their training's end.
    while said.count("trains on") < 2 and time.monotonic() < deadline:
        said += capfd.readouterr().out
        time.sleep(0.1)
    told = re.findall(r"(\S+: .*trains on \S+)$", said, re.MULTILINE)
    assert sorted(told) == [
        f"{here.name}: worker {number} of 2 trains on 127.0.0.1" for number in (1, 2)
    ]


@pytest.mark.slow
def test_a_finished_model_that_was_damaged_is_made_again_with_the_same_bits(
    make_job: MakeJob, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = make_job(epochs=1)
    first = run_training(job, tmp_path / "first")
    weights = next(Path(job.checkpoints, job.identity).glob(f"model-*/{WEIGHTS}"))
    weights.write_bytes(weights.read_bytes()[:-1])
    mended = run_training(job, tmp_path / "mended")
    assert mended["submitted"] > first["returned"]
    assert content(tmp_path / "mended") == content(tmp_path / "first")
    assert f"is damaged ({WEIGHTS} has a wrong checksum)" in capfd.readouterr().out


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_error_in_a_worker_arrives_as_it_was_raised(make_job: MakeJob, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no longer a number") as raised:
        run_training(make_job(learning_rate=1e30, warmup=0.0), tmp_path / "left")
    assert "lower learning_rate" in raised.value.fix
    assert not (tmp_path / "left" / WEIGHTS).exists()


def test_divergence_that_validation_finds_is_one_error_and_no_lost_worker(
    make_job: MakeJob, tmp_path: Path
) -> None:
    job = make_job("resnet18", batch_size=96, learning_rate=1e30, warmup=0.0)
    with pytest.raises(TrainingError, match=r"validation part any more \(epoch 1, ") as raised:
        run_training(job, tmp_path / "left")
    assert "lower learning_rate" in raised.value.fix


def test_model_that_cannot_be_described_is_one_error_and_no_lost_worker(
    make_job: MakeJob, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = replace(make_job(epochs=1), malignant=("wart",))
    with pytest.raises(TrainingError, match="malignant: only names of classes") as raised:
        run_training(job, tmp_path / "left")
    assert "params.yaml" in raised.value.fix
    assert "goes on after epoch" not in capfd.readouterr().out  # which a second attempt would say


@pytest.mark.parametrize(
    "asked", [{"cpus_per_worker": 64.0}, {"num_workers": 5, "cpus_per_worker": 1.0}]
)
def test_more_than_the_cluster_has_is_refused_at_once(
    make_job: MakeJob, tmp_path: Path, asked: dict[str, float]
) -> None:
    with pytest.raises(ResourceError, match="the Ray cluster has 2 CPU on 1 node"):
        run_training(make_job(**asked), tmp_path / "left")


def test_gpus_that_are_not_there_are_refused_at_once(make_job: MakeJob, tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"1 GPU each do not fit.*0 GPU"):
        run_training(make_job(gpus_per_worker=1.0), tmp_path / "left")
