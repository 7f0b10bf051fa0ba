"""Files behind `https://` and behind the DOI of a data set; downloaded once, resumed, checked."""

from __future__ import annotations

import fnmatch
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from components.atomic import disk_full_as_error
from components.dataset.sources.copies import DOWNLOADS
from components.dataset.sources.files import digest_of
from components.errors import SourceError
from components.progress import Progress

if TYPE_CHECKING:
    import requests

T = TypeVar("T")
_TIMEOUT_S = (15, 60)
_ATTEMPTS = 5  # in a row that brought nothing
_PAUSE_S = 0.5
_CHUNK_BYTES = 1 << 16  # what is lost of a broken connection


class HttpFile:
    """One file (an archive) behind a URL."""

    def __init__(self, url: str, cache: Path, sha256: str | None) -> None:
        self.where = url
        self._cache = cache
        self._sha256 = sha256
        self._name = unquote(PurePosixPath(urlsplit(url).path).name)

    def names(self) -> Sequence[str]:
        """Return the file's name, the last part of the URL's path."""
        return [self._name]

    def read(self, name: str) -> bytes:
        """Return the file's bytes."""
        return self.local_path(name).read_bytes()

    def local_path(self, name: str) -> Path:
        """Download the file, once for its fingerprint."""
        known_hash = f"sha256:{self._sha256}" if self._sha256 else None
        folder = self._cache / DOWNLOADS / self.fingerprint()
        return download(self.where, known_hash, folder, name)

    def fingerprint(self) -> str:
        """Return the known hash, or a hash of the URL and what the server calls its version."""
        version = self._sha256 or self._server_version
        return digest_of({self.where: version})

    @cached_property
    def _server_version(self) -> str:
        import requests

        def ask() -> requests.Response:
            answer = requests.head(self.where, allow_redirects=True, timeout=_TIMEOUT_S)
            answer.raise_for_status()
            return answer

        with _network_errors(self.where):
            answer = _patiently(ask)
        version = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        if not version:
            raise SourceError(
                "the server does not say which version of the file it has",
                where=self.where,
                fix="give the source an option `sha256` with the file's hash",
            )
        return version


class DoiFiles:
    """The files of a data set by its DOI (Dataverse, Zenodo, figshare), checked by their MD5.

    Parameters
    ----------
    doi
        Such as `10.7910/DVN/DBW86T`.
    cache
        Folder of caches.
    server
        Address of the Dataverse that holds it; None: doi.org knows.
    wanted
        Patterns of the file names that are looked at; empty: all.
    """

    def __init__(self, doi: str, cache: Path, server: str | None, wanted: Sequence[str]) -> None:
        self.where = f"doi:{doi}"
        self._doi = doi
        self._cache = cache
        self._server = server
        self._wanted = tuple(wanted)

    def names(self) -> Sequence[str]:
        """Return the names in the data set."""
        return sorted(self._hashes)

    def read(self, name: str) -> bytes:
        """Return the bytes of a file."""
        return self.local_path(name).read_bytes()

    def local_path(self, name: str) -> Path:
        """Download a file, once for its hash."""
        known_hash = self._hashes[name]
        key = hashlib.sha256(f"{self._doi}/{name}/{known_hash}".encode()).hexdigest()
        url = self._repository.download_url(name)
        if name in self._converted:
            # The hash is that of what was uploaded, not of the server's own form of a table.
            url += "?format=original"
        return download(url, known_hash, self._cache / DOWNLOADS / key, PurePosixPath(name).name)

    def fingerprint(self) -> str:
        """Return a hash of the names and hashes that the data set lists."""
        return digest_of(self._hashes)

    @cached_property
    def _repository(self) -> Any:
        from pooch.downloaders import doi_to_repository

        with _network_errors(self.where):
            if self._server is not None:
                return _patiently(lambda: self._dataverse(str(self._server)))
            return _patiently(lambda: doi_to_repository(self._doi, timeout=_TIMEOUT_S))

    def _dataverse(self, server: str) -> Any:
        """Return what pooch knows of the data set on `server`.

        pooch itself would take a server in trouble for one that has no such data set.
        """
        import requests
        from pooch.downloaders import DataverseRepository

        answer = requests.get(
            f"{server.rstrip('/')}/api/datasets/:persistentId?persistentId=doi:{self._doi}",
            timeout=_TIMEOUT_S,
        )
        if answer.status_code == requests.codes.not_found:
            raise ValueError(f"{server} has no data set {self._doi}")
        answer.raise_for_status()
        found = DataverseRepository(self._doi, server, timeout=_TIMEOUT_S)
        found.api_response = answer
        return found

    @cached_property
    def _hashes(self) -> dict[str, str]:
        """Name -> hash, as pooch writes them (`md5:…`)."""

        import pooch

        listed = pooch.create(path=self._cache, base_url="")
        with _network_errors(self.where):
            _patiently(lambda: self._repository.populate_registry(listed))
        found = {
            name: known_hash
            for name, known_hash in listed.registry.items()
            if not self._wanted or any(fnmatch.fnmatch(name, like) for like in self._wanted)
        }
        if not found:
            raise SourceError(
                f"the data set has no file called like {', '.join(self._wanted) or 'anything'}",
                where=self.where,
                fix="check the DOI, or download the data and point the source to the folder",
            )
        return found

    @cached_property
    def _converted(self) -> frozenset[str]:
        """Names of the tables that a Dataverse has converted to a form of its own."""
        from pooch.downloaders import DataverseRepository

        if not isinstance(self._repository, DataverseRepository):
            return frozenset()
        listed = self._repository.api_response.json()["data"]["latestVersion"]["files"]
        files = [item["dataFile"] for item in listed]
        return frozenset(file["filename"] for file in files if "originalFileFormat" in file)


def download(url: str, known_hash: str | None, folder: Path, name: str) -> Path:
    """Download `url` to `folder / name` unless it is there; resume what was broken off.

    Parameters
    ----------
    known_hash
        `sha256:…` or `md5:…`; a file with another one is refused.

    Raises
    ------
    SourceError
        The server cannot be reached, or the bytes are not the known ones.
    """
    import pooch

    target = folder / name
    if target.exists():
        return target
    print(f"downloading {url}", flush=True)
    with _network_errors(url), disk_full_as_error(target):
        pooch.retrieve(
            url,
            known_hash=known_hash,
            fname=name,
            path=folder,
            downloader=_Resuming(folder / f"{name}.partial"),
        )
    return target


class _Resuming:
    """A downloader for pooch that goes on where the last attempt ended, also of another process.

    The beginning is used only if the server says that the file is still the same (`If-Range`).
    """

    def __init__(self, partial: Path) -> None:
        self._partial = partial
        self._version = partial.with_name(f"{partial.name}-version")

    def __call__(self, url: str, output_file: str, pooch: object) -> None:  # noqa: ARG002
        """Download `url` and move it to `output_file`."""
        from requests import RequestException

        self._partial.parent.mkdir(parents=True, exist_ok=True)
        attempt, furthest = 0, self._done
        while True:
            try:
                self._go_on(url)
                break
            except RequestException as error:
                attempt = 1 if self._done > furthest else attempt + 1
                furthest = max(furthest, self._done)
                _pause_before_another(attempt, error)
        self._partial.replace(output_file)
        self._version.unlink(missing_ok=True)

    @property
    def _done(self) -> int:
        return self._partial.stat().st_size if self._partial.exists() else 0

    def _go_on(self, url: str) -> None:
        import requests

        headers = {"Accept-Encoding": "identity"}
        done = self._done
        version = self._version.read_text() if self._version.exists() else ""
        if done and version:
            headers |= {"Range": f"bytes={done}-", "If-Range": version}
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as answer:
            if answer.status_code == 416:
                if answer.headers.get("Content-Range") == f"bytes */{done}":
                    return  # it was complete
                self._partial.unlink()
                raise requests.ConnectionError("the file changed while it was downloaded")
            answer.raise_for_status()
            resumed = answer.status_code == 206
            done = done if resumed else 0
            self._version.write_text(
                answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
            )
            total = done + int(answer.headers.get("Content-Length", 0))
            with self._partial.open("ab" if resumed else "wb") as file:
                _save(answer, file, done, total)


def _save(answer: Any, file: IO[bytes], done: int, total: int) -> None:
    printed = time.monotonic()
    for piece in answer.iter_content(_CHUNK_BYTES):
        file.write(piece)
        done += len(piece)
        if time.monotonic() - printed > 0.5 or done == total:
            printed = time.monotonic()
            print(Progress("download", done >> 20, max(total, done) >> 20, "MiB"), flush=True)


def _patiently(ask: Callable[[], T]) -> T:
    """Return what `ask` returns; ask again while the network or the server is in trouble."""
    from requests import RequestException

    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return ask()
        except RequestException as error:
            _pause_before_another(attempt, error)
    raise AssertionError  # it returned or raised


def _pause_before_another(attempt: int, error: requests.RequestException) -> None:
    """Wait after attempt number `attempt`; raise `error` if another one makes no sense."""
    if attempt == _ATTEMPTS or not _may_pass(error):
        raise error
    print(f"interrupted ({type(error).__name__}), going on", flush=True)
    time.sleep(_PAUSE_S * attempt)


def _may_pass(error: requests.RequestException) -> bool:
    """Whether it may go through a moment later; a server that says no (404, 403) is believed."""
    from requests.exceptions import ChunkedEncodingError, ConnectionError, Timeout

    if isinstance(error, ChunkedEncodingError | ConnectionError | Timeout):
        return True
    status = error.response.status_code if error.response is not None else 0
    return status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR


@contextmanager
def _network_errors(where: str) -> Iterator[None]:
    import requests

    try:
        yield
    except (requests.RequestException, ValueError, KeyError) as error:
        raise SourceError(
            f"the download failed: {error}",
            where=where,
            fix="check the address and the network, then run the same command again: it goes on "
            "where it stopped; or download the data yourself and give the folder as --source",
        ) from error
