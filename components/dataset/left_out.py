"""Pictures that are not taken because the recipe maps their diagnosis onto null.

They are remembered by their bytes: where the same picture is taken under a class, from another
source or from the same one, that is a label conflict like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd

Row = Mapping[str, Any]
Note = dict[str, str]

LEFT_OUT = "left_out_images"
"""Where the manifest names them."""
LEFT_OUT_COLUMNS = ("image_id", "patient_id", "lesion_id", "diagnosis", "source", "sha256")
"""What is remembered of one; the diagnosis as the source spells it."""


def left_out_of(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what a snapshot remembers of the pictures that it left out."""
    return list(manifest.get(LEFT_OUT, []))


def remembers_left_out(manifest: Mapping[str, Any]) -> bool:
    """Return whether no picture was left out of a snapshot that it does not remember."""
    return LEFT_OUT in manifest or not any(fact["left_out"] for fact in manifest["sources"])


def find_conflicts(
    left_out: Iterable[Row], rows: Iterable[Row], shows_something: Callable[[Row], bool]
) -> list[Note]:
    """Return the label conflicts between what was left out and what was taken.

    Parameters
    ----------
    left_out
        Pictures with `LEFT_OUT_COLUMNS`.
    rows
        Of the pictures that were taken.
    shows_something
        Row -> whether its file is a picture; equal files that show nothing are not one picture.
    """
    by_id = {str(row["image_id"]): row for row in rows}
    by_bytes: dict[str, list[Row]] = {}
    for _, row in sorted(by_id.items()):
        if _has_file(row):
            by_bytes.setdefault(row["sha256"], []).append(row)
    found = []
    for other in left_out:
        named = by_id.get(other["image_id"])
        equal = by_bytes.get(other["sha256"], []) if _has_file(other) else []
        same = [row for row in equal if row is named or shows_something(row)]
        if named is not None and not (_has_file(named) and _has_file(other)):
            same.append(named)
        found += [_note(row, other) for row in same]
    return found


def _has_file(row: Row) -> bool:
    return bool(pd.notna(row["sha256"]))


def _note(row: Row, other: Row) -> Note:
    return {
        "image_id": row["image_id"],
        "diagnosis": row["diagnosis"],
        "source": row["source"],
        "other_image_id": other["image_id"],
        "other_diagnosis": other["diagnosis"],
        "other_source": other["source"],
    }
