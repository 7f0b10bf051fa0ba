"""What a reader gives: the labels of a source and a way to the bytes of its images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pandas as pd


@dataclass(frozen=True)
class SourceImages:
    """One source, read but not copied.

    Parameters
    ----------
    labels
        One row per listed image: `LABEL_COLUMNS` but `source` and `sha256`; image ids are unique,
        diagnoses are in the source's own words.
    files
        Image id -> name of its file in the source; an image that is listed but absent has none.
    read
        File name -> the file's bytes; called from several threads.
    licence, attribution
        Of the data, for the manifest.
    given_parts
        Image id -> "train", "validation" or "test", where the source comes divided.
    present_but_not_listed
        Names of image files that no row of the source's table lists.
    seen_twice
        Image id -> where the source lists it again with the same values.
    synthetic
        Drawn, not photographed.
    """

    labels: pd.DataFrame
    files: Mapping[str, str]
    read: Callable[[str], bytes]
    licence: str
    attribution: str
    given_parts: Mapping[str, str] = field(default_factory=dict)
    present_but_not_listed: tuple[str, ...] = ()
    seen_twice: Mapping[str, str] = field(default_factory=dict)
    synthetic: bool = False
