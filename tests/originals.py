"""Original files for tests, in the form in which a snapshot keeps them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from components.dataset.originals import OriginalsWriter, list_originals


def write_originals(folder: Path, files: Mapping[str, bytes], source: str = "made") -> None:
    """Let `folder` hold these files (`<image_id>.<ext>` -> bytes), and no others."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with OriginalsWriter(folder, source) as writer:
        for name in sorted(files, key=lambda name: PurePosixPath(name).stem):
            path = PurePosixPath(name)
            writer.add(path.stem, path.suffix, files[name])


def read_originals(folder: Path) -> dict[str, bytes]:
    """Return what `folder` holds, as `<image_id>.<ext>` -> bytes."""
    return {file.name: file.read() for file in list_originals(folder).values()}
