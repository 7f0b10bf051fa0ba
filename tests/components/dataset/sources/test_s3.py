"""A source on S3, against a server on loopback."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from components.dataset.config import SourceParams
from components.dataset.sources.catalog import fingerprint_source
from components.errors import SourceError


@pytest.fixture
def bucket(s3: None) -> Iterator[Any]:  # noqa: ARG001 - the server runs
    found = boto3.resource("s3").Bucket("skin")
    found.create()
    yield found
    found.objects.all().delete()
    found.delete()


def put(bucket, prefix: str, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        bucket.put_object(Key=f"{prefix}{name}", Body=data)


def test_a_prefix_is_a_folder(bucket, read, jpeg) -> None:
    files = {"train/nv/1.jpg": jpeg(1), "test/mel/2.jpg": jpeg(2)}
    put(bucket, "sets/folders/", files)
    put(bucket, "sets/folders-2/", {"other/3.jpg": jpeg(3)})
    for uri in ("s3://skin/sets/folders", "s3://skin/sets/folders/"):
        images = read("class_folders", uri)
        assert list(images.labels["image_id"]) == ["test__mel__2", "train__nv__1"]
        assert images.read(images.files["train__nv__1"]) == jpeg(1)


def test_an_archive_on_s3_is_fetched_once(bucket, read, jpeg, tmp_path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("nv/1.jpg", jpeg(1))
    put(bucket, "", {"folders.zip": out.getvalue()})
    for _ in range(2):
        images = read("class_folders", "s3://skin/folders.zip")
        assert images.read(images.files["nv__1"]) == jpeg(1)
    assert len(list((tmp_path / "cache" / "downloads").rglob("*.zip"))) == 1


def test_the_fingerprint_follows_the_content(bucket, tmp_path, jpeg) -> None:
    source = SourceParams(kind="class_folders", uri="s3://skin/a")

    def look() -> str:
        return fingerprint_source(source, tmp_path, tmp_path / "cache")

    put(bucket, "a/", {"nv/1.jpg": jpeg(1)})
    first = look()
    put(bucket, "a/", {"nv/1.jpg": jpeg(1)})
    assert look() == first
    put(bucket, "a/", {"nv/1.jpg": jpeg(2)})
    changed = look()
    put(bucket, "a/", {"nv/2.jpg": jpeg(2)})
    assert len({first, changed, look()}) == 3


def test_an_object_that_changes_while_it_is_read_is_noticed(bucket, read, jpeg) -> None:
    put(bucket, "a/", {"nv/1.jpg": jpeg(1)})
    images = read("class_folders", "s3://skin/a")
    put(bucket, "a/", {"nv/1.jpg": jpeg(2)})
    with pytest.raises(SourceError, match="S3 cannot be read"):
        images.read(images.files["nv__1"])


@pytest.mark.parametrize(
    ("uri", "what"),
    [("s3://skin/nothing", "nothing lies at s3://skin/nothing"), ("s3://gone/x", "NoSuchBucket")],
)
@pytest.mark.usefixtures("bucket")
def test_what_is_not_there_is_named(read, uri, what) -> None:
    with pytest.raises(SourceError) as error:
        read("class_folders", uri)
    assert what in error.value.what


@pytest.mark.usefixtures("bucket")
def test_an_unreachable_server_says_what_to_check(read, monkeypatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(SourceError) as error:
        read("class_folders", "s3://skin/a")
    assert "AWS_ENDPOINT_URL" in error.value.fix
