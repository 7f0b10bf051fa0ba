"""What a split came to, in a few numbers, and what an image-level split would have leaked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from components.tables import PARTS


def split_summary(splits: pd.DataFrame, labels: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one row per diagnosis, and one for all: groups and images of each part.

    Returns
    -------
    list of dict
        `diagnosis`, `groups`, `images`, `left_out` (images), and `<part>_groups`,
        `<part>_images` for train, validation and test. A group with several diagnoses counts in
        each of their rows, and once in the last row, `all`.
    """
    table = (
        labels[["image_id", "diagnosis"]].astype({"diagnosis": str}).merge(splits, on="image_id")
    )
    rows = [_counts(str(name), part) for name, part in table.groupby("diagnosis")]
    return [*rows, _counts("all", table)]


def _counts(name: str, table: pd.DataFrame) -> dict[str, Any]:
    taking_part = table[table["split"].notna()]
    row: dict[str, Any] = {
        "diagnosis": name,
        "groups": int(taking_part["group_id"].nunique()),
        "images": len(taking_part),
        "left_out": len(table) - len(taking_part),
    }
    for part in PARTS:
        chosen = taking_part[taking_part["split"] == part]
        row[f"{part}_groups"] = int(chosen["group_id"].nunique())
        row[f"{part}_images"] = len(chosen)
    return row


def image_level_leak(
    splits: pd.DataFrame, labels: pd.DataFrame, seed: int, repeats: int = 20
) -> dict[str, float]:
    """Return what a split of images, blind to groups, would have leaked.

    The usual recipe is tried `repeats` times: the images of each diagnosis are shuffled and cut
    by the shares that train and test have in `splits`. An image of test leaks when another image
    of its group is in train.

    Returns
    -------
    dict
        Diagnosis (and `all`) -> mean share, 0 to 1, of its test images that leak; NaN where no
        test image would be left.
    """
    table = (
        labels[["image_id", "diagnosis"]].astype({"diagnosis": str}).merge(splits, on="image_id")
    )
    table = table[table["split"].notna()].sort_values("image_id", ignore_index=True)
    diagnosis, names = pd.factorize(table["diagnosis"], sort=True)
    group = pd.factorize(table["group_id"])[0]
    size = np.bincount(diagnosis, minlength=len(names))
    start = np.concatenate(([0], np.cumsum(size)[:-1]))
    train, test = (float((table["split"] == part).mean()) for part in ("train", "test"))
    generator = np.random.default_rng(seed)
    leaks, tests = np.zeros(len(names)), np.zeros(len(names))
    for _ in range(repeats):
        order = np.lexsort((generator.random(len(table)), diagnosis))
        place = np.empty(len(table))
        place[order] = (np.arange(len(table)) - start[diagnosis[order]] + 0.5) / size[
            diagnosis[order]
        ]
        in_train, in_test = place < train, place >= 1 - test
        trained = np.zeros(group.max(initial=-1) + 1, bool)
        trained[group[in_train]] = True
        leaks += np.bincount(diagnosis[in_test & trained[group]], minlength=len(names))
        tests += np.bincount(diagnosis[in_test], minlength=len(names))
    shares = {
        str(n): k / t if t else float("nan") for n, k, t in zip(names, leaks, tests, strict=True)
    }
    total = tests.sum()
    return shares | {"all": float(leaks.sum() / total) if total else float("nan")}
