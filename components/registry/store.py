"""Where a registry lies: the few things that a folder and S3 do differently.

A store holds small JSON files that are replaced only by whoever has seen their last state
(conditional writes), and versions: sets of files that appear as a whole under the next free
number and are never changed. `FolderStore` is here, `S3Store` in `s3.py`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from components.atomic import atomic_path, disk_full_as_error
from components.errors import RegistryError

Content = Path | bytes
VERSIONS = "versions"
MARKER = "checksums.json"
"""The file of a version that is written last: with it, the version is complete."""
VERSION_NAME = re.compile(r"v(\d{4,})")


@dataclass(frozen=True)
class Tagged:
    """A small file and the tag that a conditional write compares."""

    data: bytes
    tag: str


@dataclass(frozen=True)
class Leftover:
    """What a crash left behind.

    Attributes
    ----------
    name
        Below the store.
    detail
        What it is.
    in_use
        Somebody may still be writing it: it must stay.
    """

    name: str
    detail: str
    in_use: bool


class Store(Protocol):
    """One registry's files; keys are relative and use `/`."""

    @property
    def uri(self) -> str:
        """For messages."""

    def read(self, key: str) -> Tagged | None:
        """Return a small file, or None where there is none."""

    def write(self, key: str, data: bytes, *, expected: str | None) -> bool:
        """Write `key` if its tag is still `expected` (None: if it is not there); else False."""

    def names(self, prefix: str) -> list[str]:
        """Return the names of the small files directly below `prefix`, sorted."""

    def digest(self, key: str) -> tuple[str, int] | None:
        """Return SHA-256 and size of a file as it lies in the store now, or None."""

    def versions(self) -> list[str]:
        """Return the names of the complete versions, oldest first."""

    def add_version(
        self, files: Mapping[str, Content], above: int, existing: Callable[[], str | None]
    ) -> str:
        """Make `files` the next version, numbered above `above` and every number in use.

        Just before, `existing` is asked whether a version has this content already; its answer
        is returned in place of a new version.
        """

    def open_version(self, name: str, cache: Path) -> Path:
        """Return a local folder with the files of a version, not yet verified."""

    def remove_version(self, name: str) -> None:
        """Remove a version, if it is there: it is gone at once or not at all for whoever reads."""

    def leftovers(self) -> list[Leftover]:
        """Return what no operation will ever finish."""

    def remove_leftover(self, leftover: Leftover) -> None:
        """Remove what `leftovers` has found."""


def version_name(number: int) -> str:
    """Return `v0001` for 1."""
    return f"v{number:04d}"


def version_number(name: str) -> int:
    """Return 1 for `v0001`; 0 for anything that is no version's name."""
    found = VERSION_NAME.fullmatch(name)
    return int(found[1]) if found else 0


class FolderStore:
    """A registry in a folder of a local or shared disk.

    Locks are those of the operating system (`flock`): they end with the process that holds them.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def uri(self) -> str:
        return str(self._root)

    # --- small files -----------------------------------------------------------------------
    def read(self, key: str) -> Tagged | None:
        try:
            data = (self._root / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unreachable(error) from error
        return Tagged(data, hashlib.sha256(data).hexdigest())

    def write(self, key: str, data: bytes, *, expected: str | None) -> bool:
        with self._locked():
            current = self.read(key)
            if (current.tag if current else None) != expected:
                return False
            path = self._root / key
            try:
                with atomic_path(path) as temporary:
                    temporary.write_bytes(data)
                _flush_folder(path.parent)
            except OSError as error:
                raise self._unreachable(error) from error
            return True

    def names(self, prefix: str) -> list[str]:
        folder = self._root / prefix
        if not folder.is_dir():
            return []
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))

    def digest(self, key: str) -> tuple[str, int] | None:
        try:
            with (self._root / key).open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
                return digest, os.fstat(opened.fileno()).st_size
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError as error:
            raise self._unreachable(error) from error

    # --- versions ----------------------------------------------------------------------------
    @property
    def _versions(self) -> Path:
        return self._root / VERSIONS

    def versions(self) -> list[str]:
        complete = [
            name
            for name in self.names(VERSIONS)
            if version_number(name) and (self._versions / name / MARKER).is_file()
        ]
        return sorted(complete, key=version_number)

    def add_version(
        self, files: Mapping[str, Content], above: int, existing: Callable[[], str | None]
    ) -> str:
        try:
            with disk_full_as_error(self._root), self._staging() as staging:
                _write_all(files, staging)
                with self._locked():
                    known = existing()
                    if known is not None:
                        return known
                    taken = [version_number(name) for name in self.names(VERSIONS)]
                    name = version_name(max([above, *taken]) + 1)
                    staging.rename(self._versions / name)
                    _flush_folder(self._versions)
                    return name
        except OSError as error:
            raise self._unreachable(error) from error

    def open_version(self, name: str, cache: Path) -> Path:  # noqa: ARG002 - S3 needs it
        return self._versions / name

    def remove_version(self, name: str) -> None:
        gone = self._versions / f".gone-{name}-{uuid.uuid4().hex[:8]}"
        with self._locked():
            try:
                (self._versions / name).rename(gone)
            except FileNotFoundError:
                return  # somebody else was faster
            except OSError as error:
                raise self._unreachable(error) from error
            shutil.rmtree(gone)

    # --- what crashes leave --------------------------------------------------------------------
    def leftovers(self) -> list[Leftover]:
        if not self._root.is_dir():
            return []
        with self._locked():  # nobody's temporary file is there now
            return self._find_leftovers()

    def _find_leftovers(self) -> list[Leftover]:
        found = []
        for path in sorted(self._root.rglob("*")):
            name = path.relative_to(self._root).as_posix()
            hidden = [part for part in name.split("/") if part.startswith(".")]
            if hidden and hidden[-1] == path.name and len(hidden) == 1 and name != _LOCK:
                kind = "an unfinished version" if path.is_dir() else "an unfinished file"
                found.append(Leftover(name, kind, in_use=path.is_dir() and _is_held(path)))
            elif path.parent == self._versions and not (path / MARKER).is_file():
                found.append(Leftover(name, f"no {MARKER} in it", in_use=False))
        return found

    def remove_leftover(self, leftover: Leftover) -> None:
        path = self._root / leftover.name
        with self._locked():  # a writer's temporary file exists only while it holds the lock
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    # --- help --------------------------------------------------------------------------------
    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._root / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise self._unreachable(error) from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
            except OSError as error:  # some network file systems have no locks
                raise self._unreachable(error) from error
            yield
        finally:
            os.close(handle)

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        """Yield a new folder beside the versions, held as long as its maker lives."""
        folder = self._versions / f".new-{uuid.uuid4().hex}"
        folder.mkdir(parents=True)
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield folder
        finally:
            os.close(handle)
            shutil.rmtree(folder, ignore_errors=True)

    def _unreachable(self, error: OSError) -> RegistryError:
        return RegistryError(
            f"the registry cannot be used: {error.strerror or error}",
            where=str(error.filename or self._root),
            fix="check registry.uri in params.yaml and the permissions of that folder",
        )


_LOCK = ".lock"


def _write_all(files: Mapping[str, Content], folder: Path) -> None:
    """Write read-only files, the marker last, all of them flushed to the disk."""
    for name in sorted(files, key=lambda name: (name == MARKER, name)):
        content, path = files[name], folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copyfile(content, path)
        else:
            path.write_bytes(content)
        path.chmod(0o444)
        with path.open("rb") as written:
            os.fsync(written.fileno())
    for inner in {(folder / name).parent for name in files}:
        _flush_folder(inner)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_held(folder: Path) -> bool:
    """Whether a living process writes into `folder`."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def open_store(uri: str, base: Path) -> Store:
    """Return the store of `s3://bucket/prefix` or of a folder (a relative one starts at `base`)."""
    if uri.startswith("s3://"):
        from components.registry.s3 import S3Store

        return S3Store(uri)
    return FolderStore((base / Path(uri).expanduser()).resolve())
