"""Groups: the images that must never be divided between training and judgement.

Two images belong to one group when they share a patient, a lesion or their bytes, or when they are
a pair of near-duplicates; and so on transitively. The group is the unit of splitting, of the
bootstrap, and of every question "has this been trained on?".
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.errors import TableError
from components.tables import PAIR_COLUMNS, require_columns

Components = npt.NDArray[np.int64]
ID_KINDS = (("patient", "patient_id"), ("lesion", "lesion_id"), ("image", "image_id"))
_JOINING = ("patient_id", "lesion_id", "sha256")


def clean_ids(values: pd.Series) -> pd.Series:
    """Return ids as `str` objects without surrounding blanks, None where there is no id.

    Whole numbers lose the `.0` that a CSV column with gaps gives them, so that `7` in one table
    is `7` in another one.
    """
    return pd.Series([_clean(value) for value in values], index=values.index, dtype=object)


def _clean(value: object) -> str | None:
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip() or None


def connect(
    labels: pd.DataFrame, pairs: pd.DataFrame | None = None, *, by: Sequence[str] = _JOINING
) -> Components:
    """Number the connected components of images that share an id or are a pair.

    Parameters
    ----------
    labels
        One row per image: `image_id`, and what there is of the columns `by`.
    pairs
        Near-duplicates (`image_id_a`, `image_id_b`); every row counts, whatever its evidence.
    by
        Columns of ids.

    Returns
    -------
    ndarray of int64, shape (len(labels),)
        Component of each row. Rows with the same `image_id` share one.

    Raises
    ------
    TableError
        `pairs` names an image that `labels` has not.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows = np.arange(len(labels))
    sources, targets, num_nodes = [], [], len(labels)
    for column in ("image_id", *(name for name in by if name in labels.columns)):
        codes, uniques = pd.factorize(clean_ids(labels[column]))
        has_id = codes >= 0
        sources.append(rows[has_id])
        targets.append(codes[has_id] + num_nodes)
        num_nodes += len(uniques)
    if pairs is not None and len(pairs):
        first, second = _pair_rows(labels, pairs)
        sources.append(first)
        targets.append(second)
    source, target = np.concatenate(sources), np.concatenate(targets)
    graph = coo_array((np.ones(len(source), bool), (source, target)), shape=(num_nodes, num_nodes))
    component = connected_components(graph, directed=False)[1]
    return np.asarray(component[: len(labels)], dtype=np.int64)


def _pair_rows(labels: pd.DataFrame, pairs: pd.DataFrame) -> tuple[Components, Components]:
    """Return the positions in `labels` of both images of every pair."""
    require_columns(pairs, PAIR_COLUMNS[:2], where="the table of near-duplicate pairs")
    index = pd.Index(clean_ids(labels["image_id"]))
    found = [index.get_indexer(clean_ids(pairs[name])) for name in PAIR_COLUMNS[:2]]
    unknown = np.flatnonzero((found[0] < 0) | (found[1] < 0))
    if len(unknown):
        shown = pairs.iloc[unknown[0]]
        raise TableError(
            f"{len(unknown)} near-duplicate pairs name an image that the labels have not, "
            f"such as {shown['image_id_a']} and {shown['image_id_b']}",
            where="the table of near-duplicate pairs",
            fix="make pairs and labels of the same snapshot: run `dvc repro pairs`",
        )
    return found[0], found[1]


def known_by_bytes(
    labels: pd.DataFrame, quality: pd.DataFrame, left_out: Container[str]
) -> pd.DataFrame:
    """Return `labels` without the sha256 of files that are left out and show nothing.

    Equal files are one picture and join the groups that they lie in. Files that are cut off, error
    pages that were saved as pictures, and pictures of one colour are equal without being one.

    Parameters
    ----------
    labels
        One row per image: `image_id`, `sha256`.
    quality
        What was measured: `image_id`, `decodes`, `contrast`.
    left_out
        Ids of the quarantined images.
    """
    shows = quality["decodes"].astype(bool) & (quality["contrast"] > 0)
    showing = set(quality.loc[shows, "image_id"])
    keeps = [image in showing or image not in left_out for image in labels["image_id"]]
    return labels.assign(sha256=labels["sha256"].where(pd.Series(keeps, index=labels.index)))


def name_groups(
    images: pd.DataFrame,
    component: Components,
    *,
    usable: pd.Series,
    first_seen: Mapping[str, int],
) -> pd.Series:
    """Return the `group_id` of every row of `images`.

    A group bears the name of one member: `patient:<id>`, else `lesion:<id>`, else `image:<id>` of
    its first image. First is what came first into the ledger, so that a group keeps its name when
    it grows; among images that are new, the smallest `image_id` that takes part. The order of
    rows does not matter.

    Parameters
    ----------
    images
        One row per image, with unique `image_id`.
    component
        Result of `connect`, shape (len(images),).
    usable
        Whether each image takes part (quarantined ones do not).
    first_seen
        Member key (`lesion:<id>` and the like) -> its first line in the ledger.
    """
    image_ids = clean_ids(images["image_id"])
    best: dict[int, tuple[tuple[object, ...], str]] = {}
    for rank, (kind, column) in enumerate(ID_KINDS):
        rows = zip(component.tolist(), clean_ids(images[column]), image_ids, usable, strict=True)
        for number, value, image_id, is_usable in rows:
            if value is None:
                continue
            key = f"{kind}:{value}"
            line = first_seen.get(key)
            order = (1, not is_usable, image_id, rank) if line is None else (0, line, "", rank)
            if number not in best or order < best[number][0]:
                best[number] = (order, key)
    names = [best[number][1] for number in component.tolist()]
    return pd.Series(names, index=images.index, name="group_id", dtype=object)


def joined_only_by_pairs(labels: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `pairs` that joined images which no declared id holds together."""
    declared = connect(labels)
    first, second = _pair_rows(labels, pairs)
    joining = np.flatnonzero(declared[first] != declared[second])
    return pairs.iloc[joining].reset_index(drop=True)


def first_lines(frame: pd.DataFrame) -> dict[str, int]:
    """Return each member key of `frame` with the number of the first row that has it."""
    lines: dict[str, int] = {}
    for kind, column in ID_KINDS:
        for number, value in enumerate(clean_ids(frame[column])):
            if value is not None:
                lines.setdefault(f"{kind}:{value}", number)
    return lines
