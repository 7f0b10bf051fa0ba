"""What the models have seen that a training started from.

A model that was fine-tuned from an earlier version has been trained on that one's images too,
whatever part they are in now.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from components.registry.versions import Registry
from components.tables import read_table

EXPOSURE, INHERITED = "exposure.parquet", "inherited.parquet"
EXPOSURE_COLUMNS = (
    "image_id",
    "sha256",
    "group_id",
    "lesion_id",
    "patient_id",
    "diagnosis",
    "split",
)
SEEN = ("train", "validation")
"""Parts that a model is trained or selected on."""
REGISTERED = "registry:"
"""How weights are named that come from a version: `registry:v0001`."""


def inherited_exposure(origins: Sequence[str], registry: Registry, base: Path) -> pd.DataFrame:
    """Return the images that the starting points of some trainings were trained or selected on.

    Parameters
    ----------
    origins
        Where each training's weights come from, as `model.json` says: `registry:<version>`, or
        the path of a folder that may hold a version (others have no such list).
    base
        Folder that a relative path starts from.

    Raises
    ------
    RegistryError
        A version that a training started from is not in the registry any more.
    """
    tables = []
    for origin in sorted(set(origins)):
        if origin.startswith(REGISTERED):
            name = origin.removeprefix(REGISTERED).removeprefix("v")
            folder = registry.fetch(f"v{int(name):04d}")
        else:
            folder = base / origin
        tables += [
            read_table(folder / name, EXPOSURE_COLUMNS)
            for name in (EXPOSURE, INHERITED)
            if (folder / name).is_file()
        ]
    everything = pd.concat([pd.DataFrame(columns=list(EXPOSURE_COLUMNS)), *tables])
    seen = everything[everything["split"].isin(SEEN)].drop_duplicates(["image_id", "sha256"])
    ordered = seen[list(EXPOSURE_COLUMNS)].sort_values(["image_id", "sha256"], ignore_index=True)
    return ordered.astype(object).where(ordered.notna(), None)
