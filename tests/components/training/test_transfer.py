import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.backbones.weights import WeightsFile
from components.dataset.pack import PackedImages
from components.training.job import Job
from components.training.transfer import node_cache, receive, ship

MakeJob = Callable[..., Job]


@pytest.fixture
def job(make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "node"))
    weights = tmp_path / "weights" / "some.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"tensors")
    digest = hashlib.sha256(b"tensors").hexdigest()
    return replace(make_job(), weights=WeightsFile(weights, "here", sha256=digest))


def elsewhere(job: Job) -> Job:
    """Return `job` as a node sees it that does not have the driver's paths."""
    nowhere = Path("/nowhere/on/this/node")
    assert job.weights.path is not None
    weights = replace(job.weights, path=nowhere / job.weights.path.name)
    return replace(job, packed=nowhere, weights=weights)


def test_node_gets_what_it_lacks_once(job: Job) -> None:
    received = receive(elsewhere(ship(job)))
    packed = PackedImages.open(received.packed)
    np.testing.assert_array_equal(packed.images, PackedImages.open(job.packed).images)
    assert received.weights.path is not None
    assert received.weights.path.read_bytes() == b"tensors"
    assert received.packed.is_relative_to(node_cache())
    images = received.packed / "images.npy"
    before = images.stat().st_ino
    again = receive(elsewhere(ship(job)))
    assert again.packed == received.packed and images.stat().st_ino == before


def test_node_with_the_drivers_disk_fetches_nothing(job: Job) -> None:
    assert receive(ship(job)).packed == job.packed
    assert not node_cache().exists()


def test_other_weights_under_the_same_path_are_not_taken_for_ours(job: Job) -> None:
    shipped = ship(job)
    assert job.weights.path is not None
    job.weights.path.write_bytes(b"others")
    received = receive(shipped)
    assert received.weights.path is not None
    assert received.weights.path.read_bytes() == b"tensors"


@pytest.mark.parametrize("name", ["other.safetensors", "other.pth"])
def test_the_same_weights_under_another_name_are_found(job: Job, tmp_path: Path, name: str) -> None:
    receive(elsewhere(ship(job)))
    path = tmp_path / "weights" / name
    path.write_bytes(b"tensors")
    received = receive(elsewhere(ship(replace(job, weights=replace(job.weights, path=path)))))
    assert received.weights.path is not None
    assert received.weights.path.read_bytes() == b"tensors"
    assert received.weights.path.suffix == path.suffix  # which says how it is opened


def test_job_that_was_not_shipped_is_left_alone(job: Job) -> None:
    assert receive(job) is job


def test_packed_set_that_does_not_hold_together_is_not_taken_for_ours(
    job: Job, tmp_path: Path
) -> None:
    shipped = ship(job)
    other = tmp_path / "other"
    other.mkdir()
    for path in job.packed.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    document = (other / "spec.json").read_text()
    (other / "spec.json").write_text(document.replace(str(shipped.packed_id), "0" * 64))
    received = receive(replace(shipped, packed=other))
    assert received.packed.is_relative_to(node_cache())


def test_half_shipped_content_is_shipped_again(job: Job) -> None:
    shipped = ship(job)
    target = Path(job.storage, "content", f"packed-{shipped.packed_id}")
    (target / "whole").unlink()
    (target / "images.npy").write_bytes(b"half")
    received = receive(elsewhere(ship(job)))
    assert len(PackedImages.open(received.packed).images) == 120
