"""A model on disk: `model.json` beside safetensors files, and what predicts with them.

One file format for a training run, an ensemble and a version of the registry. The other
components import all of it from here; nothing in it imports torch before it is needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from components.atomic import atomic_path, write_json
from components.backbones.loaded import LoadedModel
from components.backbones.model_file import (
    MODEL_JSON,
    SCHEMA_VERSION,
    Member,
    ModelFile,
    damaged,
    read_model,
)
from components.backbones.tensors import write_tensors
from components.backbones.zoo import create_backbone
from components.errors import RegistryError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from components.backbones.heads import Classifier

__all__ = [
    "MODEL_JSON",
    "SCHEMA_VERSION",
    "LoadedModel",
    "Member",
    "ModelFile",
    "load_model",
    "read_model",
    "save_model",
]


def save_model(
    folder: Path, state_dicts: Sequence[Mapping[str, Tensor]], model_file: ModelFile
) -> ModelFile:
    """Write the weights of each member and, last, `model.json`; same content, same bytes.

    Parameters
    ----------
    folder
        Made if it is not there.
    state_dicts
        Of each member of `model_file`, in its order; floats are stored as they are.
    model_file
        The members' `sha256` is filled in.

    Returns
    -------
    ModelFile
        What was written.

    Raises
    ------
    RuntimeError
        A state dict is not that of its member's network (a wrapper's prefix, say).
    """
    members = []
    for member, state in zip(model_file.members, state_dicts, strict=True):
        tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
        _network_of(member, len(model_file.classes), tensors)
        with atomic_path(folder / member.file) as temporary:
            write_tensors(tensors, temporary)
        digest = hashlib.sha256((folder / member.file).read_bytes()).hexdigest()
        members.append(member.model_copy(update={"sha256": digest}))
    written = model_file.model_copy(update={"members": tuple(members)})
    write_json(folder / MODEL_JSON, written.model_dump(mode="json"))
    return written


def load_model(folder: Path, verify: bool = True, device: str | None = None) -> LoadedModel:
    """Read a model to predict with.

    Parameters
    ----------
    folder
        Holds `model.json` and the weights that it names.
    verify
        Compare the weights' checksums.
    device
        Default: a CUDA GPU if there is one, else the CPU.

    Raises
    ------
    RegistryError
        A file is missing, does not have the checksum of `model.json`, or does not fit.
    """
    import torch

    model_file = read_model(folder)
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    networks = [
        _network(folder, member, len(model_file.classes), verify, chosen)
        for member in model_file.members
    ]
    return LoadedModel(model_file, networks, chosen)


def _network(
    folder: Path, member: Member, num_classes: int, verify: bool, device: torch.device
) -> Classifier:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = folder / member.file
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise RegistryError(
            "the weights are missing", where=str(path), fix="fetch the model again"
        ) from error
    if verify and hashlib.sha256(data).hexdigest() != member.sha256:
        raise damaged(path, "the checksum is not the one in model.json")
    try:
        network = _network_of(member, num_classes, load(data))
    except (SafetensorError, RuntimeError) as error:
        raise damaged(path, str(error)) from error
    network.requires_grad_(False).eval()
    return network.float().to(memory_format=torch.channels_last).to(device)


def _network_of(member: Member, num_classes: int, state: Mapping[str, Tensor]) -> Classifier:
    """Return the network with the tensors of `state` (shared), each of which has its place."""
    import torch

    with torch.device("meta"):  # no random start that is thrown away
        network = create_backbone(member.backbone, num_classes)
    network.load_state_dict(state, strict=True, assign=True)
    return network
