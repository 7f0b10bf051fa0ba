"""From a URI to files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from components.dataset.sources.archives import (
    TAR_SUFFIXES,
    ZIP_SUFFIXES,
    WithArchives,
    is_archive,
)
from components.dataset.sources.config import FileOptions
from components.dataset.sources.downloads import DoiFiles, HttpFile
from components.dataset.sources.files import Files, FolderFiles
from components.dataset.sources.s3 import S3Files
from components.errors import SourceError


def open_files(
    uri: str, options: FileOptions, *, root: Path, cache: Path, doi_files: Sequence[str] = ()
) -> Files:
    """Open the files at `uri`, archives included; nothing is read or downloaded yet.

    Parameters
    ----------
    uri
        A folder or an archive (absolute, with `~`, or relative to `root`), `file://…`, `s3://…`,
        `https://…`, or `doi:…`.
    options
        Of the source.
    root, cache
        Folder of the workspace, folder of caches.
    doi_files
        Patterns of the files of a data set that are wanted; empty: all.

    Raises
    ------
    SourceError
        There is nothing at a local path, or the scheme is unknown.
    """
    return WithArchives(_plain_files(uri, options, root, cache, doi_files), cache)


def _plain_files(
    uri: str, options: FileOptions, root: Path, cache: Path, doi_files: Sequence[str]
) -> Files:
    scheme = uri.partition(":")[0].lower() if ":" in uri else ""
    if scheme == "s3":
        return S3Files(uri, cache)
    if scheme in {"https", "http"}:
        return _archive_behind(uri, options, cache)
    if scheme == "doi":
        return DoiFiles(uri.partition(":")[2].strip("/"), cache, options.server, doi_files)
    if scheme == "file":
        return _local_files(Path(unquote(urlsplit(uri).path)), uri, cache)
    if "://" in uri:
        raise SourceError(
            f"unknown kind of address: {uri}",
            where="sources in params.yaml",
            fix="give a folder, an archive, file://, s3://, https:// or doi:",
        )
    return _local_files(root / Path(uri).expanduser(), uri, cache)


def _archive_behind(url: str, options: FileOptions, cache: Path) -> Files:
    if not is_archive(urlsplit(url).path):
        raise SourceError(
            f"this is not the address of an archive: {url}",
            where="sources in params.yaml",
            fix=f"give one that ends in {', '.join(ZIP_SUFFIXES + TAR_SUFFIXES)}; or download the "
            "data and give the folder",
        )
    return HttpFile(url, cache, options.sha256)


def _local_files(path: Path, uri: str, cache: Path) -> Files:
    if path.is_dir():
        return FolderFiles(path.resolve(), cache)
    if path.is_file():
        return FolderFiles(path.resolve().parent, cache, only=path.resolve().name)
    raise SourceError(
        f"the source does not exist: {uri}",
        where=f"{path} (sources in params.yaml)",
        fix="correct the path, or run `lesionflow use RECIPE --source FOLDER`",
    )
