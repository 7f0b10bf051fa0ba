"""How often a test set has been used to decide, as the report may know it.

The registry keeps the record (`components.registry.looks`). A report must be a function of its
inputs, so the counts are one of them: `data/test_uses.json`, in Git. No stage writes it; the flow
brings it up to date before it makes a new report.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from components.atomic import write_json
from components.errors import TableError

_VERSION = 1


def id_of_test_set(images: pd.DataFrame) -> str:
    """Return the hash of test images (`sha256`) and their `diagnosis`, whatever their order."""
    rows = sorted(images[["sha256", "diagnosis"]].astype(str).to_numpy(object).tolist())
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def read_test_uses(path: Path) -> dict[str, int]:
    """Return test set -> number of candidates; an empty object in the file stands for none.

    Raises
    ------
    TableError
        The file is missing, is no JSON, or is of another version.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document == {}:
            return {}
        if document["schema_version"] != _VERSION:
            raise ValueError(f"schema version {document['schema_version']}")
        return {str(name): int(count) for name, count in document["candidates"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TableError(
            f"how often test sets have been used cannot be read: {error}",
            where=str(path),
            fix="take the file from Git again, or write {} into it: the next `lesionflow retrain` "
            "asks the registry",
        ) from error


def write_test_uses(path: Path, candidates: Mapping[str, int]) -> None:
    """Write what `read_test_uses` reads; the file stays as it is where nothing has changed."""
    if path.is_file() and read_test_uses(path) == candidates:
        return
    write_json(path, {"schema_version": _VERSION, "candidates": dict(sorted(candidates.items()))})
