"""`checksums.json`: what makes a version complete, and proves that it is undamaged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from components.errors import RegistryError
from components.registry.store import MARKER, Content
from components.settings import Settings


class FileSum(Settings):
    """Of one file of a version."""

    sha256: str
    size: int


class Checksums(Settings):
    """What `checksums.json` says."""

    schema_version: Literal[1] = 1
    content_id: str
    """Hash of the model and of the data that it was judged on; the same for the same content."""
    created_at: str
    """UTC, ISO 8601."""
    files: dict[str, FileSum]

    def to_bytes(self) -> bytes:
        return (self.model_dump_json(indent=2) + "\n").encode()


def checksums_of(files: Mapping[str, Content], *, content_id: str, created_at: str) -> Checksums:
    """Return the checksums of `files`."""
    sums = {name: _sum_of(content) for name, content in sorted(files.items())}
    return Checksums(content_id=content_id, created_at=created_at, files=sums)


def parse_checksums(data: bytes, *, where: str) -> Checksums:
    """Read the file.

    Raises
    ------
    RegistryError
        It is damaged.
    """
    try:
        return Checksums.model_validate_json(data)
    except ValidationError as error:
        raise damaged(where, f"{MARKER} is damaged") from error


def verify(folder: Path, where: str) -> Checksums:
    """Compare every file of a version with its checksum.

    Raises
    ------
    RegistryError
        A file is missing or has other bytes than were published.
    """
    try:
        sums = parse_checksums((folder / MARKER).read_bytes(), where=where)
    except FileNotFoundError as error:
        raise damaged(where, f"{MARKER} is missing") from error
    for problem in problems_of(folder, sums):
        raise damaged(where, problem)
    return sums


def problems_of(folder: Path, sums: Checksums) -> Iterator[str]:
    """Yield what is wrong with the files of a version."""
    for name, expected in sums.files.items():
        path = folder / name
        if not path.is_file():
            yield f"{name} is missing"
        elif path.stat().st_size != expected.size:
            yield f"{name} has {path.stat().st_size} bytes, it was published with {expected.size}"
        elif sha256_of(path) != expected.sha256:
            yield f"{name} has other bytes than were published (its checksum differs)"


def damaged(where: str, what: str) -> RegistryError:
    """Return the error of a version that cannot be trusted."""
    return RegistryError(
        f"the version is damaged: {what}",
        where=where,
        fix="`lesionflow registry check` lists what is damaged; go back to a good version with "
        "`lesionflow rollback`, or copy the file back from a backup",
    )


def sha256_of(content: Content) -> str:
    """Return the SHA-256 of a file or of bytes, in hex."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _sum_of(content: Content) -> FileSum:
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    return FileSum(sha256=sha256_of(content), size=size)


def canonical_hash(document: Any) -> str:
    """Return the SHA-256 of a JSON document, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
