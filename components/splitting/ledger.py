"""The ledger: which image, lesion and patient belongs to which part, for ever.

A CSV file in Git with one line per image that took part in a split. It is read by the split stage
and never written by it: the flow appends what was new after a run has succeeded. A line is never
changed or removed. An image is known by its bytes (sha256), or by its lesion or patient; by its
`image_id` only where one side has no sha256 (a listed file that was absent).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from components.atomic import write_text
from components.errors import SplitError, TableError
from components.splitting.groups import clean_ids, first_lines
from components.tables import PARTS, require_columns

LEDGER_COLUMNS = ("image_id", "sha256", "patient_id", "lesion_id", "part")
STRENGTH = {"train": 0, "validation": 1, "test": 2}
"""The stronger part wins a group that several want: nothing that touches test is trained on."""
SAVED_ANEW = (
    "if it is the same picture saved anew (in another quality or size), give the file of then as "
    "the source; to go on with the new files, empty data/split_ledger.csv down to its header and "
    "set another registry.model_name"
)
"""What to do about images that `Ledger.dealt_anew` names."""
PART_OF_STRENGTH: dict[float, str] = {strength: part for part, strength in STRENGTH.items()}


@dataclass(frozen=True)
class Ledger:
    """What earlier runs fixed; `rows` has `LEDGER_COLUMNS`, with None for a missing id."""

    rows: pd.DataFrame

    @staticmethod
    def empty() -> Ledger:
        return Ledger(pd.DataFrame({name: pd.Series(dtype=object) for name in LEDGER_COLUMNS}))

    def first_seen(self) -> dict[str, int]:
        """Return each member key (`lesion:<id>` and the like) with its first line."""
        return first_lines(self.rows)

    def claims(self, labels: pd.DataFrame) -> pd.DataFrame:
        """Return the parts that each row of `labels` belonged to before.

        The bytes decide; else the image's own id where a sha256 is missing; else its lesion and
        its patient, which may have been in several parts.

        Returns
        -------
        DataFrame with the index of `labels`
            `weakest` and `strongest` of these parts, as numbers of `STRENGTH`; NaN where the row
            is new. Both are the same for an image that the ledger itself has.
        """
        has_bytes = labels["sha256"].notna()
        nameless = Ledger(self.rows[self.rows["sha256"].isna()])
        found = self._range("sha256", labels)
        for rows, chosen in ((nameless, has_bytes), (self, ~has_bytes)):
            found = found.fillna(rows._range("image_id", labels).where(chosen))
        patient, lesion = (self._range(name, labels) for name in ("patient_id", "lesion_id"))
        weakest = patient["weakest"].combine(lesion["weakest"], np.fmin)
        strongest = patient["strongest"].combine(lesion["strongest"], np.fmax)
        return found.fillna(pd.DataFrame({"weakest": weakest, "strongest": strongest}))

    def dealt_anew(self, labels: pd.DataFrame) -> dict[str, str]:
        """Return the images that came back under their old id with a file that is unknown here.

        Bytes are what an image is known by, so these are new images for the split, even when
        somebody only saved the same pictures in another quality. Not among them are images that
        a lesion or patient ties to what had the id, images whose bytes had another id, and those
        that were absent once and are known by their id. The answer is the same after the present
        split was appended.

        Returns
        -------
        dict
            Image id -> the part of what had this id first.
        """
        known = self.rows.dropna(subset=["sha256"])
        known_by_id = self.rows["image_id"][self.rows["sha256"].isna()]
        ids = ["image_id", "sha256", "patient_id", "lesion_id"]
        now = pd.DataFrame({name: clean_ids(labels[name]) for name in ids}).dropna(subset=ids[:2])
        present = set(zip(now["image_id"], now["sha256"], strict=True))
        elsewhere = {
            sha256
            for image_id, sha256 in zip(known["image_id"], known["sha256"], strict=True)
            if (image_id, sha256) not in present
        }
        first = known.drop_duplicates("image_id").set_index("image_id")
        before = now["image_id"].map(first["sha256"])
        changed = before.notna() & (before != now["sha256"])
        changed &= ~(now["sha256"].isin(elsewhere) | now["image_id"].isin(known_by_id))
        both = now[changed].merge(known, on="image_id", suffixes=("", "_then"))
        both = both[both["sha256"] != both["sha256_then"]]
        tied = pd.Series(False, index=both.index)
        for name in ("patient_id", "lesion_id"):
            tied |= both[name].notna() & (both[name] == both[f"{name}_then"])
        anew = set(both["image_id"]) - set(both.loc[tied, "image_id"])
        return {image_id: str(first.at[image_id, "part"]) for image_id in sorted(anew)}

    def _range(self, column: str, labels: pd.DataFrame) -> pd.DataFrame:
        """Return the least and greatest strength that the ledger has for `column`'s ids."""
        strength = self.rows["part"].map(STRENGTH).astype(float)
        of_id = strength.groupby(self.rows[column]).agg(["min", "max"])
        ids = clean_ids(labels[column])
        return pd.DataFrame(
            {
                "weakest": ids.map(of_id["min"]).astype(float),
                "strongest": ids.map(of_id["max"]).astype(float),
            }
        )


def read_ledger(path: Path) -> Ledger:
    """Read the ledger; a file that does not exist is an empty one.

    Raises
    ------
    TableError
        The file is no table, lacks a column, or names a part that does not exist.
    SplitError
        The same bytes stand in two parts (a hand edit, or a merge of two histories).
    """
    if not path.is_file():
        return Ledger.empty()
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise TableError(
            f"the split ledger cannot be read: {str(error).splitlines()[0]}",
            where=str(path),
            fix="take back the last good version from Git",
        ) from error
    require_columns(rows, LEDGER_COLUMNS, where=str(path))
    strange = rows.index[~rows["part"].isin(PARTS)]
    if len(strange):
        raise TableError(
            f"unknown part {rows['part'][strange[0]]!r}",
            where=f"{path}, line {strange[0] + 2}",
            fix=f"a part is one of {', '.join(PARTS)}; take back the last good version from Git",
        )
    cleaned = rows[list(LEDGER_COLUMNS)].apply(clean_ids)
    _refuse_contradictions(cleaned, path)
    return Ledger(cleaned)


def _refuse_contradictions(rows: pd.DataFrame, path: Path) -> None:
    parts = rows[rows["sha256"].notna()].groupby("sha256")["part"].nunique()
    twice = set(parts.index[parts > 1])
    if twice:
        row = rows[rows["sha256"].isin(twice)].iloc[0]
        raise SplitError(
            f"{len(twice)} image(s) stand in two parts, such as {row['image_id']}",
            where=f"{path} (sha256 {row['sha256']})",
            fix="keep the line with test, else the one with validation; or take back the last "
            "good version from Git",
        )


def append(path: Path, splits: pd.DataFrame, labels: pd.DataFrame) -> int:
    """Add what `splits` has and the ledger has not; return the number of new lines.

    Only images that are in a part are recorded. The file is replaced atomically under a lock;
    what stood in it keeps its bytes. Appending the same split again does nothing, and splitting
    again with the longer ledger gives the same split.

    Raises
    ------
    SplitError
        `splits` puts an image into another part than the ledger does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        ledger = read_ledger(path)
        taking_part = splits.loc[splits["split"].notna(), ["image_id", "split"]]
        new = taking_part.merge(labels, on="image_id", how="left", validate="one_to_one")
        _refuse_moves(ledger, new, path)
        lines = new.rename(columns={"split": "part"})[list(LEDGER_COLUMNS)].apply(clean_ids)
        old = set(ledger.rows.itertuples(index=False, name=None))
        is_known = [row in old for row in lines.itertuples(index=False, name=None)]
        lines = lines.drop(index=lines.index[is_known]).sort_values("image_id")
        if lines.empty:
            return 0
        write_text(path, _with_lines(path, lines))
        return len(lines)


def _refuse_moves(ledger: Ledger, new: pd.DataFrame, path: Path) -> None:
    before = ledger.claims(new)["weakest"]
    moved = new[before.notna() & (before != new["split"].map(STRENGTH))]
    if len(moved):
        first = moved.index[0]
        image_id, part = str(new.at[first, "image_id"]), str(new.at[first, "split"])
        raise SplitError(
            f"{len(moved)} image(s) would change their part, such as {image_id} "
            f"from {PART_OF_STRENGTH[before[first]]} to {part}",
            where=str(path),
            fix="the split is older than the ledger: run `dvc repro split` again",
        )


def _with_lines(path: Path, lines: pd.DataFrame) -> str:
    """Return the file's text with `lines` at its end."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if text and not text.endswith("\n"):
        text += "\n"
    return text + lines.to_csv(index=False, header=not text, lineterminator="\n")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process alone (a lock on the folder itself leaves no file behind)."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
