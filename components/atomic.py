"""Files that are either the old one or the new one, never half of one."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.errors import ResourceError
from components.left_behind import owned


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in `path`'s folder; move it to `path` when the block succeeds.

    The block writes the file; it is flushed to disk before the rename. When the block raises, the
    temporary file is removed and `path` stays as it was.

    Raises
    ------
    ResourceError
        The disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = owned(half_written(path))
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with disk_full_as_error(path):
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def half_written(path: Path) -> str:
    """Return how the names of `path`'s temporary files begin, for `remove_left_behind`."""
    return f".{path.name}."


@contextmanager
def disk_full_as_error(path: Path) -> Iterator[None]:
    """Turn "no space left on device" below `path` into one clear error."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ResourceError(
            "no space left on the disk",
            where=str(path),
            fix="free some space and run the same command again; nothing half-written was kept",
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, document: Any) -> None:
    """Write `document` as indented JSON with sorted keys (same content, same bytes)."""
    write_text(path, json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n")
