"""Files from S3 and the web, each brought to a node once.

Several processes of one node may want the same file: the first one fetches it under a lock, the
others find it. A file appears under its name only when it is whole and has the hash in its name.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from components.atomic import atomic_path
from components.errors import WeightsError
from components.progress import Progress

CONNECT_SECONDS = 5.0
"""A machine without internet access shall fail within seconds."""
_HASH = re.compile(r"-([0-9a-f]{8,64})\.(?:pth|pt|safetensors)$")
_MB = 1 << 20


def default_cache() -> Path:
    """Return the node's own folder for fetched weights."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "lesionflow" / "weights"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hex.

    Raises
    ------
    WeightsError
        The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(
            f"the file cannot be read: {error.strerror or error}",
            where=str(path),
            fix="check that it is there, its permissions and its disk",
        ) from error


def check_name(path: Path, digest: str, *, origin: str, name: str | None = None) -> None:
    """Compare `digest` with the hash that a name such as `mobilenet_v2-b0353104.pth` carries.

    Raises
    ------
    WeightsError
        They differ: the file is damaged or another one.
    """
    found = _HASH.search(name or path.name)
    if found and not digest.startswith(found[1]):
        raise WeightsError(
            f"{found[0][1:]} says that the SHA-256 begins with {found[1]}, but it is {digest}",
            where=origin,
            fix="the file is damaged or is another one: fetch it again",
        )


def is_s3(location: str) -> bool:
    """Whether `location` is an `s3://` URI."""
    return location.startswith("s3://")


def fetch(folder: str, name: str, cache: Path, base: Path | None = None) -> Path | None:
    """Return the local path of `name` in a folder or below an `s3://` prefix; None: not there.

    A relative folder starts from `base` (default: the current one).
    """
    if is_s3(folder):
        return s3_fetch(f"{folder.rstrip('/')}/{name}", cache)
    path = ((base or Path.cwd()) / Path(folder).expanduser() / name).resolve()
    return path if path.is_file() else None


def s3_fetch(uri: str, cache: Path) -> Path | None:
    """Bring an S3 object to the node; None where there is no such object.

    The object is kept under its ETag, which changes with its content.

    Raises
    ------
    WeightsError
        S3 cannot be reached, refuses, or what came is not what the name's hash says.
    """
    etag = s3_etag(uri)
    if etag is None:
        return None
    bucket, key = _bucket_and_key(uri)
    target = cache / "s3" / hashlib.sha256(f"{uri} {etag}".encode()).hexdigest() / Path(key).name

    def download(temporary: Path) -> None:
        with _s3_errors(uri), temporary.open("wb") as file:
            client = _s3_client()
            client.download_fileobj(bucket, key, file)
            # Was it the one that was asked about, or has another one come in between?
            client.head_object(Bucket=bucket, Key=key, IfMatch=f'"{etag}"')

    return _once(target, download, origin=uri)


def s3_etag(uri: str) -> str | None:
    """Return the ETag of an S3 object, which changes with its content; None: there is none.

    Raises
    ------
    WeightsError
        S3 cannot be reached, or refuses.
    """
    from botocore.exceptions import ClientError

    bucket, key = _bucket_and_key(uri)
    with _s3_errors(uri):
        try:
            return str(_s3_client().head_object(Bucket=bucket, Key=key)["ETag"]).strip('"')
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in ("404", "NoSuchKey", "NotFound"):
                return None
            raise


def _bucket_and_key(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def _s3_client() -> Any:
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(  # the shared session is not made for threads
        "s3",
        config=Config(
            connect_timeout=CONNECT_SECONDS,
            retries={"mode": "standard", "total_max_attempts": 3},
        ),
    )


@contextmanager
def _s3_errors(uri: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise WeightsError(
            f"S3 does not answer as it should: {error}",
            where=uri,
            fix="check the URI, the AWS variables (AWS_ENDPOINT_URL too) and the network",
        ) from error


def web_fetch(url: str, cache: Path, name: str) -> Path:
    """Bring a published file to the node under the file name `name`.

    Raises
    ------
    OSError
        The web cannot be reached or has no such file; the text says why.
    WeightsError
        What came is not what the name's hash says.
    """
    return _once(cache / "web" / name, lambda temporary: _download(url, temporary), origin=url)


def _download(url: str, temporary: Path) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "lesionflow"})
    try:
        with (
            urllib.request.urlopen(request, timeout=CONNECT_SECONDS) as answer,
            temporary.open("wb") as file,
        ):
            _copy(answer, file, int(answer.headers.get("Content-Length") or 0), url)
    except http.client.HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def _copy(answer: Any, file: IO[bytes], total: int, url: str) -> None:
    done, last = 0, 0.0
    while block := answer.read(_MB):
        file.write(block)
        done += len(block)
        if time.monotonic() - last > 0.5 or done == total:
            last = time.monotonic()
            print(Progress("weights", done // _MB, total // _MB, "MB", url), flush=True)
    if total and done != total:
        raise OSError(f"the connection ended after {done} of {total} bytes")


def _once(target: Path, download: Callable[[Path], None], *, origin: str) -> Path:
    """Return `target`; where it is not there yet, let `download` write it, under a lock."""
    from filelock import FileLock

    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f"{target.name}.lock")):
            if not target.is_file():
                with atomic_path(target) as temporary:
                    download(temporary)
                    check_name(target, sha256_of(temporary), origin=origin)
    return target
