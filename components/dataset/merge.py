"""How sources become one table: which picture is new, which is one that was there before.

The sources come in their order, so that a list that grows at its end gives the last snapshot and
what is new:

- A picture whose bytes an earlier source had is not taken twice. If it has another lesion or
  patient id there, the two ids mean one lesion or patient from now on (`joined_ids`). Files that
  show nothing (cut off, an error page, one colour) are equal without being one picture.
- If it has another diagnosis there, that is a label conflict: the first row stays, the manifest
  lists both, and the stage `validate` decides. So it is if a source, perhaps the same one, gives
  it a diagnosis that the recipe leaves out.
- If a later source has it in its official test set, it is a test image of the first source too: an
  official test set stays whole.
- The same image id with other bytes is an error: give one source the option `prefix`.
- The same bytes twice *within* a source stay two images; near-duplicates become one group.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path, PurePosixPath
from typing import Any, cast

import pandas as pd

from components.atomic import disk_full_as_error
from components.dataset.decode import UndecodableImage, decode_rgb
from components.dataset.left_out import LEFT_OUT_COLUMNS, find_conflicts, left_out_of
from components.dataset.originals import OriginalsWriter, list_originals
from components.dataset.read_ahead import read_ahead
from components.dataset.sources.source import SourceImages
from components.dataset.workers import ProgressPrinter
from components.errors import SourceError
from components.tables import LABEL_COLUMNS, source_name

ID_COLUMNS = ("lesion_id", "patient_id")
_OFFICIAL_TEST = ":test"

Row = dict[str, Any]
Note = dict[str, str]


@dataclass
class Merger:
    """The snapshot as it grows, source by source.

    Parameters
    ----------
    images
        Folder for the original files' archives.
    forbidden
        sha256 of files that must not be taken.
    """

    images: Path
    forbidden: frozenset[str]
    rows: dict[str, Row] = field(default_factory=dict)
    seen_twice: list[Note] = field(default_factory=list)
    conflicts: list[Note] = field(default_factory=list)
    joined: list[Note] = field(default_factory=list)
    left_out: list[Row] = field(default_factory=list)
    """Pictures that their diagnosis kept out (`LEFT_OUT_COLUMNS`)."""
    refused: list[Row] = field(default_factory=list)
    """Rows whose file is forbidden."""
    _first_with: dict[str, str] = field(default_factory=dict)
    """sha256 -> id of the first image with these bytes in the sources before the present one."""
    _shows: dict[str, bool] = field(default_factory=dict)
    """sha256 of files that came under several ids -> whether they show something."""

    def add(
        self, name: str, images: SourceImages, labels: pd.DataFrame, left_out: pd.DataFrame
    ) -> int:
        """Take the images of one source that `labels` lists; return how many were forbidden.

        Those of `left_out`, with diagnoses as the source spells them, are remembered only.

        Raises
        ------
        SourceError
            An image id is another picture's.
        ResourceError
            The disk is full.
        """
        not_taken = list(left_out["image_id"])
        hashes = self._copy(
            name,
            [*labels["image_id"], *not_taken],
            images.files,
            images.read,
            only_hashed=frozenset(not_taken),
        )
        self._check_ids(name, hashes, frozenset(not_taken))
        taken: list[Row] = []
        num_refused = len(self.refused)
        for row in _records(labels):
            image_id = row["image_id"]
            sha256 = hashes.get(image_id)
            if sha256 in self.forbidden:
                self.refused.append(row)
                continue
            row |= {"source": _part_of(name, image_id, images), "sha256": sha256}
            if image_id in images.seen_twice:
                self._note_seen(row, row, f"the same values in {images.seen_twice[image_id]}")
            first = self._first(row)
            if first is None:
                self.rows[image_id] = row
            else:
                self._merge(row, first)
            taken.append(first or row)
        for row in _records(left_out):
            row["source"] = _part_of(name, row["image_id"], images)
            row["sha256"] = hashes.get(row["image_id"])
            if row["sha256"] not in self.forbidden:
                self.left_out.append({column: row[column] for column in LEFT_OUT_COLUMNS})
        self._remember(taken)
        self._rename()
        return len(self.refused) - num_refused

    def start_from(
        self,
        labels: pd.DataFrame,
        left_out: Sequence[Row],
        images: Path,
        manifest: Mapping[str, Any],
    ) -> None:
        """Take what an earlier snapshot holds, where its sources are not at hand.

        Parameters
        ----------
        labels, left_out
            Those of its rows, and of what it left out, that may be taken.
        images, manifest
            The snapshot's archives and manifest.

        Raises
        ------
        SourceError
            A file is not the one that was taken then.
        """
        listed = labels[~labels["sha256"].isin(self.forbidden)]
        files = list_originals(images)
        wanted = set(listed["image_id"])
        hashes: dict[str, str] = {}
        for source in dict.fromkeys(file.source for file in files.values()):
            names = {
                image_id: file.name
                for image_id, file in files.items()
                if file.source == source and image_id in wanted
            }
            hashes |= self._copy(source, list(names), names, lambda name: files[_id(name)].read())
        for row in _records(listed):
            if hashes.get(row["image_id"]) != row["sha256"]:
                raise SourceError(
                    f"{row['image_id']} is not the image that was taken from the source",
                    where=str(images),
                    fix="run `dvc checkout --force data/raw`",
                )
            self.rows[row["image_id"]] = row
        kept = self.rows
        self.seen_twice += [note for note in manifest["seen_twice"] if note["same_as"] in kept]
        self.left_out += [row for row in left_out if row["sha256"] not in self.forbidden]
        found_again = {(row["image_id"], row["source"]) for row in left_out_of(manifest)}
        self.conflicts += [
            note
            for note in manifest["label_conflicts"]
            if note["image_id"] in kept
            and (note["other_image_id"], note["other_source"]) not in found_again
        ]
        self.joined += [note for note in manifest["joined_ids"] if note["image_id"] in kept]
        for source in manifest["sources"]:
            name = source["name"]
            self._remember(row for row in kept.values() if source_name(row["source"]) == name)

    def labels(self) -> pd.DataFrame:
        """Return the labels table, sorted by image id."""
        frame = pd.DataFrame([self.rows[name] for name in sorted(self.rows)], columns=LABEL_COLUMNS)
        text = [column for column in LABEL_COLUMNS if column != "age_years"]
        return frame.astype(dict.fromkeys(text, "str") | {"age_years": "float64"})

    def label_conflicts(self) -> list[Note]:
        """Return where a picture has another diagnosis than the one that it is taken with."""
        files = list_originals(self.images)

        def shows_something(row: Mapping[str, Any]) -> bool:
            return _shows_something(files[row["image_id"]].read())

        found = find_conflicts(self.left_out, self.rows.values(), shows_something)
        return self.conflicts + found

    def _copy(
        self,
        source: str,
        image_ids: Iterable[str],
        files: Mapping[str, str],
        read: Callable[[str], bytes],
        *,
        only_hashed: Set[str] = frozenset(),
    ) -> dict[str, str]:
        """Copy the files that are new; return image id -> sha256 of every file that is there."""
        present = sorted(image_id for image_id in image_ids if image_id in files)
        hashes: dict[str, str] = {}
        progress = ProgressPrinter("ingest", len(present), "images")
        with disk_full_as_error(self.images), OriginalsWriter(self.images, source) as writer:
            for image_id, data in read_ahead(present, lambda image_id: read(files[image_id])):
                sha256 = hashes[image_id] = hashlib.sha256(data).hexdigest()
                if image_id not in only_hashed and self._is_new(image_id, sha256, data):
                    writer.add(image_id, PurePosixPath(files[image_id]).suffix.lower(), data)
                progress.add()
        return hashes

    def _is_new(self, image_id: str, sha256: str, data: bytes) -> bool:
        known = self._same_picture(image_id, sha256, data) is not None
        return sha256 not in self.forbidden and not known and not self._has_file(image_id)

    def _check_ids(self, name: str, hashes: Mapping[str, str], not_taken: Set[str]) -> None:
        earlier = {image_id: row for image_id, row in self.rows.items() if self._has_file(image_id)}
        clash = {
            image_id: earlier[image_id]["source"]
            for image_id, sha256 in hashes.items()
            if image_id in earlier and earlier[image_id]["sha256"] != sha256
        }
        clash |= {
            row["image_id"]: row["source"]
            for row in self.left_out
            if row["sha256"]
            and row["image_id"] not in not_taken
            and hashes.get(row["image_id"], row["sha256"]) != row["sha256"]
        }
        if clash:
            first = min(clash)
            raise SourceError(
                f"{len(clash)} image ids belong to other pictures in an earlier source, "
                f"such as {first} (from {clash[first]})",
                where=f"source {name}",
                fix=f"give the source an option `prefix: {name}-` in params.yaml if these are "
                "other pictures; if they are the same ones stored anew, drop one of the sources",
            )

    def _has_file(self, image_id: str) -> bool:
        row = self.rows.get(image_id)
        return row is not None and not _is_missing(row["sha256"])

    def _first(self, row: Row) -> Row | None:
        """Return the row of an earlier source that is the same picture."""
        by_bytes = self._same_picture(row["image_id"], row["sha256"] or "")
        return self.rows.get(by_bytes or row["image_id"])

    def _same_picture(self, image_id: str, sha256: str, data: bytes | None = None) -> str | None:
        """Return the id under which an earlier source had the same picture.

        Equal bytes under another id are looked at first; `data` is needed once.
        """
        first = self._first_with.get(sha256)
        if first is None or first == image_id:
            return first
        if sha256 not in self._shows:
            assert data is not None, "every file is copied before its row is taken"
            self._shows[sha256] = _shows_something(data)
        return first if self._shows[sha256] else None

    def _remember(self, rows: Iterable[Row]) -> None:
        for row in sorted(rows, key=lambda row: str(row["image_id"])):
            if not _is_missing(row["sha256"]):
                self._first_with.setdefault(row["sha256"], row["image_id"])

    def _rename(self) -> None:
        """Give joined lesions and patients their first name in every row."""
        for column in ID_COLUMNS:
            names = _first_names([link for link in self.joined if link["column"] == column])
            for row in self.rows.values() if names else ():
                row[column] = names.get(row[column], row[column])

    def _merge(self, row: Row, first: Row) -> None:
        """Note that `row` is an image that is there already as `first`."""
        self._note_seen(row, first, "the same bytes" if row["sha256"] else "the same image id")
        if _is_missing(first["sha256"]):
            first["sha256"] = row["sha256"]
        if row["diagnosis"] != first["diagnosis"]:
            self.conflicts.append(
                {
                    "image_id": first["image_id"],
                    "diagnosis": first["diagnosis"],
                    "source": first["source"],
                    "other_image_id": row["image_id"],
                    "other_diagnosis": row["diagnosis"],
                    "other_source": row["source"],
                }
            )
        for column in ID_COLUMNS:
            mine, other = first[column], row[column]
            if _is_missing(mine):
                first[column] = other
            elif not _is_missing(other) and other != mine:
                note = {"column": column, "kept": mine, "joined": other}
                self.joined.append(note | {"image_id": first["image_id"]})
        if row["source"].endswith(_OFFICIAL_TEST):
            first["source"] = source_name(first["source"]) + _OFFICIAL_TEST

    def _note_seen(self, row: Row, first: Row, why: str) -> None:
        self.seen_twice.append(
            {
                "image_id": row["image_id"],
                "source": row["source"],
                "same_as": first["image_id"],
                "same_as_source": first["source"],
                "why": why,
            }
        )


def _id(file_name: str) -> str:
    return PurePosixPath(file_name).stem


def _part_of(name: str, image_id: str, images: SourceImages) -> str:
    """Return an image's `source`: the name, and the part that it is given for."""
    part = images.given_parts.get(image_id)
    return f"{name}:{part}" if part else name


def _shows_something(data: bytes) -> bool:
    """Tell whether a file is a picture of more than one colour."""
    try:
        bands = decode_rgb(data).image.getextrema()
    except UndecodableImage:
        return False
    return any(low != high for low, high in cast("tuple[tuple[int, int], ...]", bands))


def _records(labels: pd.DataFrame) -> list[Row]:
    ordered = labels.sort_values("image_id")
    return cast("list[Row]", ordered.astype(object).where(ordered.notna(), None).to_dict("records"))


def _is_missing(value: object) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and isnan(value))


def _first_names(links: Sequence[Note]) -> dict[str, str]:
    """Return id -> the first id that it is linked to, however indirectly."""
    parent: dict[str, str] = {}

    def top(name: str) -> str:
        while name in parent:
            name = parent[name]
        return name

    for link in links:
        kept, joined = top(link["kept"]), top(link["joined"])
        if kept != joined:
            parent[joined] = kept
    return {name: top(name) for name in parent}
