"""What every flow does at its start and its end: writes it down, and tells who must know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tasks.journal import note_end, note_start
from tasks.notifications import tell_failure


def hooks(*completed: Callable[..., None]) -> dict[str, Any]:
    """Return the hooks of a flow, with `completed` on top of those for a run that ends well."""
    return {
        "on_running": [note_start],
        "on_completion": [note_end, *completed],
        "on_failure": [note_end, tell_failure],
        "on_crashed": [note_end, tell_failure],
        "on_cancellation": [note_end],
    }
