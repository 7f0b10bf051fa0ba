"""What `params.yaml` says of sources, measuring, near-duplicates and packing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from components.dataset.sources.config import OPTIONS
from components.settings import Settings


class SourceParams(Settings):
    """One data source; the list of sources makes one snapshot.

    `kind` names the reader in `components/dataset/sources/`, `uri` says where the data lies (for
    the synthetic generator it is `synthetic:`), `options` are the reader's: see
    `components/dataset/sources/config.py`.
    """

    kind: Literal["synthetic", "ham10000", "class_folders", "table"]
    uri: str = Field(min_length=1)
    options: dict[str, str | int | float | bool | dict[str, str] | None] = Field(
        default_factory=dict
    )

    @model_validator(mode="after")
    def _options_are_the_readers(self) -> Self:
        try:
            OPTIONS[self.kind].model_validate(self.options)
        except ValidationError as error:
            allowed = ", ".join(OPTIONS[self.kind].model_fields)
            wrong = "; ".join(
                f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()
            )
            raise ValueError(f"options of {self.kind}: {wrong} (there are: {allowed})") from error
        return self


class DiagnosesParams(Settings):
    """The classes of the recipe, in the order of every probability vector."""

    classes: tuple[str, ...] = Field(min_length=2)
    malignant: tuple[str, ...]
    names: dict[str, str | None] = Field(default_factory=dict)
    """Spelling in a source -> class, where a source uses other names; null: these images are left
    out. The empty spelling stands for no diagnosis."""

    @field_validator("classes")
    @classmethod
    def _classes_are_distinct(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        """Capital letters do not tell classes apart: sources are read without regard to them."""
        if not all(name.strip() for name in classes):
            raise ValueError("give every class a name")
        twice = _twice(classes)
        if twice is not None:
            raise ValueError(f"{twice!r} is there twice; name every class once (Mel is mel)")
        return classes

    @field_validator("malignant")
    @classmethod
    def _malignant_ones_are_classes(
        cls, malignant: tuple[str, ...], info: ValidationInfo
    ) -> tuple[str, ...]:
        _check_classes(malignant, info)
        twice = _twice(malignant)
        if twice is not None:
            raise ValueError(f"{twice!r} is there twice; name every class once")
        return malignant

    @field_validator("names")
    @classmethod
    def _names_lead_to_classes(
        cls, names: dict[str, str | None], info: ValidationInfo
    ) -> dict[str, str | None]:
        _check_classes([name for name in names.values() if name is not None], info, or_null=True)
        return names


def _twice(names: Sequence[str]) -> str | None:
    """Return the first name that was there before, in small or capital letters."""
    seen: set[str] = set()
    for name in names:
        if name.lower() in seen:
            return name
        seen.add(name.lower())
    return None


def _check_classes(names: Sequence[str], info: ValidationInfo, *, or_null: bool = False) -> None:
    """Raise ValueError unless `names` are classes; wrong classes have their own message."""
    classes: tuple[str, ...] | None = info.data.get("classes")
    unknown = [name for name in names if classes is not None and name not in classes]
    if classes is not None and unknown:
        allowed = ", ".join(classes) + (", or null to leave images out" if or_null else "")
        raise ValueError(f"{unknown[0]!r} is none of the classes; choose of {allowed}")


class PairsParams(Settings):
    """What counts as the same spot photographed again."""

    enabled: bool = True
    min_evidence: float = Field(default=1.0, gt=0)
    """(keypoints that one movement explains - 3) × likeness of the skin where one picture lies on
    the other: 8 keypoints at a likeness of 0.2, say. More of it joins fewer pictures."""


class PackParams(Settings):
    """How an image becomes a packed uint8 square of `image_size` pixels."""

    image_size: int = Field(ge=16, le=1024)
    fit: Literal["crop", "pad", "stretch"] = "crop"
