"""What is different on S3: credentials, the network, uploads, the local copies."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import boto3
import pytest
from botocore.retries.quota import RetryQuota
from botocore.retries.standard import ExponentialBackoff, RetryContext, RetryQuotaChecker

from components.errors import RegistryError
from components.registry.s3 import ATTEMPTS, FIRST_ATTEMPTS, PARTS_AT_ONCE, S3Store
from components.registry.versions import Registry

Files = Callable[[str], dict[str, bytes]]


@pytest.fixture
def registry(s3_bucket: str, tmp_path: Path) -> Registry:
    """Return an empty registry on S3."""
    return Registry(S3Store(f"s3://{s3_bucket}/deep/prefix"), "tiny", tmp_path / "cache")


def test_a_bucket_that_is_not_there_is_named(s3_bucket: str) -> None:  # noqa: ARG001
    store = S3Store("s3://no-such-bucket/registry")
    for ask in (lambda: store.read("x"), store.versions, lambda: _write(store)):
        with pytest.raises(RegistryError, match="there is no bucket 'no-such-bucket'"):
            ask()


def test_without_credentials_the_message_names_the_variables(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(RegistryError, match="no complete credentials") as raised:
        S3Store(f"s3://{s3_bucket}").read("x")
    assert "AWS_ACCESS_KEY_ID" in raised.value.fix


class _Answering(BaseHTTPRequestHandler):
    """Answers every request alike; counts them."""

    status, code = 503, "SlowDown"
    requests: list[str]

    def do_GET(self) -> None:
        self.requests.append(self.path)
        body = f"<Error><Code>{self.code}</Code><Message>{self.code}</Message></Error>".encode()
        self.send_response(self.status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def answering(
    s3_bucket: str,  # noqa: ARG001 - sets the credentials
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[int, str], list[str]]]:
    """Return what starts an S3 that always answers with one error; it returns the requests."""
    servers = []

    def start(status: int, code: str) -> list[str]:
        requests: list[str] = []
        kind = type("Kind", (_Answering,), {"status": status, "code": code, "requests": requests})
        server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
        servers.append(server)
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        return requests

    yield start
    for server in servers:
        server.shutdown()


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied"])
def test_wrong_credentials_are_said_to_be_refused(answering: Any, code: str) -> None:
    requests = answering(403, code)
    with pytest.raises(RegistryError, match=rf"refuses these credentials \({code}\)"):
        S3Store("s3://some-bucket/registry").read("x")
    assert len(requests) == 1, "what cannot pass is not tried again"


def test_what_may_pass_is_tried_again_with_pauses(answering: Any) -> None:
    requests = answering(503, "SlowDown")
    started = time.monotonic()
    with pytest.raises(RegistryError, match="SlowDown"):
        S3Store("s3://some-bucket/registry").read("x")
    assert len(requests) > 2
    assert time.monotonic() - started > 0.2


def test_a_server_that_is_not_there_gives_one_clear_error(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(RegistryError, match="cannot be reached") as raised:
        S3Store(f"s3://{s3_bucket}").read("x")
    assert "AWS_ENDPOINT_URL" in raised.value.fix


def test_a_version_is_fetched_once_and_a_spoilt_copy_again(
    registry: Registry, files_of: Files
) -> None:
    registry.publish(files_of("one"), content_id="one")
    folder = registry.fetch("v0001")
    inode = (folder / "model.json").stat().st_ino
    assert registry.fetch("v0001") == folder
    assert (folder / "model.json").stat().st_ino == inode
    (folder / "model.json").write_text('"spoilt"')
    assert (registry.fetch("v0001") / "model.json").read_text() == '"one"'


def test_what_was_damaged_on_s3_is_found_although_a_good_copy_is_here(
    registry: Registry, files_of: Files
) -> None:
    registry.publish(files_of("one"), content_id="one")
    registry.fetch("v0001")
    found = registry.store.read("versions/v0001/model.json")
    assert found is not None
    registry.store.write("versions/v0001/model.json", b'"eno"', expected=found.tag)
    assert [finding["kind"] for finding in registry.check()] == ["damaged version"]


def test_a_large_file_goes_up_and_down_in_parts(registry: Registry, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(bytes(range(256)) * (9 << 12))  # 9 MiB: above boto3's limit for one part
    parts: list[str] = []
    assert registry.versions() == []  # from its first answer on, the store keeps one client
    client = registry.store._client  # type: ignore[attr-defined]
    client.meta.events.register("before-call.s3.UploadPart", lambda **_: parts.append("part"))
    registry.publish({"model.safetensors": large}, content_id="large")
    assert len(parts) > 1
    assert (registry.fetch("v0001") / "model.safetensors").read_bytes() == large.read_bytes()


def test_no_more_parts_are_under_way_than_the_quota_of_retries_has_room_for(
    registry: Registry, tmp_path: Path
) -> None:
    large = tmp_path / "large"
    large.write_bytes(bytes((PARTS_AT_ONCE + 3) * 8 << 20))  # in parts of 8 MiB
    assert registry.versions() == []
    events = registry.store._client.meta.events  # type: ignore[attr-defined]
    lock, under_way, most = Lock(), 0, 0

    def begin(**_: object) -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.1)

    def end(**_: object) -> None:
        nonlocal under_way
        with lock:
            under_way -= 1

    for name in ("UploadPart", "GetObject"):
        events.register(f"before-call.s3.{name}", begin)
        events.register(f"after-call.s3.{name}", end)
    registry.publish({"model.safetensors": large}, content_id="large")
    assert 1 < most <= PARTS_AT_ONCE
    most = 0
    registry.fetch("v0001")
    assert 1 < most <= PARTS_AT_ONCE


def test_an_s3_that_has_answered_is_asked_as_often_as_that_takes_and_a_first_one_is_not(
    s3_bucket: str,
) -> None:
    store = S3Store(f"s3://{s3_bucket}")
    attempts = []
    for _ in range(2):
        attempts.append(store._client.meta.config.retries["total_max_attempts"])
        assert store.versions() == []
    assert attempts == [FIRST_ATTEMPTS, ATTEMPTS]


def test_an_upload_under_way_is_left_alone_and_an_old_one_removed(s3_bucket: str) -> None:
    store = S3Store(f"s3://{s3_bucket}")
    assert store._claim(b"mine", 0) == "v0001"
    assert [leftover.in_use for leftover in store.leftovers()] == [True]
    late = S3Store(f"s3://{s3_bucket}", stale_after=timedelta(0))
    (leftover,) = late.leftovers()
    assert not leftover.in_use
    late.remove_leftover(leftover)
    assert store.leftovers() == []


def test_parts_of_a_large_file_whose_upload_was_killed_are_found_and_removed(
    s3_bucket: str, tmp_path: Path
) -> None:
    client = boto3.session.Session().client("s3")
    key = "deep/prefix/versions/v0001/model.safetensors"
    where: dict[str, Any] = {"Bucket": s3_bucket, "Key": key}
    upload = client.create_multipart_upload(**where)["UploadId"]
    client.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"a part")
    client.create_multipart_upload(Bucket=s3_bucket, Key="elsewhere/model.safetensors")

    def registry(age: timedelta) -> Registry:
        store = S3Store(f"s3://{s3_bucket}/deep/prefix", stale_after=age)
        return Registry(store, "tiny", tmp_path / "cache")

    assert registry(timedelta(hours=1)).check(repair=True) == [], "somebody may be uploading it"
    (found,) = registry(timedelta(0)).check()
    assert found["kind"] == "leftover" and "unfinished upload" in found["detail"]
    assert found["name"].startswith("versions/v0001/model.safetensors")
    (repaired,) = registry(timedelta(0)).check(repair=True)
    assert repaired["repaired"]
    left = client.list_multipart_uploads(Bucket=s3_bucket)["Uploads"]
    assert [entry["Key"] for entry in left] == ["elsewhere/model.safetensors"]


def test_who_was_taken_for_dead_does_not_complete_a_version(
    registry: Registry, files_of: Files
) -> None:
    """A repair removed the upload while it stood still: it must not become half a version."""
    store = registry.store
    assert isinstance(store, S3Store)
    late = S3Store(store.uri, stale_after=timedelta(0))

    def repair(**_: object) -> None:
        for leftover in late.leftovers():
            late.remove_leftover(leftover)

    assert registry.versions() == []  # from its first answer on, the store keeps one client
    client: Any = store._client
    uploads: list[int] = []

    def after_upload(**_: object) -> None:
        uploads.append(1)
        if len(uploads) == 2:  # the claim was the first
            repair()

    client.meta.events.register("after-call.s3.PutObject", after_upload)
    with pytest.raises(RegistryError, match="removed while it was being uploaded"):
        registry.publish(files_of("one"), content_id="one")
    assert registry.versions() == []


def test_a_write_whose_answer_was_lost_counts_as_done(registry: Registry) -> None:
    """The client sends it again; the second time it meets its own first write."""
    store: Any = registry.store
    assert store.write("aliases/a.json", b"one", expected=None)
    assert store.write("aliases/a.json", b"one", expected=None)
    assert not store.write("aliases/a.json", b"two", expected=None)
    found = store.read("aliases/a.json")
    assert found.data == b"one"
    assert not store.write("aliases/gone.json", b"two", expected=found.tag)


def test_another_prefix_of_the_bucket_is_another_registry(
    registry: Registry, files_of: Files, s3_bucket: str, tmp_path: Path
) -> None:
    registry.publish(files_of("one"), content_id="one")
    beside = Registry(S3Store(f"s3://{s3_bucket}/deep/prefix2"), "tiny", tmp_path / "cache")
    assert beside.versions() == []
    keys = boto3.session.Session().client("s3").list_objects_v2(Bucket=s3_bucket)["Contents"]
    assert all(entry["Key"].startswith("deep/prefix/versions/v0001/") for entry in keys)


def _write(store: S3Store) -> bool:
    return store.write("x", b"data", expected=None)


def test_an_s3_that_is_away_for_a_minute_is_waited_for_whatever_the_pauses_that_are_drawn() -> None:
    backoff = ExponentialBackoff(random=random.Random(0).random)
    pauses = [RetryContext(attempt_number=number) for number in range(1, ATTEMPTS)]
    waits = [sum(map(backoff.delay_amount, pauses)) for _ in range(10_000)]
    assert sum(wait < 60 for wait in waits) <= 10
    quota = RetryQuotaChecker(RetryQuota())
    for pause in pauses * PARTS_AT_ONCE:
        pause.request_context = {}
        assert quota.acquire_retry_quota(pause), "the quota of retries ends before the attempts"
