"""Reading an image file that was measured before: it must still be the same."""

from __future__ import annotations

import hashlib
from pathlib import Path

from components.errors import SourceError


def read_measured(path: Path, sha256: str) -> bytes:
    """Return the bytes of `path`, whose hash `measure` found to be `sha256`.

    Raises
    ------
    SourceError
        The file is gone, or is another one by now.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise changed(path, "it is gone") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise changed(path, "it changed since it was measured")
    return data


def changed(path: Path, what: str) -> SourceError:
    """Return the error for a file that is not what `measure` found."""
    return SourceError(
        f"image file {path.name}: {what}",
        where=str(path),
        fix="run the stages `ingest` and `measure` again",
    )
