"""The original files of a snapshot, byte for byte, side by side in archives.

Ten thousand small files take minutes to push and to pull, one archive takes seconds
(`docs/data-versioning.md`); but one that holds everything is sent again whenever a picture is
added. So `images/` has ZIP archives of some ten megabytes, without compression, in each the images
of one source by their ids: what is new makes new archives, and the others stay as they are.

Where an archive ends follows from ids and sizes alone: an image is the last one of its archive if
the hash of its id says so, the more probably the larger it is. An image that is added or withdrawn
changes its own archive and perhaps the next one, whatever has been done to the others.
"""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from components.errors import SourceError

ARCHIVE_BYTES = 32 << 20
"""Of images, in an archive, on average."""
_AFTER_SOURCE = "+"
"""Between source and first image id in the name of an archive; no name of a source has it."""
_HASHES = 1 << 64
_LOCAL_HEADER = 30
_WRITTEN = (1980, 1, 1, 0, 0, 0)
"""The earliest time that ZIP knows: the same images shall give the same bytes."""
_UNIX = 3


@dataclass(frozen=True, order=True)
class Original:
    """Where the file of one image lies.

    Attributes
    ----------
    archive
        The archive's file.
    offset, num_bytes
        Where its entry begins in there; size of the image's file.
    name
        `<image_id>.<ext>`.
    """

    archive: Path
    offset: int
    num_bytes: int
    name: str

    @property
    def image_id(self) -> str:
        return PurePosixPath(self.name).stem

    @property
    def source(self) -> str:
        return self.archive.name.partition(_AFTER_SOURCE)[0]

    def read(self) -> bytes:
        """Return the file's bytes; other bytes, or fewer, if the archive was changed meanwhile.

        Raises
        ------
        FileNotFoundError
            The archive is gone.
        """
        with self.archive.open("rb") as archive:
            archive.seek(self.offset)
            header = archive.read(_LOCAL_HEADER)
            # Lengths of name and extra field: 4.3.7 of the ZIP specification (APPNOTE.TXT).
            archive.seek(sum(int.from_bytes(header[at : at + 2], "little") for at in (26, 28)), 1)
            return archive.read(self.num_bytes)

    def __str__(self) -> str:
        return f"{self.name} in {self.archive}"


def list_originals(folder: Path) -> dict[str, Original]:
    """Return image id -> where its file lies, for all archives in `folder`, sorted by image id.

    Raises
    ------
    SourceError
        An archive is damaged, or an image has two files.
    """
    found: dict[str, Original] = {}
    for path in sorted(folder.glob("*.zip")):
        for original in _entries(path):
            other = found.setdefault(original.image_id, original)
            if other is not original:
                raise SourceError(
                    f"two files for image {original.image_id}: {other.name} in "
                    f"{other.archive.name} and {original.name} in {path.name}",
                    where=str(folder),
                    fix="run the stage `ingest` again; it writes one file per image",
                )
    return dict(sorted(found.items()))


def _entries(path: Path) -> list[Original]:
    try:
        with zipfile.ZipFile(path) as archive:
            return [
                Original(path, entry.header_offset, entry.file_size, entry.filename)
                for entry in archive.infolist()
            ]
    except zipfile.BadZipFile as error:
        raise SourceError(
            f"the archive of images is damaged: {error}",
            where=str(path),
            fix="run `dvc checkout --force data/raw`, or the stage `ingest` again",
        ) from error


class OriginalsWriter:
    """Writes the files of one source into archives.

    Parameters
    ----------
    folder
        Where the archives go.
    source
        Name of the source.
    """

    def __init__(self, folder: Path, source: str) -> None:
        self._folder, self._source = folder, source
        self._archive: zipfile.ZipFile | None = None

    def add(self, image_id: str, suffix: str, data: bytes) -> None:
        """Write one file; image ids come in their order."""
        if self._archive is None:
            name = f"{self._source}{_AFTER_SOURCE}{image_id}.zip"
            self._archive = zipfile.ZipFile(self._folder / name, "x")
        entry = zipfile.ZipInfo(f"{image_id}{suffix}", _WRITTEN)
        entry.create_system = _UNIX
        self._archive.writestr(entry, data)
        if _ends_archive(image_id, len(data)):
            self.close()

    def close(self) -> None:
        """End the present archive."""
        if self._archive is not None:
            self._archive.close()
            self._archive = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _ends_archive(image_id: str, num_bytes: int) -> bool:
    drawn = int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8], "big")
    return drawn < _HASHES * num_bytes // ARCHIVE_BYTES
