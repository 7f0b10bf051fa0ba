"""Images that this clone knows by id and hash, in its snapshot or not any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

import pandas as pd

from components.dataset.left_out import left_out_of
from components.dataset.snapshot import read_manifest
from components.dataset.withdrawn import ID_COLUMNS
from components.layout import Layout
from components.splitting.ledger import read_ledger
from components.tables import read_table

_EMPTY_FILE = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def known_images(layout: Layout, exposures: Sequence[pd.DataFrame] = ()) -> pd.DataFrame:
    """Return ids and hashes of every image in the snapshot, the split's ledger or `exposures`.

    The snapshot also knows pictures that it left out for their diagnosis; the ledger has what took
    part in a split at any time, whatever became of its source.
    """
    columns = [*ID_COLUMNS, "sha256"]
    tables = [*exposures, read_ledger(layout.split_ledger).rows]
    if layout.labels.is_file():
        tables.append(read_table(layout.labels, columns))
    if layout.manifest.is_file():
        tables.append(pd.DataFrame(left_out_of(read_manifest(layout.manifest)), columns=columns))
    text = [table.reindex(columns=columns).astype("str") for table in tables if len(table)]
    if not text:
        return pd.DataFrame(columns=columns, dtype="str")
    return pd.concat(text, ignore_index=True).drop_duplicates(ignore_index=True)


def concerned(
    known: pd.DataFrame, ids: Mapping[str, Set[str]], sha256: Set[str] = frozenset()
) -> tuple[set[str], set[str]]:
    """Return ids and hashes of the images that have one of `ids` (column -> values) or `sha256`.

    With an image goes every other one of the same bytes, unless these are none.
    """
    by_id = pd.Series(False, index=known.index)
    for column, values in ids.items():
        by_id |= known[column].isin(values)
    hashes = (set(known.loc[by_id, "sha256"].dropna()) | sha256) - {_EMPTY_FILE}
    images = set(known.loc[by_id | known["sha256"].isin(hashes), "image_id"].dropna())
    return images | ids["image_id"], hashes
