"""What a check is, and what came out of it: plain data, without Great Expectations.

A `Suite` is a table and the checks on its rows; `expectations.py` has Great Expectations judge
it. `labels.py`, `images.py` and `between.py` build the suites.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from components.validation.config import Severity

Row = Mapping[str, Any]
NUM_NAMED = 10
"""Offenders that a message names; the report has all of them."""


@dataclass(frozen=True)
class Check:
    """One expectation with what we make of its result.

    Attributes
    ----------
    name
        Its place in `params.yaml` below `validation`, such as `images.sharpness`; a name of one
        word cannot be changed there.
    severity
        `error`, `quarantine` or `warning`; checks that are off are not built.
    title
        What is expected, as a sentence.
    expectation, arguments
        Class of `great_expectations.expectations`, and what it is given.
    bound
        The threshold as text, if there is one.
    fix
        What the user can do when it fails.
    reason
        Why a row breaks it, said of one of its images; it goes into the quarantine table.
    pictures
        Whether the offenders are to be looked at as pictures.
    """

    name: str
    severity: Severity
    title: str
    expectation: str
    arguments: dict[str, Any]
    fix: str
    bound: str | None = None
    reason: Callable[[Row, str], str] = lambda _row, _image: ""
    pictures: bool = False


@dataclass(frozen=True)
class Suite:
    """A table and the checks on it.

    Attributes
    ----------
    name
        Name of the suite and of its page in the Data Docs.
    frame
        The table; one row is what a check accepts or refuses.
    key
        Columns that name a row.
    checks
        The checks that are not off.
    images
        Columns of `key` that hold image ids.
    rows
        What a row is, in the plural.
    row_name
        How an offending row is called.
    """

    name: str
    frame: pd.DataFrame
    key: tuple[str, ...]
    checks: Sequence[Check]
    images: tuple[str, ...] = ("image_id",)
    rows: str = "images"
    row_name: str = "{image_id}"


@dataclass(frozen=True)
class Outcome:
    """What a check found.

    Attributes
    ----------
    offenders
        Names of the rows that break it, in the order of the table.
    reasons
        Image id -> why, for every image of an offending row.
    note
        Why it was not looked at, if it was not.
    """

    suite: str
    check: Check
    success: bool
    observed: str
    offenders: tuple[str, ...] = ()
    reasons: dict[str, str] = field(default_factory=dict)
    rows: str = "images"
    note: str = ""

    def finding(self) -> str:
        """Return what was expected, what was found and the first offenders, for a message."""
        text = f"{self.check.name} failed: {self.check.title} (found: {self.observed})"
        if not self.offenders:
            return text
        count = len(self.offenders)
        return f"{text}; {count} offender{'s' if count > 1 else ''}: {named(self.offenders)}"


def off(check: Check) -> bool:
    """Return whether `check` is not to be looked at."""
    return check.severity == "off"


def named(names: Sequence[str]) -> str:
    """Return the first names and how many more there are."""
    shown = ", ".join(names[:NUM_NAMED])
    more = len(names) - NUM_NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def text_column(values: pd.Series) -> pd.Series:
    """Return `values` as objects, None where there is none: what Great Expectations compares."""
    return values.astype(object).where(values.notna(), None)
