"""Stage `measure`: one row per listed image, whatever is wrong with its file.

Nothing is judged here: thresholds are `validate`'s, so that a changed threshold measures nothing
again. What was measured once is remembered by the file's sha256.
"""

from __future__ import annotations

import hashlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from components.dataset.content_cache import ContentCache
from components.dataset.measures import Measures, measure_file, measures_version
from components.dataset.originals import Original, list_originals
from components.dataset.workers import ProgressPrinter, Workers, num_cores
from components.errors import SourceError
from components.layout import Layout
from components.params import Params
from components.stage import run_stage
from components.tables import read_table, write_table

CACHE_FILE = "measures.sqlite"
_SAVE_EVERY_S = 2.0
_CHUNK = 32
_CRASHED = "the decoder crashed on it, or ran out of memory"


@dataclass(frozen=True)
class ImageFile:
    """A listed image's file; place and sha256 are None where it is absent."""

    image_id: str
    place: Original | None
    sha256: str | None


def run(params: Params, layout: Layout) -> None:  # noqa: ARG001 - measuring has no parameters
    """Write `data/quality.parquet`."""
    labels = read_table(layout.labels, ("image_id", "sha256"))
    write_table(measure_images(labels, layout.images, layout.cache), layout.quality)


def measure_images(labels: pd.DataFrame, images: Path, cache: Path) -> pd.DataFrame:
    """Measure the files of all listed images.

    Parameters
    ----------
    labels
        The labels table; `image_id` and `sha256` are read.
    images
        Folder of the original files' archives.
    cache
        Folder of caches.

    Returns
    -------
    DataFrame
        Sorted by `image_id`: `image_id, file_name, sha256, num_bytes` and the attributes of
        `Measures`; an image that is absent or does not decode has `decodes` False and a
        `problem`, and nulls for the rest.

    Raises
    ------
    SourceError
        A file is not the one that was ingested, an archive is damaged, or two files belong to one
        image.
    """
    files = list_files(labels, images)
    store = ContentCache(cache / CACHE_FILE, measures_version())
    known = {
        sha256: Measures(**json.loads(value))
        for sha256, value in store.get(file.sha256 for file in files if file.sha256).items()
    }
    new = {
        file.sha256: file.place
        for file in files
        if file.place and file.sha256 and file.sha256 not in known
    }
    print(f"measure: {len(files)} images listed, {len(new)} new to measure", flush=True)
    known |= _measure_new(new, store)
    return _table(files, known)


def list_files(labels: pd.DataFrame, images: Path) -> list[ImageFile]:
    """Find and hash the file of each listed image; sorted by image id.

    Raises
    ------
    SourceError
        As `measure_images`.
    """
    places = list_originals(images)
    ids = sorted(labels["image_id"].astype(str))
    with ThreadPoolExecutor(num_cores()) as pool:
        files = list(pool.map(lambda image_id: _hash(image_id, places.get(image_id)), ids))
    ingested = labels.set_index("image_id")["sha256"].dropna().to_dict()
    changed = [
        file.image_id for file in files if ingested.get(file.image_id, file.sha256) != file.sha256
    ]
    if changed:
        raise SourceError(
            f"{len(changed)} files changed or are gone since they were ingested: "
            f"{', '.join(changed[:5])}",
            where=str(images),
            fix="run the stage `ingest` again",
        )
    return files


def _hash(image_id: str, place: Original | None) -> ImageFile:
    if place is None:
        return ImageFile(image_id, None, None)
    return ImageFile(image_id, place, hashlib.sha256(place.read()).hexdigest())


def _measure_new(places: dict[str, Original], store: ContentCache) -> dict[str, Measures]:
    """Measure the files `sha256 -> path`, and remember what is done every few seconds."""
    sha256_of = {place: sha256 for sha256, place in places.items()}
    measured: dict[str, Measures] = {}
    unsaved: dict[str, bytes] = {}
    saved = time.monotonic()
    progress = ProgressPrinter("measure", len(places), "images")
    with Workers() as workers:
        for place, measures in workers.map(
            measure_file, sorted(sha256_of), crashed=_crashed, chunk=_CHUNK
        ):
            measured[sha256_of[place]] = measures
            if measures.problem != _CRASHED:  # it may have been short of memory: tried again
                unsaved[sha256_of[place]] = json.dumps(measures.as_dict()).encode()
            progress.add()
            if time.monotonic() - saved > _SAVE_EVERY_S:
                store.put(unsaved)
                unsaved, saved = {}, time.monotonic()
    if unsaved:
        store.put(unsaved)
    return measured


def _crashed(place: Original) -> Measures:  # noqa: ARG001 - the row's file name says which
    return Measures(decodes=False, problem=_CRASHED)


def _table(files: list[ImageFile], measured: dict[str, Measures]) -> pd.DataFrame:
    absent = Measures(decodes=False, problem="file is absent")
    rows: list[dict[str, Any]] = []
    for file in files:
        measures = measured[file.sha256] if file.sha256 else absent
        rows.append(
            {
                "image_id": file.image_id,
                "file_name": file.place and file.place.name,
                "sha256": file.sha256,
                "num_bytes": file.place.num_bytes if file.place else 0,
                **measures.as_dict(),
            }
        )
    text, whole, number = "str", "Int64", "float64"
    types = dict.fromkeys(("image_id", "file_name", "sha256", "problem", "format", "mode"), text)
    types |= {"phash": text, "num_bytes": "int64", "width": whole, "height": whole}
    types |= {"decodes": "bool"}
    columns = ["image_id", "file_name", "sha256", "num_bytes", *absent.as_dict()]
    return pd.DataFrame(rows, columns=columns).astype(
        {name: types.get(name, number) for name in columns}
    )


if __name__ == "__main__":
    run_stage("measure", run)
