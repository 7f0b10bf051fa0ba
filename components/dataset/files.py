"""Reading an image file that was measured before: it must still be the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from components.dataset.originals import Original, list_originals
from components.errors import SourceError


def measured_files(image_ids: Iterable[str], folder: Path) -> dict[str, Original]:
    """Return image id -> where its file lies in the archives of `folder`.

    Raises
    ------
    SourceError
        One is gone, or an archive is damaged.
    """
    there = list_originals(folder)
    wanted = list(image_ids)
    gone = next((image_id for image_id in wanted if image_id not in there), None)
    if gone is not None:
        raise _not_as_measured(gone, "it is gone", folder)
    return {image_id: there[image_id] for image_id in wanted}


def read_measured(file: Original, sha256: str) -> bytes:
    """Return the bytes of `file`, whose hash `measure` found to be `sha256`.

    Raises
    ------
    SourceError
        The bytes are others by now, or cannot be read.
    """
    data = file.read()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise changed(file, "it changed since it was measured")
    return data


def changed(file: Original, what: str) -> SourceError:
    """Return the error for a file that is not what `measure` found."""
    return _not_as_measured(file.name, what, file.archive)


def _not_as_measured(name: str, what: str, where: Path) -> SourceError:
    return SourceError(
        f"image file {name}: {what}",
        where=str(where),
        fix="run the stages `ingest` and `measure` again",
    )
