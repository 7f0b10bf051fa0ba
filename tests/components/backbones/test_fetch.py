"""Files come to a node once, whole, and with the hash that their name carries."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from components.backbones import fetch
from components.backbones.fetch import check_name, s3_etag, s3_fetch, sha256_of, web_fetch
from components.errors import WeightsError

DATA = b"tensors" * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()


def test_the_hash_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(DATA)
    assert sha256_of(tmp_path / "f") == SHA256


def test_a_file_that_cannot_be_read_is_one_clear_error() -> None:
    with pytest.raises(WeightsError, match=r"cannot be read: Input/output error(.|\n)*/proc/self"):
        sha256_of(Path("/proc/self/mem"))


@pytest.mark.parametrize("name", ["net-0123456789.pth", "net-89abcdef.safetensors"])
def test_a_name_with_another_hash_is_refused(name: str) -> None:
    with pytest.raises(WeightsError, match=f"begins with .*{SHA256}"):
        check_name(Path(name), SHA256, origin="there")


@pytest.mark.parametrize(
    "name", [f"net-{SHA256[:8]}.pth", "net.pth", "mobilenetv1_100-fp16.pth", "net-v2.safetensors"]
)
def test_a_name_with_the_hash_or_none_is_taken(name: str) -> None:
    check_name(Path(name), SHA256, origin="there")


def test_the_web_is_asked_once(web: Any, own_caches: Path) -> None:
    name = f"net-{SHA256[:8]}.pth"
    (web.root / name).write_bytes(DATA)
    paths = [web_fetch(f"{web.url}/{name}", own_caches, name) for _ in range(2)]
    assert paths[0] == paths[1]
    assert paths[0].read_bytes() == DATA
    assert web.requests == [f"/{name}"]


def test_many_at_once_fetch_once(web: Any, own_caches: Path) -> None:
    (web.root / "net.pth").write_bytes(DATA)
    found: list[Path] = []

    def work() -> None:
        found.append(web_fetch(f"{web.url}/net.pth", own_caches, "net.pth"))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert web.requests == ["/net.pth"]


def test_what_came_damaged_is_not_kept(web: Any, own_caches: Path) -> None:
    (web.root / "net-00000000.pth").write_bytes(DATA)
    with pytest.raises(WeightsError, match=r"net-00000000\.pth"):
        web_fetch(f"{web.url}/net-00000000.pth", own_caches, "net-00000000.pth")
    assert [p.suffix for p in (own_caches / "web").iterdir()] in ([], [".lock"])


def test_what_is_not_on_the_web_is_an_oserror(web: Any, own_caches: Path) -> None:
    with pytest.raises(OSError, match="404"):
        web_fetch(f"{web.url}/net.pth", own_caches, "net.pth")


def test_s3_is_asked_for_the_content_once_until_it_changes(s3: Any, own_caches: Path) -> None:
    s3.put_object(Bucket="weights", Key="deep/net.pth", Body=DATA)
    first = s3_fetch("s3://weights/deep/net.pth", own_caches)
    assert first is not None
    assert first.read_bytes() == DATA
    os.utime(first, (1, 1))
    assert s3_fetch("s3://weights/deep/net.pth", own_caches) == first
    assert first.stat().st_mtime == 1  # not written again
    s3.put_object(Bucket="weights", Key="deep/net.pth", Body=b"newer")
    second = s3_fetch("s3://weights/deep/net.pth", own_caches)
    assert second is not None
    assert second.read_bytes() == b"newer"


def test_an_object_that_is_replaced_while_it_is_fetched_is_not_kept_as_the_first(
    s3: Any, own_caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put_object(Bucket="weights", Key="net.pth", Body=DATA)
    first = s3_etag("s3://weights/net.pth")
    monkeypatch.setattr(fetch, "s3_etag", lambda _: first)  # asked just before
    s3.put_object(Bucket="weights", Key="net.pth", Body=b"newer")
    with pytest.raises(WeightsError, match="412"):
        s3_fetch("s3://weights/net.pth", own_caches)
    assert not list(own_caches.rglob("net.pth"))


@pytest.mark.usefixtures("s3")
def test_what_is_not_in_s3_is_none_and_a_bucket_that_is_not_there_too(own_caches: Path) -> None:
    assert s3_fetch("s3://weights/net.pth", own_caches) is None
    assert s3_fetch("s3://no-such-bucket/net.pth", own_caches) is None


def test_an_s3_that_does_not_answer_is_an_error(
    own_caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with pytest.raises(WeightsError, match=r"S3 does not answer(.|\n)*AWS_ENDPOINT_URL"):
        s3_fetch("s3://weights/net.pth", own_caches)
