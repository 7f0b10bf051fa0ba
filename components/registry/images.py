"""The original files of images, by id, trusted only when their bytes are the expected ones."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path


class ImageFiles:
    """Files `<image_id>.<ext>` in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, image_id: str, sha256: str) -> bytes:
        """Return the bytes of an image.

        Raises
        ------
        FileNotFoundError
            It is not there, or has other bytes.
        """
        path = self._paths.get(image_id)
        if path is not None:
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() == sha256:
                return data
        raise FileNotFoundError(f"{image_id} is not in {self._folder} with the bytes it had")

    @cached_property
    def _paths(self) -> dict[str, Path]:
        if not self._folder.is_dir():
            return {}
        return {path.stem: path for path in sorted(self._folder.iterdir()) if path.is_file()}
