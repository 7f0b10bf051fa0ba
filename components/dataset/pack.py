"""Stage `pack`: every image that decodes, once, as a row of one memory-mapped uint8 array.

Rows that an earlier run of the same spec made are copied instead of decoded again (they are kept,
as a hard link where the disk allows, below the cache folder). The written bytes depend on the
images and the spec alone. Memory does not grow with the number of images: rows are written where
they belong as they get done.

Rows are not derived from a larger packed size: resizing twice gives other pixels than once, and
`predict` resizes once.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.atomic import atomic_path, write_json
from components.dataset.decode import PackSpec, UndecodableImage, decode_to_square
from components.dataset.files import changed, measured_files, read_measured
from components.dataset.originals import Original
from components.dataset.workers import ProgressPrinter, num_cores
from components.errors import TableError
from components.layout import Layout
from components.params import Params
from components.stage import run_stage
from components.tables import read_table, write_table

IMAGES, INDEX, SPEC = "images.npy", "index.parquet", "spec.json"
_KEPT_SPECS = 2  # earlier packed sets that stay in the cache
_COPY_BYTES = 8 << 20
_CHUNK = 64


def run(params: Params, layout: Layout) -> None:
    """Write `data/packed/`."""
    quality = read_table(layout.quality, ("image_id", "sha256", "decodes"))
    spec = PackSpec(params.pack.image_size, params.pack.fit)
    pack_images(quality, layout.images, spec, layout.packed, layout.packed_shelves)


@dataclass(frozen=True)
class PackedImages:
    """A packed set, opened for reading.

    Attributes
    ----------
    images
        Shape (N, S, S, 3), uint8, RGB, memory-mapped read-only.
    spec
        How the pixels were made.
    content_id
        Hash of everything that the pixels follow from: spec, decoder, and every row's image id
        and sha256.
    image_ids, sha256
        One per row, sorted by image id.
    """

    images: npt.NDArray[np.uint8]
    spec: PackSpec
    content_id: str
    image_ids: tuple[str, ...]
    sha256: tuple[str, ...]

    @staticmethod
    def open(path: Path) -> PackedImages:
        """Open the packed set in folder `path`.

        Raises
        ------
        TableError
            It is missing, or its parts do not belong together.
        """
        damaged = TableError(
            "the packed images are missing or damaged",
            where=str(path),
            fix="run the stage `pack` again (`dvc repro -f -s pack`)",
        )
        try:
            document: dict[str, Any] = {"pixels_follow_from": "", "content_id": ""}
            document |= json.loads((path / SPEC).read_text(encoding="utf-8"))
            spec = PackSpec(document["image_size"], document["fit"])
            images = np.load(path / IMAGES, mmap_mode="r")
        except (OSError, ValueError, KeyError) as error:
            raise damaged from error
        index = read_table(path / INDEX, ("row", "image_id", "sha256"))
        ids, hashes = tuple(index["image_id"]), tuple(index["sha256"])
        shape = (len(ids), spec.image_size, spec.image_size, 3)
        content_id = content_id_of(document["pixels_follow_from"], ids, hashes)
        if images.shape != shape or content_id != document["content_id"]:
            raise damaged
        return PackedImages(images, spec, content_id, ids, hashes)

    def rows(self, image_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the row of each image, in the order given.

        Raises
        ------
        TableError
            Some images are not in the packed set; the message names them.
        """
        rows = pd.Index(self.image_ids).get_indexer(pd.Index(image_ids))
        unknown = [name for name, row in zip(image_ids, rows, strict=True) if row < 0]
        if unknown:
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            raise TableError(
                f"not among the packed images: {', '.join(unknown[:5])}{more}",
                where="data/packed",
                fix="images that do not decode are not packed; leave them out, or run `pack` again",
            )
        return np.asarray(rows, dtype=np.int64)


def content_id_of(key: str, image_ids: Sequence[str], sha256: Sequence[str]) -> str:
    """Hash a spec's `key()` and the rows."""
    digest = hashlib.sha256(key.encode())
    for image_id, content in zip(image_ids, sha256, strict=True):
        digest.update(f"\n{image_id}\t{content}".encode())
    return digest.hexdigest()


def pack_images(
    quality: pd.DataFrame, images: Path, spec: PackSpec, target: Path, cache: Path
) -> None:
    """Pack every image of `quality` that decodes into the folder `target`.

    Parameters
    ----------
    quality
        The table of `measure`.
    images
        Folder of the original files' archives.
    spec
        How an image becomes a square.
    target
        Folder to write: `images.npy`, `index.parquet` (`row, image_id, sha256`), `spec.json`.
    cache
        Folder with earlier packed sets.

    Raises
    ------
    SourceError
        A file changed since it was measured, or is not there any more.
    """
    usable = quality[quality["decodes"]].sort_values("image_id", ignore_index=True)
    ids, hashes = list(usable["image_id"]), list(usable["sha256"])
    shelf = cache / hashlib.sha256(spec.key().encode()).hexdigest()[:16]
    earlier = _earlier_rows(shelf)
    new = [row for row, sha256 in enumerate(hashes) if sha256 not in earlier]
    files = measured_files([ids[row] for row in new], images)
    print(f"pack: {len(ids)} images, {len(ids) - len(new)} rows known", flush=True)
    with atomic_path(target / IMAGES) as temporary, temporary.open("wb") as written:
        rows = _start_array(written, len(ids), spec)
        _copy_rows(shelf / IMAGES, rows, hashes, earlier)
        _decode_rows([(row, files[ids[row]], hashes[row]) for row in new], spec, rows)
    index = pd.DataFrame({"row": np.arange(len(ids)), "image_id": ids, "sha256": hashes})
    write_table(index.astype({"image_id": "str", "sha256": "str"}), target / INDEX)
    content_id = content_id_of(spec.key(), ids, hashes)
    document = {"schema_version": 1, "content_id": content_id, "pixels_follow_from": spec.key()}
    write_json(target / SPEC, document | asdict(spec))
    _keep(target, shelf)


@dataclass(frozen=True)
class _Rows:
    """The rows of an .npy file that is being written, in any order and from any thread."""

    file: int
    start: int
    row_bytes: int

    def write(self, row: int, data: bytes | memoryview) -> None:
        place = self.start + row * self.row_bytes
        while data:  # a disk that gets full takes a part first, and then raises
            written = os.pwrite(self.file, data, place)
            data, place = data[written:], place + written


def _start_array(written: BinaryIO, num_images: int, spec: PackSpec) -> _Rows:
    shape = (num_images, spec.image_size, spec.image_size, 3)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(written, header)
    written.flush()
    rows = _Rows(written.fileno(), written.tell(), spec.image_size**2 * 3)
    os.truncate(rows.file, rows.start + num_images * rows.row_bytes)
    return rows


def _decode_rows(files: Sequence[tuple[int, Original, str]], spec: PackSpec, rows: _Rows) -> None:
    """Decode on all cores (Pillow lets go of Python's lock) and write each row in its place."""

    def decode(chunk: Sequence[tuple[int, Original, str]]) -> int:
        for row, file, sha256 in chunk:
            rows.write(row, _decode_file(file, sha256, spec).data.cast("B"))
        return len(chunk)

    progress = ProgressPrinter("pack", len(files), "images")
    chunks = [files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK)]
    with ThreadPoolExecutor(num_cores()) as pool:
        for count in pool.map(decode, chunks):
            progress.add(count)


def _decode_file(file: Original, sha256: str, spec: PackSpec) -> npt.NDArray[np.uint8]:
    try:
        return decode_to_square(read_measured(file, sha256), spec)
    except UndecodableImage as error:
        raise changed(file, f"it was measured, and cannot be decoded: {error}") from error


# --- rows of earlier runs ----------------------------------------------------------------------


def _earlier_rows(shelf: Path) -> dict[str, int]:
    """Return `sha256 -> offset in images.npy` of a cached set; empty where none is whole."""
    try:
        packed = PackedImages.open(shelf)
    except TableError:
        return {}
    size = packed.spec.image_size**2 * 3
    start = (shelf / IMAGES).stat().st_size - len(packed.sha256) * size
    return {sha256: start + row * size for row, sha256 in enumerate(packed.sha256)}


def _copy_rows(source: Path, rows: _Rows, hashes: Sequence[str], earlier: dict[str, int]) -> None:
    """Copy the known rows; neighbours that were neighbours before go in one piece."""
    pieces: list[tuple[int, int, int]] = []  # (row here, offset there, bytes)
    for row, sha256 in enumerate(hashes):
        if sha256 not in earlier:
            continue
        there = earlier[sha256]
        if pieces and pieces[-1][2] < _COPY_BYTES:
            first, offset, length = pieces[-1]
            if first + length // rows.row_bytes == row and offset + length == there:
                pieces[-1] = (first, offset, length + rows.row_bytes)
                continue
        pieces.append((row, there, rows.row_bytes))
    if not pieces:
        return
    with source.open("rb") as cached:
        for row, there, length in pieces:
            rows.write(row, os.pread(cached.fileno(), length, there))


def _keep(target: Path, shelf: Path) -> None:
    """Put a packed set on its shelf of the cache, and clear the oldest shelves.

    Whenever this is killed, no pixels lie there without the index that says whose they are, and a
    half-replaced set is not used.
    """
    shelf.mkdir(parents=True, exist_ok=True)
    _clear(shelf)
    for name in (INDEX, IMAGES, SPEC):
        try:
            os.link(target / name, shelf / name)
        except OSError:  # another disk, or one without links
            with atomic_path(shelf / name) as temporary:
                shutil.copyfile(target / name, temporary)
    os.utime(shelf)
    shelves = [path for path in shelf.parent.iterdir() if path.is_dir()]
    whole = [path for path in shelves if (path / INDEX).is_file()]
    whole.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for old in set(shelves) - set(whole[:_KEPT_SPECS]):
        _clear(old)
        old.rmdir()


def _clear(shelf: Path) -> None:
    """Remove all files of a shelf, also what a killed copy left; the index last."""
    for path in sorted(shelf.iterdir(), key=lambda path: path.name == INDEX):
        path.unlink()


if __name__ == "__main__":
    run_stage("pack", run)
