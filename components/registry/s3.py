"""A registry on S3, or on anything that speaks like it (`AWS_ENDPOINT_URL`).

S3 has no rename and no locks, but conditional writes: `If-None-Match` creates an object only where
there is none, `If-Match` replaces it only in the state that one has seen. A version's number is
claimed by creating its `claim.json`; its files follow, and `checksums.json` last makes it complete.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock

from components.errors import RegistryError
from components.registry.checksums import Checksums, damaged, parse_checksums, problems_of
from components.registry.s3_errors import explained
from components.registry.s3_uploads import abort_upload, unfinished_uploads
from components.registry.store import (
    MARKER,
    VERSIONS,
    Content,
    Leftover,
    Tagged,
    version_name,
    version_number,
)

CLAIM = "claim.json"
STALE_AFTER = timedelta(hours=1)
"""An unfinished version that nothing was added to for so long is a leftover; so is an upload in
parts whose last part is that old."""
_UPLOAD = "#upload="
_CONNECT_SECONDS, _READ_SECONDS = 5, 60
FIRST_ATTEMPTS, ATTEMPTS = 4, 20
"""Of one request: a wrong address is told within seconds; an S3 that has answered, and then is away
for a minute, is waited for. botocore draws each pause evenly from 0 to 1, 2, 4, 8, 16, then 20
seconds: of 12 attempts, every seventh time all of them were over before the minute was."""
PARTS_AT_ONCE = 4
"""Of one file. All requests of a client share botocore's quota of retries, 500 in all at 5 each:
with its ten parts at once, that would be used up before the attempts are."""


class S3Store:
    """A registry below `s3://bucket/prefix`.

    Parameters
    ----------
    uri
        Bucket and prefix.
    stale_after
        See `STALE_AFTER`.
    """

    def __init__(self, uri: str, stale_after: timedelta = STALE_AFTER) -> None:
        self._uri = uri.rstrip("/")
        self._bucket, _, prefix = self._uri.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._stale_after = stale_after
        self._has_answered = False

    @property
    def uri(self) -> str:
        return self._uri

    # --- small files -----------------------------------------------------------------------
    def read(self, key: str) -> Tagged | None:
        with self._talking(key):
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
                return Tagged(answer["Body"].read(), str(answer["ETag"]))
            except self._client.exceptions.NoSuchKey:
                return None

    def write(self, key: str, data: bytes, *, expected: str | None) -> bool:
        from botocore.exceptions import ClientError

        condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": expected}
        with self._talking(key):
            try:
                self._client.put_object(
                    Bucket=self._bucket, Key=self._prefix + key, Body=data, **condition
                )
            except ClientError as error:
                # 412: another state; 409: somebody is writing it now; 404: it was removed.
                if error.response["ResponseMetadata"]["HTTPStatusCode"] not in (404, 409, 412):
                    raise
                if error.response["Error"]["Code"] == "NoSuchBucket":
                    raise
                # A write whose answer was lost is sent again, and then meets itself.
                found = self.read(key)
                return found is not None and found.data == data
        return True

    def names(self, prefix: str) -> list[str]:
        return sorted(
            key.removeprefix(f"{prefix}/")
            for key in self._objects(f"{prefix}/")
            if "/" not in key.removeprefix(f"{prefix}/")
        )

    def digest(self, key: str) -> tuple[str, int] | None:
        digest, size = hashlib.sha256(), 0
        with self._talking(key):
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
            except self._client.exceptions.NoSuchKey:
                return None
            for block in answer["Body"].iter_chunks(1 << 20):
                digest.update(block)
                size += len(block)
        return digest.hexdigest(), size

    # --- versions ----------------------------------------------------------------------------
    def versions(self) -> list[str]:
        complete = [
            key.split("/")[1]
            for key in self._objects(f"{VERSIONS}/")
            if key.endswith(f"/{MARKER}") and version_number(key.split("/")[1])
        ]
        return sorted(complete, key=version_number)

    def add_version(
        self, files: Mapping[str, Content], above: int, existing: Callable[[], str | None]
    ) -> str:
        claim = json.dumps({"id": uuid.uuid4().hex}).encode()
        name = self._claim(claim, above)
        known = existing()
        if known is not None:
            self._delete([f"{VERSIONS}/{name}/{CLAIM}"])
            return known
        for file in sorted(set(files) - {MARKER}):
            self._upload(f"{VERSIONS}/{name}/{file}", files[file])
        marker = files[MARKER]
        if isinstance(marker, Path):
            marker = marker.read_bytes()
        self._complete(name, claim, marker)
        return name

    def _claim(self, claim: bytes, above: int) -> str:
        taken = {version_number(key.split("/")[1]) for key in self._objects(f"{VERSIONS}/")}
        number = max([above, *taken]) + 1
        while not self.write(f"{VERSIONS}/{version_name(number)}/{CLAIM}", claim, expected=None):
            number += 1
        return version_name(number)

    def _complete(self, name: str, claim: bytes, marker: bytes) -> None:
        """Write the marker, if everything is still there: a repair may have taken us for dead."""
        place = f"{VERSIONS}/{name}"
        sizes = self._objects(f"{place}/")
        sums = parse_checksums(marker, where=f"{self._uri}/{place}")
        whole = all(
            sizes.get(f"{place}/{file}", {}).get("Size") == expected.size
            for file, expected in sums.files.items()
        )
        own = self.read(f"{place}/{CLAIM}")
        if own is None or own.data != claim or not whole:
            raise RegistryError(
                f"{name} was removed while it was being uploaded",
                where=f"{self._uri}/{place}",
                fix="run the same command again",
            )
        if not self.write(f"{place}/{MARKER}", marker, expected=None):
            raise RegistryError(
                f"{name} was completed by somebody else",
                where=f"{self._uri}/{place}",
                fix="`lesionflow registry check` verifies it; run the same command again",
            )
        self._delete([f"{place}/{CLAIM}"])

    def open_version(self, name: str, cache: Path) -> Path:
        place = f"{self._uri}/{VERSIONS}/{name}"
        marker = self.read(f"{VERSIONS}/{name}/{MARKER}")
        if marker is None:
            raise RegistryError(
                f"there is no version {name}", where=place, fix="`lesionflow models` lists them"
            )
        sums = parse_checksums(marker.data, where=place)
        digest = hashlib.sha256(marker.data).hexdigest()
        cache.mkdir(parents=True, exist_ok=True)
        folder, fetched = cache / digest, cache / f".new-{digest}"
        with FileLock(cache / f"{digest}.lock"):  # processes of this machine share the cache
            if folder.is_dir():
                if not list(problems_of(folder, sums)):
                    return folder
                shutil.rmtree(folder)
            shutil.rmtree(fetched, ignore_errors=True)  # of a process that was killed
            try:
                self._fetch(name, sums, fetched)
                (fetched / MARKER).write_bytes(marker.data)
                fetched.rename(folder)
            finally:
                shutil.rmtree(fetched, ignore_errors=True)
        return folder

    def _fetch(self, name: str, sums: Checksums, folder: Path) -> None:
        """Download the files of a version and compare them with their checksums."""
        place = f"{VERSIONS}/{name}"
        there = self._objects(f"{place}/")
        for file in sums.files:
            if f"{place}/{file}" not in there:
                raise damaged(f"{self._uri}/{place}", f"{file} is missing")
            self._download(f"{place}/{file}", folder / file)
        for problem in problems_of(folder, sums):
            raise damaged(f"{self._uri}/{place}", problem)

    def remove_version(self, name: str) -> None:
        self._delete([f"{VERSIONS}/{name}/{MARKER}"])
        self._delete(list(self._objects(f"{VERSIONS}/{name}/")))

    # --- what crashes leave --------------------------------------------------------------------
    def leftovers(self) -> list[Leftover]:
        objects = self._objects(f"{VERSIONS}/")
        complete = set(self.versions())
        newest: dict[str, Any] = {}
        for key, found in objects.items():
            name = key.split("/")[1]
            newest[name] = max(newest.get(name, found["LastModified"]), found["LastModified"])
        now = self._server_time()
        return (
            [
                Leftover(
                    f"{VERSIONS}/{name}",
                    f"no {MARKER} in it; last written {time:%Y-%m-%d %H:%M} UTC",
                    in_use=now - time < self._stale_after,
                )
                for name, time in sorted(newest.items())
                if name not in complete
            ]
            + [
                Leftover(
                    f"{VERSIONS}/{name}/{CLAIM}", "a claim that was not taken back", in_use=False
                )
                for name in sorted(complete)
                if f"{VERSIONS}/{name}/{CLAIM}" in objects
            ]
            + self._unfinished_uploads(now)
        )

    def _unfinished_uploads(self, now: Any) -> list[Leftover]:
        with self._talking(""):
            uploads = unfinished_uploads(self._client, self._bucket, self._prefix)
        return [
            Leftover(
                f"{one.key.removeprefix(self._prefix)}{_UPLOAD}{one.upload_id}",
                f"an unfinished upload; last written {one.last_written:%Y-%m-%d %H:%M} UTC",
                in_use=now - one.last_written < self._stale_after,
            )
            for one in uploads
        ]

    def remove_leftover(self, leftover: Leftover) -> None:
        key, is_upload, upload_id = leftover.name.partition(_UPLOAD)
        if is_upload:
            with self._talking(key):
                abort_upload(self._client, self._bucket, self._prefix + key, upload_id)
        elif leftover.name.endswith(CLAIM):
            self._delete([leftover.name])
        else:
            self._delete(list(self._objects(f"{leftover.name}/")))

    # --- S3 ----------------------------------------------------------------------------------
    @property
    def _client(self) -> Any:
        return self._patient if self._has_answered else self._first

    @cached_property
    def _first(self) -> Any:
        return self._connect(FIRST_ATTEMPTS)

    @cached_property
    def _patient(self) -> Any:
        return self._connect(ATTEMPTS)

    def _connect(self, attempts: int) -> Any:
        import boto3
        from botocore.config import Config

        config = Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retries={"total_max_attempts": attempts, "mode": "standard"},
        )
        return boto3.session.Session().client("s3", config=config)

    @cached_property
    def _transfers(self) -> Any:
        from boto3.s3.transfer import TransferConfig

        return TransferConfig(max_concurrency=PARTS_AT_ONCE)

    @contextmanager
    def _talking(self, key: str) -> Iterator[None]:
        """Turn what S3 answers into errors that say what to do."""
        with explained(f"{self._uri}/{key}".rstrip("/"), self._bucket):
            yield
        self._has_answered = True

    def _objects(self, prefix: str) -> dict[str, dict[str, Any]]:
        """Return key -> size and time of what lies below `prefix`."""
        found: dict[str, dict[str, Any]] = {}
        with self._talking(prefix):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for entry in page.get("Contents", ()):
                    found[str(entry["Key"]).removeprefix(self._prefix)] = entry
        return found

    def _server_time(self) -> Any:
        with self._talking(""):
            answer = self._client.list_objects_v2(
                Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1
            )
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])

    def _upload(self, key: str, content: Content) -> None:
        with self._talking(key):
            if isinstance(content, Path):
                self._client.upload_file(
                    str(content), self._bucket, self._prefix + key, Config=self._transfers
                )
            else:
                self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=content)

    def _download(self, key: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._talking(key):
            self._client.download_file(
                self._bucket, self._prefix + key, str(path), Config=self._transfers
            )

    def _delete(self, keys: list[str]) -> None:
        with self._talking(""):
            for start in range(0, len(keys), 1000):
                batch = [{"Key": self._prefix + key} for key in keys[start : start + 1000]]
                self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": batch})
