"""`data/sources.json`: what the sources are at the moment, by content.

Written before anything runs. The stage `ingest` depends on this file and never on a source, so
that a clone that has pulled the data does not need the sources.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from components.atomic import write_json, write_text
from components.dataset.config import SourceParams
from components.dataset.last_snapshot import is_recorded
from components.dataset.snapshot import known_diagnoses, recorded_diagnoses
from components.dataset.sources.catalog import fingerprint_source, read_source
from components.errors import SourceError
from components.layout import Layout
from components.params import Params

Entry = dict[str, Any]
_KEYS = {"kind", "uri", "options", "fingerprint"}


def refresh_sources(params: Params, layout: Layout) -> bool:
    """Look at every source and write down what it is.

    A source that changed (or whose diagnoses are read in another way) is read first: its table, no
    image. So a mistake in it is found before the last snapshot is touched. A source that cannot be
    reached keeps its entry when the data were taken before, and is named in a warning.

    Returns
    -------
    bool
        Whether `data/sources.json` changed.

    Raises
    ------
    SourceError
        A source cannot be reached and was never taken, or cannot be used.
    """
    before = _read(layout)
    entries = [_entry(source, before, params, layout) for source in params.sources]
    if entries == before:
        return False
    write_json(layout.sources, {"schema_version": 1, "sources": entries})
    return True


def listed_sources(layout: Layout) -> list[tuple[SourceParams, str]]:
    """Return the sources in `data/sources.json`, each with its fingerprint.

    Raises
    ------
    SourceError
        The file is not there or not as `refresh_sources` writes it.
    """
    entries = _read(layout)
    if not entries:
        raise SourceError(
            "no sources are listed",
            where=str(layout.sources),
            fix="run `lesionflow retrain`, which looks at the sources in params.yaml first",
        )
    return [
        (
            SourceParams(kind=entry["kind"], uri=entry["uri"], options=entry["options"]),
            entry["fingerprint"],
        )
        for entry in entries
    ]


def _entry(source: SourceParams, before: list[Entry], params: Params, layout: Layout) -> Entry:
    same = source.model_dump(mode="json")
    old = next((entry for entry in before if same.items() <= entry.items()), None)
    try:
        fingerprint = fingerprint_source(source, layout.root, layout.cache)
    except SourceError as error:
        if old is None or not is_recorded(layout):
            raise
        print(f"warning: going on with the data taken before; {error}", file=sys.stderr)
        return old
    entry = same | {"fingerprint": fingerprint}
    checked = _check_mark(entry, params, layout)
    if old is not None and old["fingerprint"] == fingerprint and checked.is_file():
        return old
    images = read_source(source, layout.root, layout.cache)
    known_diagnoses(images.labels, params.diagnoses, where=source.uri)
    write_text(checked, "")
    return entry | {"num_images": len(images.labels)}


def _check_mark(entry: Entry, params: Params, layout: Layout) -> Path:
    """Return a file that exists when this state of a source was found to fit the recipe."""
    identity = json.dumps([entry, recorded_diagnoses(params.diagnoses)], sort_keys=True)
    return layout.cache / "checked_sources" / hashlib.sha256(identity.encode()).hexdigest()


def _read(layout: Layout) -> list[Entry]:
    try:
        document = json.loads(layout.sources.read_text(encoding="utf-8"))
        entries = [dict(entry) for entry in document["sources"]]
        if not all(entry.keys() >= _KEYS for entry in entries):
            raise ValueError
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(
            "this is not the list of sources that Lesionflow writes",
            where=str(layout.sources),
            fix="delete the file and run `lesionflow retrain`",
        ) from error
    return entries
