"""The original files of images, by id, trusted only when their bytes are the expected ones."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

from components.dataset.originals import Original, list_originals


class ImageFiles:
    """The files of a snapshot, in the archives of `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, image_id: str, sha256: str) -> bytes:
        """Return the bytes of an image.

        Raises
        ------
        FileNotFoundError
            It is not there, or has other bytes.
        """
        file = self._files.get(image_id)
        if file is not None:
            data = file.read()
            if hashlib.sha256(data).hexdigest() == sha256:
                return data
        raise FileNotFoundError(f"{image_id} is not in {self._folder} with the bytes it had")

    @cached_property
    def _files(self) -> dict[str, Original]:
        return list_originals(self._folder)
