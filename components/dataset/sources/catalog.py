"""Every kind of source behind two functions: what it is (a fingerprint) and what it holds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from components.dataset.config import SourceParams
from components.dataset.sources import class_folders, ham10000, synthetic, table
from components.dataset.sources.config import (
    OPTIONS,
    CommonOptions,
    FileOptions,
    Ham10000Options,
    SyntheticOptions,
    TableOptions,
)
from components.dataset.sources.files import Files
from components.dataset.sources.place import open_files
from components.dataset.sources.source import SourceImages


def read_source(source: SourceParams, root: Path, cache: Path) -> SourceImages:
    """Read a source's labels and find its images; no image is read yet.

    Parameters
    ----------
    source
        As `params.yaml` names it.
    root, cache
        Folder of the workspace (relative URIs start there), folder of caches.

    Raises
    ------
    SourceError
        It does not exist, has no image, or its table lacks a column or contradicts itself.
    """
    options = OPTIONS[source.kind].model_validate(source.options)
    if isinstance(options, SyntheticOptions):
        return _with_options(synthetic.read(options), options)
    assert isinstance(options, FileOptions)
    files = _open(source, options, root, cache)
    if isinstance(options, Ham10000Options):
        images = ham10000.read(files)
    elif isinstance(options, TableOptions):
        images = table.read(files, options)
    else:
        images = class_folders.read(files)
    return _with_options(images, options)


def fingerprint_source(source: SourceParams, root: Path, cache: Path) -> str:
    """Return a hash that changes when the source's content does; nothing of it is interpreted.

    Raises
    ------
    SourceError
        The source cannot be reached.
    """
    options = OPTIONS[source.kind].model_validate(source.options)
    if isinstance(options, SyntheticOptions):
        return synthetic.fingerprint(options)
    assert isinstance(options, FileOptions)
    return _open(source, options, root, cache).fingerprint()


def source_names(sources: Sequence[SourceParams]) -> list[str]:
    """Return a distinct name for each source: its option `name`, or the last part of its URI."""
    names: list[str] = []
    for source in sources:
        name = str(source.options.get("name") or _uri_name(source))
        taken, number = name, 1
        while taken in names:
            number += 1
            taken = f"{name}-{number}"
        names.append(taken)
    return names


def _open(source: SourceParams, options: FileOptions, root: Path, cache: Path) -> Files:
    wanted = ham10000.DOI_FILES if source.kind == "ham10000" else ()
    return open_files(source.uri, options, root=root, cache=cache, doi_files=wanted)


def _with_options(images: SourceImages, options: CommonOptions) -> SourceImages:
    prefix, labels = options.prefix, images.labels
    parts = images.given_parts
    if options.part:
        parts = dict.fromkeys(labels["image_id"], options.part)
    groups = {}
    if options.group_prefix:
        groups = {
            column: options.group_prefix + labels[column].astype("str")
            for column in ("lesion_id", "patient_id")
        }
    return replace(
        images,
        labels=labels.assign(image_id=prefix + labels["image_id"], **groups),
        files={prefix + image_id: name for image_id, name in images.files.items()},
        given_parts={prefix + image_id: part for image_id, part in parts.items()},
        seen_twice={prefix + image_id: rows for image_id, rows in images.seen_twice.items()},
        licence=options.licence or images.licence,
        attribution=options.attribution or images.attribution,
    )


def _uri_name(source: SourceParams) -> str:
    if source.kind == "synthetic":
        return "synthetic"
    last = PurePosixPath(source.uri.partition("?")[0]).name
    last = re.sub(r"\.(zip|tar|tgz|tar\.(gz|bz2|xz))$", "", last, flags=re.IGNORECASE)
    return re.sub(r"[^\w.-]", "_", last) or source.kind
