"""Options of each kind of source, as `sources[].options` in `params.yaml`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from components.settings import Settings

COLUMNS = (
    "image_id",
    "patient_id",
    "lesion_id",
    "diagnosis",
    "diagnosis_method",
    "age_years",
    "sex",
    "site",
    "skin_type",
)
"""Columns of the labels table that a table can fill."""


class CommonOptions(Settings):
    """What every source may say of itself."""

    name: str | None = Field(default=None, pattern=r"^[\w.-]+$")
    """Name in the labels table; null: the last part of the URI."""
    prefix: str = Field(default="", pattern=r"^[\w.-]*$")
    """Put before every image id, where two sources use the same ids for different pictures."""
    group_prefix: str = Field(default="", pattern=r"^[\w.-]*$")
    """Put before every lesion and patient id, where two sources number different ones alike."""
    part: Literal["train", "test"] | None = None
    """The part that the whole source was published as; see `split.official_test`."""
    licence: str | None = None
    attribution: str | None = None


class SyntheticOptions(CommonOptions):
    """The generator. Another number of lesions only adds or takes away the last ones."""

    lesions: int = Field(default=280, ge=1, le=1_000_000)
    image_size: int = Field(default=160, ge=32, le=1024)
    seed: int = Field(default=0, ge=0)
    broken: bool = True
    """A truncated file, an empty one, one that is no image, one that is listed but absent."""


class FileOptions(CommonOptions):
    """A source made of files."""

    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Of an `https://` archive: checked after the download, and no other request is made."""
    server: str | None = Field(default=None, pattern=r"^https?://")
    """Address of the Dataverse that has the data set of a `doi:`; null: doi.org knows."""


class Ham10000Options(FileOptions):
    """HAM10000 as downloaded."""


class ClassFoldersOptions(FileOptions):
    """One folder per diagnosis, perhaps below `train` and `test`."""


class TableOptions(FileOptions):
    """A table and images; either a `preset`, or `columns` with at least image_id and diagnosis."""

    preset: Literal["isic2019", "isic2020", "pad-ufes-20"] | None = None
    table: str | None = None
    """Pattern of the table's name (`*labels*.csv`); null: the preset's, or the only table there."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Column of the labels table -> column of the source's; added to the preset's."""

    @model_validator(mode="after")
    def _columns_make_a_labels_table(self) -> Self:
        unknown = sorted(set(self.columns) - set(COLUMNS))
        if unknown:
            raise ValueError(f"columns: {unknown[0]} is none of {', '.join(COLUMNS)}")
        if self.preset is None and not {"image_id", "diagnosis"} <= set(self.columns):
            raise ValueError("give a preset, or columns with at least image_id and diagnosis")
        return self


OPTIONS: dict[str, type[CommonOptions]] = {
    "synthetic": SyntheticOptions,
    "ham10000": Ham10000Options,
    "class_folders": ClassFoldersOptions,
    "table": TableOptions,
}
