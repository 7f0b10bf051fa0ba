"""What a finished run tells on the terminal: tables, decisions, where to read more."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from components.layout import Layout

if TYPE_CHECKING:
    from components.tuning.tune import Outcome

DISCLAIMER = "Research software, no medical device: not for diagnosis."


def print_outcome(layout: Layout, outcome: Mapping[str, Any]) -> None:
    """Print what a `retrain` did."""
    from components.evaluation.board_tables import candidate_rows, leaderboard_rows
    from components.registry.promote import gate_rows

    board = json.loads(layout.leaderboard.read_text(encoding="utf-8"))
    decision = outcome["decision"]
    done = outcome["done"]
    print()
    print(f"{len(done)} stages were brought up to date" if done else "nothing had changed")
    print_table(leaderboard_rows(board), title="Leaderboard (ranked on validation)")
    print_table(candidate_rows(board), title="Ensembles, and the candidate (*)")
    print_table(gate_rows(decision), title="Gates")
    print(decision["reason"])
    print(f"report: {layout.report}")
    print(DISCLAIMER)


def print_search(outcome: Outcome, changes: Sequence[str], *, apply: bool) -> None:
    """Print what a `tune` found, and what it changed in `params.yaml` if it was told to."""
    print()
    print_table(outcome.rows(), title=f"Trials of {outcome.backbone} (judged on validation)")
    print(outcome.verdict)
    print(f"trials: {outcome.table}\nplot: {outcome.picture}")
    for change in changes:
        print(f"params.yaml: {change}")
    if changes:
        print("next: lesionflow retrain")
    elif apply:
        print("params.yaml: left as it is")
    elif outcome.best.number:
        print(f"write them into params.yaml: lesionflow tune {outcome.backbone} --apply")


def print_table(rows: Sequence[Mapping[str, Any]], *, title: str) -> None:
    """Print rows of equal keys as a table; numbers to three places."""
    if not rows:
        return
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        numeric = isinstance(rows[0][name], int | float)
        table.add_column(str(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    # A pipe has no width: let the table take what it needs instead of breaking numbers.
    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
