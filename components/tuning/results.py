"""What a search found: one row per trial, and the best of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from components.tuning.config import Value


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes
    ----------
    number
        From 0, the recipe as it stands.
    values
        Of every searched key.
    scores
        Validation balanced accuracy after each of its epochs.
    failure
        Why it has not come to its end, in one line; empty if nothing went wrong.
    conclusive
        Whether the same trial would end in the same way: not if its process was lost.
    """

    number: int
    values: dict[str, Value]
    scores: tuple[float, ...]
    failure: str = ""
    conclusive: bool = True

    @property
    def best_epoch(self) -> int | None:
        """The epoch (from 1) with the best score, the earlier one if equal; None without any."""
        return int(np.argmax(self.scores)) + 1 if self.scores else None

    @property
    def score(self) -> float | None:
        """The score of the best epoch."""
        return max(self.scores, default=None)

    def ended(self, max_epochs: int) -> str:
        """Return `finished`, `stopped early` or `failed`."""
        if self.failure:
            return "failed"
        return "stopped early" if len(self.scores) < max_epochs else "finished"

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)

    @staticmethod
    def from_dict(document: dict[str, Any]) -> Trial:
        """Return what `as_dict` returned."""
        return Trial(**{**document, "scores": tuple(document["scores"])})


def best_of(trials: Sequence[Trial]) -> Trial:
    """Return the trial with the best score that has not failed; of equal ones the first.

    At least one trial has a score. If all that have one failed later on, the best of those.
    """
    scored = [trial for trial in trials if trial.scores]
    sound = [trial for trial in scored if not trial.failure] or scored
    return max(sound, key=lambda trial: (trial.score, -trial.number))


def rows(trials: Sequence[Trial], max_epochs: int) -> list[dict[str, Any]]:
    """Return one row per trial, as `reports/tune/<backbone>.csv` has it."""
    return [
        {
            "trial": trial.number,
            **trial.values,
            "best_epoch": trial.best_epoch,
            "validation_balanced_accuracy": trial.score,
            "epochs": len(trial.scores),
            "ended": trial.ended(max_epochs),
            "failure": trial.failure,
        }
        for trial in trials
    ]


def ranked_rows(trials: Sequence[Trial], max_epochs: int) -> list[dict[str, Any]]:
    """Return the rows for a reader: best first, values in a few digits, no column of failures."""
    best = best_of(trials)
    order = [best, *(t for t in sorted(trials, key=lambda t: -(t.score or 0)) if t is not best)]
    shown = []
    for row in rows(order, max_epochs):
        values = {key: _short(row[key]) for key in best.values}
        mark = " *" if row["trial"] == best.number else " (as it is)" if not row["trial"] else ""
        shown.append({**row, **values, "trial": f"{row['trial']}{mark}"})
        del shown[-1]["failure"]
    return shown


def _short(value: Value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def table(trials: Sequence[Trial], max_epochs: int) -> pd.DataFrame:
    """Return the rows as a table."""
    frame = pd.DataFrame(rows(trials, max_epochs))
    return frame.astype({"best_epoch": "Int64"})
