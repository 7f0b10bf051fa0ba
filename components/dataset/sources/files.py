"""Where the files of a source lie: one flat list of names, whatever is behind it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from components.dataset.sources.hashes import hash_files
from components.errors import SourceError

_NOISE = {"__MACOSX", "Thumbs.db", "desktop.ini"}


class Files(Protocol):
    """The files of a source; methods raise `SourceError` where it cannot be reached or read."""

    @property
    def where(self) -> str:
        """Where they lie, for messages."""

    def names(self) -> Sequence[str]:
        """Names of all files, relative, with `/`, sorted."""

    def read(self, name: str) -> bytes:
        """Bytes of a file; may be called from several threads."""

    def local_path(self, name: str) -> Path:
        """A file on this machine with the bytes of file `name`."""

    def fingerprint(self) -> str:
        """Changes when a name or a byte does."""


class FolderFiles:
    """Files in a local folder, or (with `only`) one file of it."""

    def __init__(self, folder: Path, cache: Path, only: str | None = None) -> None:
        self.where = str(folder / only if only else folder)
        self._folder = folder
        self._cache = cache
        self._only = only

    def names(self) -> Sequence[str]:
        """Return the names of all files but hidden ones and what systems leave behind."""
        if self._only is not None:
            return [self._only]
        found: list[str] = []
        visited: set[str] = set()
        for folder, children, files in os.walk(self._folder, onerror=_fail, followlinks=True):
            real = os.path.realpath(folder)
            if real in visited:  # a link that leads back
                children.clear()
                continue
            visited.add(real)
            children[:] = [name for name in children if not is_noise(name)]
            start = os.path.relpath(folder, self._folder)
            prefix = "" if start == "." else start.replace(os.sep, "/") + "/"
            found += [prefix + name for name in files if not is_noise(name)]
        return sorted(found)

    def read(self, name: str) -> bytes:
        """Return the file's bytes."""
        try:
            return (self._folder / name).read_bytes()
        except OSError as error:
            raise _unreadable(self._folder / name, error) from error

    def local_path(self, name: str) -> Path:
        """Return the file itself."""
        return self._folder / name

    def fingerprint(self) -> str:
        """Return a hash of names and contents."""
        try:
            return digest_of(hash_files(self._folder, self.names(), self._cache))
        except OSError as error:
            raise _unreadable(Path(error.filename or self._folder), error) from error


def digest_of(parts: Mapping[str, str]) -> str:
    """Return one sha256 for name -> hash, in the order of the names."""
    digest = hashlib.sha256()
    for name, value in sorted(parts.items()):
        digest.update(f"{name}\0{value}\n".encode())
    return digest.hexdigest()


def is_noise(name: str) -> bool:
    """Return whether a file or folder of this name is none of the source's."""
    return name.startswith(".") or name in _NOISE


def _fail(error: OSError) -> None:
    raise _unreadable(Path(error.filename), error) from error


def _unreadable(path: Path, error: OSError) -> SourceError:
    return SourceError(
        f"a file of the source cannot be read: {error.strerror or error}",
        where=str(path),
        fix="mend the link, the permissions or the disk",
    )
