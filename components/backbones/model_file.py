"""`model.json`: what a saved model says of itself; read without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from components.backbones.config import BACKBONE_NAMES
from components.backbones.preprocess import Preprocessing
from components.errors import RegistryError
from components.settings import Settings

SCHEMA_VERSION = 1
MODEL_JSON = "model.json"


class Member(Settings):
    """One network of a model."""

    file: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors$")
    """Name of its weights beside `model.json`."""
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    """Of the file; `save_model` fills it in."""
    backbone: str
    preprocessing: Preprocessing
    temperature: float = Field(default=1.0, gt=0)
    weight: float = Field(default=1.0, gt=0)
    tta: bool = False
    """Average over the eight flips and quarter turns of each picture."""

    @field_validator("backbone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in BACKBONE_NAMES:
            raise ValueError(f"unknown backbone {name!r}")
        return name


class ModelFile(Settings):
    """What `model.json` says."""

    schema_version: Literal[1] = 1
    classes: tuple[str, ...] = Field(min_length=2)
    """In the order of every probability vector."""
    malignant: tuple[str, ...]
    members: tuple[Member, ...] = Field(min_length=1)
    provenance: dict[str, Any] = Field(default_factory=dict)
    """Where it comes from: weights, parameters, data, split, ..."""

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes: a name is there twice")
        if not set(self.malignant) <= set(self.classes):
            raise ValueError("malignant: only names of classes")
        if len({member.file for member in self.members}) != len(self.members):
            raise ValueError("members: two have the same file")
        return self


def read_model(folder: Path) -> ModelFile:
    """Read `folder`/model.json.

    Raises
    ------
    RegistryError
        It is missing, damaged, or of a schema version that this Lesionflow does not know.
    """
    path = folder / MODEL_JSON
    try:
        text = path.read_text(encoding="utf-8")
        document = json.loads(text)
    except FileNotFoundError as error:
        raise RegistryError(
            "there is no model here", where=str(path), fix="name a folder that holds a model.json"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise damaged(path, f"no valid JSON: {error}") from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if version != SCHEMA_VERSION:
        raise RegistryError(
            f"schema_version {version!r} is not known",
            where=str(path),
            fix=f"this Lesionflow reads schema_version {SCHEMA_VERSION}: "
            "install the version that wrote the model",
        )
    try:
        return ModelFile.model_validate_json(json.dumps(_with_tta_of_members(document)))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()
        )
        raise damaged(path, problems) from error


def _with_tta_of_members(document: dict[str, Any]) -> dict[str, Any]:
    """Give every member the `tta` that files written before members had one say for all."""
    members = document.get("members")
    if not isinstance(document.get("tta"), bool) or not isinstance(members, list):
        return document
    rest = {key: value for key, value in document.items() if key != "tta"}
    own = [{"tta": document["tta"], **m} if isinstance(m, dict) else m for m in members]
    return rest | {"members": own}


def damaged(path: Path, what: str) -> RegistryError:
    """Return the error of a file that is not what it should be."""
    return RegistryError(
        what, where=str(path), fix="fetch the model again, or train and save it again"
    )
