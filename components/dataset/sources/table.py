"""A CSV or Parquet table with a column mapping, and images in any folders or archives."""

from __future__ import annotations

import glob
from dataclasses import replace

import pandas as pd

from components.dataset.sources.config import TableOptions
from components.dataset.sources.files import Files
from components.dataset.sources.listing import (
    ages,
    diagnoses,
    find_images,
    find_table,
    ids,
    image_ids,
    image_keys,
    match_images,
    one_row_per_image,
    read_source_table,
    row_of,
    sexes,
    sites,
    words,
)
from components.dataset.sources.presets import PRESETS, Preset
from components.dataset.sources.source import SourceImages
from components.errors import SourceError

_TABLE_SUFFIXES = (".csv", ".tsv", ".tab", ".parquet")
_NOTHING = Preset(tables=(), columns={}, licence="not stated", attribution="not stated")


def read(files: Files, options: TableOptions) -> SourceImages:
    """Read the table as the preset and the options say, and match it with the images."""
    preset = _preset(options)
    table, where = _read_tables(files, preset)
    keys = image_keys(table[preset.columns["image_id"]])
    labels = _labels(table, preset, image_ids(keys, where=where), where)
    listed = dict(zip(keys, labels["image_id"], strict=True))
    found, not_listed = match_images(find_images(files), listed, files)
    labels, seen_twice = one_row_per_image(labels, where=where)
    return SourceImages(
        labels=labels,
        files=found,
        read=files.read,
        licence=preset.licence,
        attribution=preset.attribution,
        present_but_not_listed=not_listed,
        seen_twice=seen_twice,
    )


def _preset(options: TableOptions) -> Preset:
    """Return the preset with what the options add."""
    preset = PRESETS[options.preset] if options.preset else _NOTHING
    if "diagnosis" in options.columns:
        preset = replace(preset, one_hot=())
    return replace(
        preset,
        tables=(options.table,) if options.table else preset.tables,
        columns={**preset.columns, **options.columns},
        optional=preset.optional - set(options.columns),
    )


def _read_tables(files: Files, preset: Preset) -> tuple[pd.DataFrame, str]:
    fix = "put it beside the images, or give its name as the option `table` of the source"
    patterns = preset.tables or (glob.escape(_only_table(files)),)
    name = find_table(files, patterns, fix=fix)
    required = {
        column
        for label, column in preset.columns.items()
        if label not in preset.optional and (preset.details is None or label == "image_id")
    } | ({preset.details_key} if preset.details else set())
    table, where = read_source_table(files, name, sorted(required))
    if preset.details is None:
        return table, where
    return _with_details(table, where, files, preset, fix), where


def _with_details(
    table: pd.DataFrame, where: str, files: Files, preset: Preset, fix: str
) -> pd.DataFrame:
    """Return the table with the columns of the preset's second table.

    Raises
    ------
    SourceError
        The second table lacks an image, or two of its rows contradict each other.
    """
    key = preset.details_key
    columns = sorted({key, *preset.columns.values()})
    assert preset.details is not None
    details, beside = read_source_table(
        files, find_table(files, [preset.details], fix=fix), columns
    )
    lacking = table[key][~table[key].isin(details[key])].drop_duplicates()
    if len(lacking):
        # Without a lesion id its siblings could be split from it.
        raise SourceError(
            f"{len(lacking)} image{'s' if len(lacking) > 1 else ''} without a row in the metadata, "
            f"such as {', '.join(lacking.head(3))}",
            where=f"{beside}; they are listed in {where}",
            fix="add their rows (with an empty lesion id where none is known), or take them out "
            "of the table that lists them",
        )
    used = details.loc[details[key].isin(table[key]), columns].rename(columns={key: "image_id"})
    used = one_row_per_image(used, where=beside)[0].rename(columns={"image_id": key})
    return table[[key, *table.columns.difference(columns, sort=False)]].merge(used, on=key)


def _only_table(files: Files) -> str:
    found = [name for name in files.names() if name.lower().endswith(_TABLE_SUFFIXES)]
    if len(found) != 1:
        raise SourceError(
            f"{len(found)} tables, where one is wanted: {', '.join(found[:5])}",
            where=files.where,
            fix="give the table's name as the option `table` of the source",
        )
    return found[0]


def _labels(table: pd.DataFrame, preset: Preset, images: pd.Series, where: str) -> pd.DataFrame:
    def column(name: str) -> pd.Series:
        given = preset.columns.get(name)
        if given is None or given not in table.columns:
            return pd.Series("", index=table.index, dtype="str", name=name)
        values = table[given]
        known = preset.values.get(name, {})
        if known:
            values = values.str.strip().str.lower().map(known).fillna("").astype("str")
        return values

    lesions = ids(column("lesion_id"))
    return pd.DataFrame(
        {
            "image_id": images,
            "patient_id": ids(column("patient_id")),
            "lesion_id": preset.lesion_prefix + lesions,
            "diagnosis": _one_hot(table, preset.one_hot, where)
            if preset.one_hot
            else diagnoses(column("diagnosis")),
            "diagnosis_method": words(column("diagnosis_method")),
            "age_years": ages(column("age_years"), where=where),
            "sex": sexes(column("sex")),
            "site": sites(column("site")),
            "skin_type": ids(column("skin_type")),
        }
    )


def _one_hot(table: pd.DataFrame, columns: tuple[str, ...], where: str) -> pd.Series:
    """Return the name of the one column that is 1.

    Raises
    ------
    SourceError
        There is no such column; or in a row none or several are 1, or a value is no number.
    """
    present = [name for name in columns if name in table.columns]
    if not present:
        raise SourceError(
            f"none of the columns {', '.join(columns)}",
            where=where,
            fix="give the table of the preset's data set, with these columns; or name the column "
            "with the diagnosis in the option `columns`",
        )
    marks = table[present].apply(pd.to_numeric, errors="coerce")
    wrong = table[~((marks.sum(axis=1) == 1) & (marks.max(axis=1) == 1))]
    if len(wrong):
        raise SourceError(
            "a row does not have exactly one diagnosis",
            where=f"{row_of(wrong)} of {where}",
            fix=f"write 1 into one of the columns {', '.join(present)} and 0 elsewhere",
        )
    names: pd.Series = marks.idxmax(axis=1).astype("str")
    return names
