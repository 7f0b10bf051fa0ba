"""What a finished run tells on the terminal: leaderboard, decision, where the report lies."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from components.layout import Layout

DISCLAIMER = "Research software, no medical device: not for diagnosis."


def print_outcome(layout: Layout, outcome: Mapping[str, Any]) -> None:
    """Print what a `retrain` did."""
    from components.evaluation.ranking import leaderboard_rows
    from components.registry.promote import gate_rows

    board = json.loads(layout.leaderboard.read_text(encoding="utf-8"))
    decision = outcome["decision"]
    done = outcome["done"]
    print()
    print(f"{len(done)} stages were brought up to date" if done else "nothing had changed")
    print_table(leaderboard_rows(board), title="Leaderboard (ranked on validation)")
    print_table(gate_rows(decision), title="Gates")
    print(decision["reason"])
    print(f"report: {layout.report}")
    print(DISCLAIMER)


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
