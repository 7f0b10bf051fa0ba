"""Files under an `s3://bucket/prefix`; AWS's variables mean what they mean everywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from components.atomic import atomic_path
from components.dataset.sources.copies import DOWNLOADS
from components.dataset.sources.files import digest_of, is_noise
from components.errors import SourceError

_CONNECTIONS = 16
_ATTEMPTS = 3


class S3Files:
    """The objects below a prefix; a prefix that is an object's whole key gives that object."""

    def __init__(self, uri: str, cache: Path) -> None:
        self.where = uri
        self._cache = cache
        self._bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        self._prefix = prefix.strip("/")

    def names(self) -> Sequence[str]:
        """Return the keys below the prefix, without it."""
        return sorted(self._objects)

    def read(self, name: str) -> bytes:
        """Return an object's bytes; a broken connection is tried again."""
        from botocore.exceptions import HTTPClientError, IncompleteReadError

        key, etag = self._objects[name]
        with _errors(self.where):
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    answer = self._client.get_object(Bucket=self._bucket, Key=key, IfMatch=etag)
                    return bytes(answer["Body"].read())
                except (HTTPClientError, IncompleteReadError):
                    if attempt == _ATTEMPTS:
                        raise
        raise AssertionError  # it returned or raised

    def local_path(self, name: str) -> Path:
        """Download an object (an archive) into the caches, once for its ETag."""
        key, etag = self._objects[name]
        version = hashlib.sha256(f"{self._bucket}/{key}/{etag}".encode()).hexdigest()
        target = self._cache / DOWNLOADS / version / PurePosixPath(name).name
        if not target.exists():
            print(f"downloading s3://{self._bucket}/{key}", flush=True)
            with _errors(self.where), atomic_path(target) as temporary:
                self._client.download_file(self._bucket, key, str(temporary))
                # Its parts were of one version; was it the one that was listed?
                self._client.head_object(Bucket=self._bucket, Key=key, IfMatch=etag)
        return target

    def fingerprint(self) -> str:
        """Return a hash of keys and ETags; no object is read."""
        return digest_of({name: etag for name, (_, etag) in self._objects.items()})

    @cached_property
    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        # How often it tries again is AWS_MAX_ATTEMPTS, or what boto3 thinks right.
        config = Config(
            retries={"mode": "standard"}, max_pool_connections=_CONNECTIONS, connect_timeout=10
        )
        with _errors(self.where):
            return boto3.client("s3", config=config)

    @cached_property
    def _objects(self) -> dict[str, tuple[str, str]]:
        """Name -> key and ETag."""
        found: dict[str, tuple[str, str]] = {}
        with _errors(self.where):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix
            )
            for page in pages:
                for item in page.get("Contents", ()):
                    name = self._name(item["Key"])
                    if name and not any(map(is_noise, name.split("/"))):
                        found[name] = (item["Key"], item["ETag"])
        if not found:
            raise SourceError(
                f"the source does not exist: nothing lies at {self.where}",
                where="sources in params.yaml",
                fix="correct the bucket and the prefix",
            )
        return found

    def _name(self, key: str) -> str:
        """Return the key without the prefix; empty for what only begins like it."""
        if key == self._prefix:
            return PurePosixPath(key).name
        if key.endswith("/"):
            return ""
        if not self._prefix:
            return key
        return key[len(self._prefix) + 1 :] if key.startswith(f"{self._prefix}/") else ""


@contextmanager
def _errors(where: str) -> Iterator[None]:
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError, Boto3Error) as error:
        raise SourceError(
            f"S3 cannot be read: {error}",
            where=where,
            fix="check the bucket, the credentials (AWS_ACCESS_KEY_ID, AWS_PROFILE …) and "
            "AWS_ENDPOINT_URL",
        ) from error
