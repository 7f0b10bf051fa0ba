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
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from components.errors import SourceError

ARCHIVE_BYTES = 32 << 20
"""Of images, in an archive, on average."""
_HASHES = 1 << 64
_LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Signature, lengths of name and extra field: 4.3.7 of the ZIP specification (APPNOTE.TXT)."""
_SIGNATURE = b"PK\x03\x04"
_WRITTEN = (1980, 1, 1, 0, 0, 0)
"""The earliest time that ZIP knows: the same images shall give the same bytes."""
_UNIX = 3
_LONGEST = 80
"""Letters of a source, and of an image id, in the name of an archive."""


@dataclass(frozen=True, order=True)
class Original:
    """Where the file of one image lies.

    Attributes
    ----------
    archive
        The archive's file.
    offset
        Where its entry begins in there.
    num_bytes, crc32
        Of the image's file.
    name
        `<image_id>.<ext>`.
    source
        Name of the source that gave it.
    """

    archive: Path
    offset: int
    num_bytes: int
    crc32: int
    name: str
    source: str

    @property
    def image_id(self) -> str:
        return PurePosixPath(self.name).stem

    def read(self) -> bytes:
        """Return the file's bytes.

        Raises
        ------
        SourceError
            The archive is gone, or damaged there.
        """
        try:
            with self.archive.open("rb") as archive:
                archive.seek(self.offset)
                signature, len_name, len_extra = _LOCAL_HEADER.unpack(
                    archive.read(_LOCAL_HEADER.size)
                )
                name = archive.read(len_name)
                archive.seek(len_extra, 1)
                data = archive.read(self.num_bytes)
        except (OSError, struct.error) as error:
            raise _damaged(self.archive, f"{self.name} cannot be read: {error}") from error
        if (signature, name) != (_SIGNATURE, self.name.encode()) or zlib.crc32(data) != self.crc32:
            raise _damaged(self.archive, f"{self.name} is not what was packed")
        return data

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
            source = archive.comment.decode()
            entries = archive.infolist()
    # What zipfile raises for damage, besides its own error, depends on where the damage is.
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError, struct.error) as error:
        raise _damaged(path, str(error)) from error
    size = path.stat().st_size
    for entry in entries:
        stored = entry.compress_type == zipfile.ZIP_STORED
        if not stored or not 0 <= entry.header_offset <= size - entry.file_size:
            raise _damaged(path, f"{entry.filename} is not stored in there as it should be")
    return [
        Original(path, entry.header_offset, entry.file_size, entry.CRC, entry.filename, source)
        for entry in entries
    ]


def _damaged(path: Path, why: str) -> SourceError:
    return SourceError(
        f"an archive of images is damaged: {why}",
        where=str(path),
        fix="run `dvc checkout --force data/raw`, or the stage `ingest` again",
    )


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
            name = _archive_name(self._source, image_id)
            self._archive = zipfile.ZipFile(self._folder / name, "x")
            self._archive.comment = self._source.encode()
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


def _archive_name(source: str, image_id: str) -> str:
    """Return a name that any file system takes; its last digits tell two apart."""
    plain = (
        re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)[:_LONGEST] for name in (source, image_id)
    )
    digest = hashlib.sha256(f"{source}/{image_id}".encode()).hexdigest()
    return f"{'+'.join(plain)}-{digest[:8]}.zip"


def _ends_archive(image_id: str, num_bytes: int) -> bool:
    drawn = int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8], "big")
    return drawn < _HASHES * num_bytes // ARCHIVE_BYTES
