"""Weights files are opened as tensors and nothing else, and must fit to the last name."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from components.backbones.keymaps import State
from components.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn


def read_tensors(path: Path) -> State:
    """Open a weights file as tensors only: no code in it is run.

    Raises
    ------
    WeightsError
        It is damaged, or holds anything but a flat table of tensors.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise _not_tensors(path, "no such file") from error
    except (SafetensorError, OSError) as error:
        raise _not_tensors(path, str(error)) from error
    except Exception as error:  # the unpickler raises anything on what is damaged or not allowed
        told = str(error).strip() or type(error).__name__
        raise _not_tensors(path, told.splitlines()[0]) from error
    if not isinstance(state, dict) or not all(torch.is_tensor(value) for value in state.values()):
        raise _not_tensors(path, "this is no flat table of tensors (a state dict)")
    return dict(state)


def tensor_names(path: Path) -> set[str]:
    """Return the names of the tensors in a weights file; raises as `read_tensors`."""
    if path.suffix != ".safetensors":
        return set(read_tensors(path))
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:  # its header only
            return set(file.keys())
    except (SafetensorError, OSError) as error:
        raise _not_tensors(path, str(error)) from error


def is_ours(names: Iterable[str]) -> bool:
    """Whether tensors of these names are those of a model of ours: a body and a head."""
    return all(name.startswith(("body.", "head.")) for name in names)


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write `tensors` as safetensors.

    Raises
    ------
    OSError
        They cannot be written; a full disk has the number that it has everywhere.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), path, metadata={"format": "pt"})
    except SafetensorError as error:
        if f"(os error {errno.ENOSPC})" in str(error):  # its text is all that it keeps
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise


def _not_tensors(path: Path, what: str) -> WeightsError:
    return WeightsError(
        f"the weights cannot be opened as plain tensors: {what}",
        where=str(path),
        fix="give a safetensors file, or a state dict saved with torch.save",
    )


def copy_tensors(module: nn.Module, state: State, *, origin: str) -> None:
    """Copy `state` into `module`, cast to its dtypes; every tensor must have its place.

    Raises
    ------
    WeightsError
        A tensor is missing, too much, of another shape or not finite; the message lists which.
    """
    own = module.state_dict()
    problems = [
        f"{key} has shape {list(value.shape)}, the network {list(own[key].shape)}"
        for key, value in state.items()
        if key in own and value.shape != own[key].shape
    ]
    problems += [
        f"{key} holds numbers that are not finite"
        for key, value in state.items()
        if value.is_floating_point() and not value.isfinite().all()
    ]
    if not problems:
        result = module.load_state_dict(state, strict=False)
        # Files of before 2018 have no counter of batches; it is not used in our networks.
        missing = [k for k in result.missing_keys if not k.endswith("num_batches_tracked")]
        problems += [f"{key} is missing" for key in missing]
        problems += [f"{key} is not in the network" for key in result.unexpected_keys]
    if problems:
        shown = "; ".join(problems[:8])
        rest = f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise WeightsError(
            f"the weights do not fit: {shown}{rest}",
            where=origin,
            fix="give the file that belongs to this backbone (docs/backbones.md names it)",
        )
