"""Checkpoints: everything that a training needs to go on as if nothing had happened.

A checkpoint is a folder with one safetensors file and one JSON file that carries its checksum.
Ray Train copies it to the run's storage under the name of its epoch. On resume the newest one that
is whole is taken: a file that was cut off or damaged only costs one epoch.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from components.atomic import write_json
from components.backbones.tensors import write_tensors
from components.errors import TrainingError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem
    from torch import Tensor

TENSORS, FACTS = "state.safetensors", "state.json"
_FIRST_ATTEMPTS = 3


@dataclass(frozen=True)
class Checkpoint:
    """State at the end of an epoch: tensors by name, and facts that JSON can hold."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Storage:
    """A folder for checkpoints, local or on S3."""

    filesystem: FileSystem
    path: str

    @staticmethod
    def open(uri: str, *, patient: bool = True) -> Storage:
        """Open an absolute local folder or an `s3://bucket/prefix` URI.

        The AWS variables and `AWS_ENDPOINT_URL` mean what they mean everywhere. An S3 that is away
        is waited for, for a minute; not `patient`: for seconds.
        """
        from pyarrow.fs import LocalFileSystem

        if not uri.startswith("s3://"):
            return Storage(LocalFileSystem(), uri)
        from components.training.s3 import ATTEMPTS, PatientS3

        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        options: dict[str, Any] = {
            "region": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        }
        if endpoint:
            parts = urlsplit(endpoint)
            options |= {"endpoint_override": parts.netloc, "scheme": parts.scheme}
        attempts = ATTEMPTS if patient else _FIRST_ATTEMPTS
        return Storage(PatientS3(options, attempts), uri.removeprefix("s3://").rstrip("/"))

    def below(self, *names: str) -> Storage:
        """Return the folder `names` below this one."""
        return Storage(self.filesystem, str(PurePosixPath(self.path, *names)))

    def names(self) -> list[str]:
        """Return what lies in this folder, sorted; nothing if it does not exist."""
        from pyarrow.fs import FileSelector

        selector = FileSelector(self.path, allow_not_found=True)
        return sorted(info.base_name for info in self.filesystem.get_file_info(selector))

    def read(self, name: str) -> bytes:
        """Return the bytes of file `name`."""
        with self.filesystem.open_input_stream(str(PurePosixPath(self.path, name))) as stream:
            return stream.read()  # type: ignore[no-any-return]

    def put(self, folder: Path) -> None:
        """Copy the files of a local `folder` into this one."""
        from pyarrow.fs import copy_files

        self.filesystem.create_dir(self.path, recursive=True)
        # Threads: uploads from them were seen to hang (apache/arrow issue 32372).
        copy_files(
            str(folder), self.path, destination_filesystem=self.filesystem, use_threads=False
        )

    def fetch(self, folder: Path) -> None:
        """Copy the files of this folder into a local one."""
        from pyarrow.fs import copy_files

        folder.mkdir(parents=True, exist_ok=True)
        copy_files(self.path, str(folder), source_filesystem=self.filesystem)

    def keep_only(self, *names: str) -> None:
        """Remove what else lies in this folder."""
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(self.path, allow_not_found=True)
        for info in self.filesystem.get_file_info(selector):
            if info.base_name in names:
                continue
            if info.type == FileType.Directory:
                self.below(info.base_name).remove()
            else:
                self.remove(info.base_name)

    def remove(self, name: str | None = None) -> None:
        """Remove file `name`, or the whole folder; it may be gone already."""
        try:
            if name is None:
                self.filesystem.delete_dir(self.path)
            else:
                self.filesystem.delete_file(str(PurePosixPath(self.path, name)))
        except FileNotFoundError:
            pass


def forget_old(storage: Storage, seconds: float = 7 * 24 * 3600.0) -> None:
    """Remove the folders in `storage` in which nothing was written for so long.

    They are of trainings that were interrupted and never went on, because data, code or parameters
    changed in between; or that nobody has had the finished model of.
    """
    for name in storage.names():
        folder = storage.below(name)
        if 0 < last_written(folder) < time.time() - seconds:
            folder.remove()


def last_written(folder: Storage) -> float:
    """Return when something was last written in `folder`, in seconds since 1970; 0: it is empty."""
    from pyarrow.fs import FileSelector

    selector = FileSelector(folder.path, recursive=True, allow_not_found=True)
    found = folder.filesystem.get_file_info(selector)
    return max((info.mtime_ns or 0 for info in found), default=0) / 1e9


def absolute(storage: str, root: Path) -> str:
    """Return the URI or absolute folder of the parameter `storage` of the workspace at `root`."""
    return storage.rstrip("/") if storage.startswith("s3://") else str((root / storage).resolve())


def folder_name(epoch: int) -> str:
    """Name of the checkpoint after `epoch` epochs."""
    return f"epoch-{epoch:05d}"


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` into `folder`."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _distinct(checkpoint)}
    write_tensors(tensors, folder / TENSORS)
    digest = hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest()
    write_json(folder / FACTS, {"sha256": digest, "facts": checkpoint.facts})


def _distinct(checkpoint: Checkpoint) -> list[tuple[str, Tensor]]:
    """safetensors refuses tensors that share memory; ours are copied where they do."""
    seen: set[int] = set()
    distinct = []
    for name, tensor in checkpoint.tensors.items():
        own = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
        distinct.append((name, own))
    return distinct


def newest_whole(storage: Storage) -> Checkpoint | None:
    """Return the newest checkpoint in `storage` that is whole, or None.

    Those that are not are named on standard output.
    """
    for name in reversed(storage.names()):
        if not name.startswith("epoch-"):
            continue
        try:
            return _load(storage.below(name))
        except _DamagedError as error:
            print(f"checkpoint {name} is damaged ({error}): taking the one before", flush=True)
    return None


class _DamagedError(Exception):
    pass


def _load(storage: Storage) -> Checkpoint:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        document = json.loads(storage.read(FACTS))
        data = storage.read(TENSORS)
        if hashlib.sha256(data).hexdigest() != document["sha256"]:
            raise _DamagedError("wrong checksum")
        return Checkpoint(load(data), document["facts"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise _DamagedError(str(error).splitlines()[0]) from error


def check_writable(uri: str) -> None:
    """Raise `TrainingError` when nothing can be stored below `uri`.

    Raises
    ------
    TrainingError
        The bucket is missing, or the folder or bucket may not be written to.
    """
    storage = Storage.open(uri, patient=False)  # a wrong address shall be told at once
    try:
        storage.filesystem.create_dir(storage.path, recursive=True)
    except OSError as error:
        raise TrainingError(
            f"checkpoints cannot be stored: {str(error).splitlines()[0]}",
            where=f"storage: {uri}",
            fix="create the folder or bucket, allow writing to it, or set `storage` in params.yaml",
        ) from error
