"""What makes two trainings the same one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

_CODE = Path(__file__).resolve().parents[1]


def identity_of(
    provenance: dict[str, Any], classes: Sequence[str], malignant: Sequence[str]
) -> str:
    """Hash what a result follows from: data, split, weights, parameters, seed, code, torch."""
    from importlib.metadata import version

    document = {
        "provenance": provenance,
        "classes": list(classes),
        "malignant": list(malignant),
        "code": code_hash([_CODE / "training", _CODE / "backbones"]),
        "torch": version("torch"),
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:32]


def content_hash(images: pd.DataFrame) -> str:
    """Hash which image is in which part, with which label."""
    columns = ["image_id", "group_id", "split", "fold", "diagnosis"]
    text = images[columns].to_csv(index=False, lineterminator="\n")
    return hashlib.sha256(text.encode()).hexdigest()


def code_hash(folders: Sequence[Path]) -> str:
    """Hash the Python files of `folders` (their names and bytes)."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{path.relative_to(folder.parent)}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
