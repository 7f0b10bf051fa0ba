"""Small tables for the tests of the split."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest

from components.tables import LABEL_COLUMNS, PAIR_COLUMNS, QUARANTINE_COLUMNS


@pytest.fixture(scope="session")
def labels_of() -> Callable[..., pd.DataFrame]:
    """Return a function that makes a labels table; what a row does not say is missing."""

    def make(*rows: dict[str, str | None]) -> pd.DataFrame:
        full = [
            {"diagnosis": "nv", "source": "some", "sha256": f"bytes of {row['image_id']}", **row}
            for row in rows
        ]
        return pd.DataFrame(full, columns=list(LABEL_COLUMNS))

    return make


@pytest.fixture(scope="session")
def pairs_of() -> Callable[..., pd.DataFrame]:
    """Return a function that makes a table of near-duplicates."""

    def make(*pairs: tuple[str, str]) -> pd.DataFrame:
        rows = [(*sorted(pair), "same spot", 0.9, 40) for pair in pairs]
        return pd.DataFrame(rows, columns=list(PAIR_COLUMNS))

    return make


@pytest.fixture(scope="session")
def quarantine_of() -> Callable[..., pd.DataFrame]:
    """Return a function that makes a quarantine table."""

    def make(*image_ids: str) -> pd.DataFrame:
        return pd.DataFrame(
            [(image_id, "too dark") for image_id in image_ids], columns=list(QUARANTINE_COLUMNS)
        )

    return make
