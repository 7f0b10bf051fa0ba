"""S3 answers with errors, slowly, and then not at all for a while: what was stored is whole."""

from __future__ import annotations

import hashlib
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest

from components.errors import RegistryError, TrainingError
from components.registry.s3 import S3Store
from components.registry.versions import Registry
from components.training.checkpoint import Storage, check_writable

from .faulty_s3 import FaultyS3
from .runs import Run, epochs_stored, results

StartRun = Callable[..., Run]

pytestmark = pytest.mark.drill
AWAY_SECONDS = 15.0


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """Return a faulty S3 with an empty bucket `lesions`; the AWS variables lead to it."""
    server = FaultyS3()
    for name, value in {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.session.Session().client("s3")
    client.create_bucket(Bucket="lesions")
    yield server
    server.fail_every, server.delay = 0, 0.0
    bucket = boto3.session.Session().resource("s3").Bucket("lesions")
    bucket.objects.all().delete()
    bucket.delete()
    server.stop()


@pytest.fixture
def registry(s3: FaultyS3, tmp_path: Path) -> Registry:  # noqa: ARG001 - the variables
    """Return an empty registry on S3."""
    return Registry(S3Store("s3://lesions/registry"), "tiny", tmp_path / "cache")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Return the files of a version, one of them so large that it goes up in parts."""
    folder = tmp_path / "files"
    folder.mkdir()
    sizes = {"model.safetensors": 9 << 20, "model.json": 100, "card.md": 2_000}
    for name, size in sizes.items():
        (folder / name).write_bytes(hashlib.sha256(name.encode()).digest() * (size // 32))
    return {name: folder / name for name in sizes}


def _promote(registry: Registry, files: dict[str, Path]) -> Path:
    version = registry.publish(files, content_id="one")
    registry.promote(version, registry.alias("champion"), {})
    return registry.fetch(version)


def _assert_sound(registry: Registry, files: dict[str, Path], fetched: Path) -> None:
    assert registry.alias("champion") == "v0001"
    assert [info.name for info in registry.versions()] == ["v0001"]
    assert all((fetched / name).read_bytes() == path.read_bytes() for name, path in files.items())
    assert registry.check() == []


@pytest.mark.slow
def test_a_promotion_among_errors_and_slow_answers(
    s3: FaultyS3, registry: Registry, files: dict[str, Path]
) -> None:
    s3.fail_every, s3.delay = 3, 0.5
    fetched = _promote(registry, files)
    s3.fail_every, s3.delay = 0, 0.0
    _assert_sound(registry, files, fetched)


@pytest.mark.slow
def test_a_promotion_waits_for_an_s3_that_is_away(
    s3: FaultyS3, registry: Registry, files: dict[str, Path]
) -> None:
    assert registry.versions() == []
    back = s3.go_away(AWAY_SECONDS)
    fetched = _promote(registry, files)
    back.join()
    _assert_sound(registry, files, fetched)


def test_a_promotion_waits_for_a_minute(
    s3: FaultyS3, registry: Registry, files: dict[str, Path]
) -> None:
    assert registry.versions() == []
    back = s3.go_away(60)
    fetched = _promote(registry, files)
    back.join()
    _assert_sound(registry, files, fetched)


def test_an_s3_that_never_answered_is_told_within_seconds(
    s3: FaultyS3, registry: Registry, files: dict[str, Path]
) -> None:
    s3.stop()
    started = time.monotonic()
    with pytest.raises(RegistryError, match="the registry cannot be reached"):
        registry.publish(files, content_id="one")
    with pytest.raises(TrainingError, match="checkpoints cannot be stored"):
        check_writable("s3://lesions/storage")
    assert time.monotonic() - started < 30
    s3.go_away(0).join()


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("registry__uri", "the registry cannot be reached"),
        ("storage", "checkpoints cannot be stored"),
    ],
)
def test_a_run_whose_s3_never_answered_trains_nothing(
    untrained: Path,
    start: StartRun,
    s3: FaultyS3,
    edit_params: Callable[..., None],
    place: str,
    words: str,
) -> None:
    edit_params(untrained, **{place: "s3://lesions/place"})
    s3.stop()
    started = time.monotonic()
    run = start(untrained, "lesionflow", "retrain")
    assert run.wait() == 2, run.said
    assert words in run.said
    assert time.monotonic() - started < 60
    assert epochs_stored(untrained) == 0
    s3.go_away(0).join()


@pytest.mark.parametrize("fault", ["errors and slow answers", "away"])
def test_what_goes_to_the_storage_arrives_whole(
    s3: FaultyS3, files: dict[str, Path], tmp_path: Path, fault: str
) -> None:
    # As it reaches a worker: Ray Train sends the storage to it.
    storage = pickle.loads(pickle.dumps(Storage.open("s3://lesions/storage")))
    storage.filesystem.create_dir(storage.path, recursive=True)
    if fault == "away":
        back = s3.go_away(AWAY_SECONDS)
        storage.below("put").put(tmp_path / "files")
        back.join()
    else:
        s3.fail_every, s3.delay = 3, 4.0  # slower than what pyarrow waits for by itself
        storage.below("put").put(tmp_path / "files")
    s3.fail_every, s3.delay = 0, 0.0
    storage.below("put").fetch(tmp_path / "fetched")
    for name, path in files.items():
        assert (tmp_path / "fetched" / name).read_bytes() == path.read_bytes()


def test_a_whole_run_among_errors_and_while_s3_is_away_for_a_minute(
    untrained: Path,
    expected: dict[str, str],
    start: StartRun,
    s3: FaultyS3,
    edit_params: Callable[..., None],
) -> None:
    edit_params(untrained, storage="s3://lesions/storage")
    # Not every third: this test asks, too, and all attempts at one request could fall on thirds.
    s3.fail_every = 10
    run = start(untrained, "lesionflow", "retrain")
    client = boto3.session.Session().client("s3")

    def stored() -> bool:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket="lesions")
        return any("/epoch-00001" in o["Key"] for page in pages for o in page.get("Contents", ()))

    run.wait_until(stored)
    back = s3.go_away(60)
    assert run.wait() == 0, run.said
    back.join()
    s3.fail_every = 0
    assert epochs_stored(untrained) == 0
    assert results(untrained) == expected
    left = [item["Key"] for item in client.list_objects_v2(Bucket="lesions").get("Contents", ())]
    assert not [key for key in left if "/epoch-" in key], "checkpoints are left on S3"
    assert [key for key in left if key.endswith("/finished.json")]  # until the next one has ended
