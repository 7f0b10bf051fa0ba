"""Archives among the files of a source: their members are files like the others.

A zip is read where it lies. A tar, which cannot be read at random, and an archive within an archive
are unpacked once into the caches, under a name made of their content. An archive is refused as a
whole if a member leads out of it, is a link or a device, or if it is a bomb, alone or with what is
nested in it.
"""

from __future__ import annotations

import hashlib
import shutil
import stat
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from components.atomic import disk_full_as_error
from components.dataset.sources.copies import UNPACKED
from components.dataset.sources.files import Files, FolderFiles, is_noise
from components.dataset.sources.hashes import hash_files
from components.errors import SourceError

ZIP_SUFFIXES = (".zip",)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

MAX_RATIO = 100
"""Of all unpacked bytes to the archive's own; images hardly shrink, tables about tenfold."""
FREE_BYTES = 1 << 30
"""Below this an archive, with all that are nested in it, may unpack to whatever it likes."""
MAX_IMAGE_BYTES = 1 << 29
"""Of one file that is read into memory."""
MAX_MEMBERS = 5_000_000
"""With those of nested archives."""
MAX_DEPTH = 2
"""Archives within archives."""

_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError)


class _Allowance:
    """What an archive may unpack to; what is nested in it draws on its allowance, too.

    Parameters
    ----------
    path, where
        The archive.
    outer
        Of the archive that it lies in.
    """

    def __init__(self, path: Path, where: str, outer: _Allowance | None) -> None:
        self._archive_bytes = path.stat().st_size
        self._where = where
        self._outer = outer
        self._bytes = self._members = 0

    def draw(self, num_bytes: int, num_members: int = 1) -> None:
        """Count members.

        Raises
        ------
        SourceError
            There is more in this archive, or in one around it, than it may hold.
        """
        self._bytes += num_bytes
        self._members += num_members
        if self._members > MAX_MEMBERS:
            raise _unsafe(f"there are more than {MAX_MEMBERS:,} files in it", self._where)
        if self._bytes > max(FREE_BYTES, MAX_RATIO * self._archive_bytes):
            raise _unsafe(
                f"it unpacks to {self._bytes / self._archive_bytes:,.0f} times its size "
                f"({self._bytes:,} bytes, with the archives in it)",
                self._where,
            )
        if self._outer is not None:
            self._outer.draw(num_bytes, num_members)


class WithArchives:
    """Files, with the members of every archive among them in its place.

    A member is called `archive.zip/folder/name.jpg`; where the archive is the only file there is,
    `folder/name.jpg`.
    """

    def __init__(
        self, files: Files, cache: Path, depth: int = 1, outer: _Allowance | None = None
    ) -> None:
        self.where = files.where
        self._files = files
        self._cache = cache
        self._depth = depth
        self._outer = outer
        self._lock = threading.Lock()
        self._found: dict[str, tuple[Files, str]] | None = None

    def names(self) -> Sequence[str]:
        """Return the names of all files and members."""
        return sorted(self._members())

    def read(self, name: str) -> bytes:
        """Return the bytes of a file or member."""
        files, inner = self._members()[name]
        return files.read(inner)

    def local_path(self, name: str) -> Path:
        """Return a file with the bytes of a file or member."""
        files, inner = self._members()[name]
        return files.local_path(inner)

    def fingerprint(self) -> str:
        """Return the fingerprint of the files as they lie there, archives unopened."""
        return self._files.fingerprint()

    def _members(self) -> dict[str, tuple[Files, str]]:
        with self._lock:
            if self._found is None:
                self._found = self._look()
            return self._found

    def _look(self) -> dict[str, tuple[Files, str]]:
        outer = self._files.names()
        found: dict[str, tuple[Files, str]] = {}
        for name in outer:
            if not is_archive(name):
                found[name] = (self._files, name)
                continue
            if self._depth > MAX_DEPTH:
                raise SourceError(
                    f"archives are packed more than {MAX_DEPTH} deep: {name}",
                    where=self.where,
                    fix="unpack it by hand and point the source to the folder",
                )
            where = f"{name} in {self.where}"
            path = self._files.local_path(name)
            allowance = _Allowance(path, where, self._outer)
            inner = _open_archive(path, where, self._cache, allowance)
            members = WithArchives(inner, self._cache, self._depth + 1, allowance)
            prefix = "" if len(outer) == 1 else f"{name}/"
            found |= {prefix + member: (members, member) for member in members.names()}
        return found


def is_archive(name: str) -> bool:
    """Return whether a file of this name is taken for an archive."""
    return name.lower().endswith(ZIP_SUFFIXES + TAR_SUFFIXES)


def _open_archive(path: Path, where: str, cache: Path, allowance: _Allowance) -> Files:
    if path.name.lower().endswith(ZIP_SUFFIXES):
        return ZipArchive(path, where, cache, allowance)
    return FolderFiles(_unpack_tar(path, where, cache, allowance), cache)


class ZipArchive:
    """The members of a zip, read in place."""

    def __init__(self, path: Path, where: str, cache: Path, allowance: _Allowance) -> None:
        self.where = where
        self._path = path
        self._cache = cache
        with _damage_as_error(where):
            self._zip = zipfile.ZipFile(path)
        self._members: dict[str, zipfile.ZipInfo] = {}
        self._look(allowance)

    def names(self) -> Sequence[str]:
        """Return the names of all members that are files."""
        return sorted(self._members)

    def read(self, name: str) -> bytes:
        """Return a member's bytes; its checksum is verified."""
        where = f"{name} in {self.where}"
        with _damage_as_error(where), self._zip.open(self._members[name]) as member:
            data = member.read(MAX_IMAGE_BYTES + 1)
        if len(data) > MAX_IMAGE_BYTES:
            raise _unsafe(f"a file is larger than {MAX_IMAGE_BYTES >> 20} MiB", where)
        return data

    def local_path(self, name: str) -> Path:
        """Unpack a member (an archive) into the caches, once."""
        key = _content_key(self._path, self._cache, name)
        target = self._cache / UNPACKED / f"{key}-{PurePosixPath(name).name}"
        if not target.exists():
            with (
                _partial(target) as partial,
                _damage_as_error(f"{name} in {self.where}"),
                self._zip.open(self._members[name]) as member,
            ):
                _write_new(partial, member)
        return target

    def fingerprint(self) -> str:
        """Return a hash of the archive's bytes."""
        return _content_key(self._path, self._cache, "")

    def _look(self, allowance: _Allowance) -> None:
        for info in self._zip.infolist():
            name = info.filename.replace("\\", "/")
            where = f"{name} in {self.where}"
            allowance.draw(info.file_size)
            if info.is_dir():
                continue
            _check_name(name, where)
            if stat.S_ISLNK(info.external_attr >> 16):
                raise _unsafe("a member is a link", where)
            if not _is_wanted(name):
                continue
            if info.flag_bits & 1:
                raise SourceError(
                    "the archive is encrypted",
                    where=where,
                    fix="unpack it by hand and point the source to the folder",
                )
            if name in self._members:
                raise _unsafe("two members have the same name", where)
            self._members[name] = info


def _unpack_tar(path: Path, where: str, cache: Path, allowance: _Allowance) -> Path:
    """Unpack the regular files of a tar into the caches, once; return the folder."""
    target = cache / UNPACKED / _content_key(path, cache, "")
    if target.is_dir():
        # Or a run that is tried again would unpack where the last one was refused to go on.
        sizes = [file.stat().st_size for file in target.rglob("*") if file.is_file()]
        allowance.draw(sum(sizes), len(sizes))
        return target
    with _partial(target) as partial:
        partial.mkdir()
        with _damage_as_error(where), tarfile.open(path, "r|*") as tar:
            for member in tar:
                inside = f"{member.name} in {where}"
                allowance.draw(member.size)
                if member.isdir():
                    continue
                if not member.isreg():
                    raise _unsafe("a member is a link or a device", inside)
                _check_name(member.name, inside)
                if not _is_wanted(member.name):
                    continue
                content = tar.extractfile(member)
                assert content is not None  # it is a regular file
                _write_new(partial / member.name, content)
    return target


def _write_new(path: Path, content: IO[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        shutil.copyfileobj(content, file, 1 << 20)


def _is_wanted(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return not any(is_noise(part) for part in parts if part not in {".", ".."})


def _check_name(name: str, where: str) -> None:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or ":" in parts[0]:
        raise _unsafe("a member's name leads out of the archive", where)


def _unsafe(what: str, where: str) -> SourceError:
    return SourceError(
        f"the archive is not safe to open: {what}",
        where=where,
        fix="look where it came from; if you trust it, unpack it by hand and point the source to "
        "the folder",
    )


@contextmanager
def _damage_as_error(where: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        raise SourceError(
            f"the archive is damaged or of an unknown kind: {error}",
            where=where,
            fix="download it again",
        ) from error


@contextmanager
def _partial(target: Path) -> Iterator[Path]:
    """Yield a path to write to, which becomes `target` when the block succeeds."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with disk_full_as_error(target):
        folder = Path(tempfile.mkdtemp(prefix=".partial-", dir=target.parent))
        try:
            yield folder / "content"
            if not target.exists():
                (folder / "content").replace(target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _content_key(path: Path, cache: Path, member: str) -> str:
    outer = hash_files(path.parent, [path.name], cache)[path.name]
    return hashlib.sha256(f"{outer}\0{member}".encode()).hexdigest() if member else outer
