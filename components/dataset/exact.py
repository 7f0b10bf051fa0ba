"""Pictures that are the same to the last bit, as files or as pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import pandas as pd

from components.dataset.decode import UndecodableImage, decode_rgb
from components.dataset.files import changed, read_measured
from components.dataset.originals import Original

_MEASURES = ["width", "height", "phash", "brightness", "contrast", "sharpness", "colourfulness"]


def same_bytes(quality: pd.DataFrame) -> list[tuple[str, str]]:
    """Return image ids of the same file content, each with the next one of its kind."""
    return _chain(group["image_id"].tolist() for _, group in quality.groupby("sha256"))


def same_pixels(quality: pd.DataFrame, files: Mapping[str, Original]) -> list[tuple[str, str]]:
    """Return image ids of the same pixels in different bytes, each with the next of its kind.

    Only pictures with the same measures are decoded. Of pictures with the same bytes the first
    stands for all.

    Raises
    ------
    SourceError
        A file changed since it was measured.
    """
    once = quality.drop_duplicates("sha256")
    alike = once[once.duplicated(_MEASURES, keep=False)]
    ids: dict[str, list[str]] = {}
    for image_id, sha256 in zip(alike["image_id"], alike["sha256"], strict=True):
        ids.setdefault(_hash_pixels(files[image_id], sha256), []).append(image_id)
    return _chain(ids.values())


def _hash_pixels(file: Original, sha256: str) -> str:
    try:
        picture = decode_rgb(read_measured(file, sha256)).upright()
    except UndecodableImage as error:
        raise changed(file, f"it was measured, and cannot be decoded: {error}") from error
    return hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()


def _chain(groups: Iterable[Sequence[str]]) -> list[tuple[str, str]]:
    return [pair for group in groups for pair in pairwise(sorted(group))]
