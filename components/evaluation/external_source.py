"""Which reader fits a labelled source that `params.yaml` does not describe: by what lies there."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from components.errors import ParamsError, SourceError
from components.evaluation.prediction_table import ALIASES

if TYPE_CHECKING:
    from components.dataset.config import SourceParams
    from components.dataset.sources.files import Files

_TABLES = (".csv", ".tsv", ".tab", ".parquet")
_HAM10000 = "ham10000_metadata"


def describe_source(uri: str, kind: str | None, default: SourceParams, cache: Path) -> SourceParams:
    """Return the source at `uri` with its reader and options.

    Parameters
    ----------
    uri
        Relative paths start where the user stands.
    kind
        The reader, where the user names it. Otherwise: `ham10000` where its metadata table lies;
        `table` where another table does, its columns called as in our labels table, HAM10000 or
        ISIC; else one folder per diagnosis. A `doi:` has the default's reader.
    default
        The first source in `params.yaml`; its options are used where the reader is the same.
    cache
        Folder of caches.

    Raises
    ------
    SourceError
        There is nothing, or no reader fits.
    ParamsError
        There is no such kind, or it needs options that the default has not.
    """
    from components.dataset.sources.config import FileOptions
    from components.dataset.sources.place import open_files

    if uri.startswith("synthetic:"):
        return _source("synthetic", uri, default, {})
    if kind is not None or uri.startswith("doi:"):
        return _source(kind or default.kind, uri, default, {})
    files = open_files(uri, FileOptions(), root=Path.cwd(), cache=cache)
    tables = [name for name in files.names() if name.lower().endswith(_TABLES)]
    stems = {PurePosixPath(name).stem.lower() for name in files.names()}
    if _HAM10000 in stems:
        return _source("ham10000", uri, default, {})
    if default.kind == "table" and tables:
        return _source("table", uri, default, {})
    if tables:
        return _source("table", uri, default, _columns(files, tables))
    return _source("class_folders", uri, default, {})


def _columns(files: Files, tables: list[str]) -> dict[str, Any]:
    """Return the options of the reader `table` for the only table that names its columns so."""
    from components.dataset.sources.config import COLUMNS
    from components.dataset.sources.listing import read_source_table

    fitting = {}
    for name in tables:
        header = read_source_table(files, name, ())[0].columns
        known = {ALIASES.get(column, column): column for column in reversed(header)}
        columns = {name: column for name, column in known.items() if name in COLUMNS}
        if {"image_id", "diagnosis"} <= set(columns):
            fitting[name] = columns
    if len(fitting) != 1:
        raise SourceError(
            f"{len(fitting)} tables with columns image_id and diagnosis (or dx) among "
            f"{', '.join(tables[:5])}",
            where=files.where,
            fix="leave one such table beside the images, or name a reader with --kind",
        )
    name, columns = fitting.popitem()
    return {"table": name, "columns": dict(sorted(columns.items()))}


def _source(kind: str, uri: str, default: SourceParams, options: dict[str, Any]) -> SourceParams:
    from pydantic import ValidationError

    from components.dataset.config import SourceParams

    inherited = dict(default.options) if kind == default.kind else {}
    try:
        return SourceParams.model_validate(
            {"kind": kind, "uri": uri, "options": inherited | options}
        )
    except ValidationError as error:
        raise ParamsError(
            f"the source cannot be read as {kind!r}: {error.errors()[0]['msg']}",
            where="--kind",
            fix="take one of synthetic, ham10000, class_folders, table; options come from the "
            "first source in params.yaml if that is of the same kind",
        ) from error
