"""Imports that a user waits for: thousands of classes, which all stay."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Iterator
from contextlib import contextmanager

_LATE = ("dvc.repo", "dvc.repo.status", "fastapi.encoders")
"""What every run imports only when it first needs it."""


@contextmanager
def no_collection() -> Iterator[None]:
    """Look for no garbage inside, nor ever again among what was made there.

    Python would look through all that has been imported so far, again and again, and find nothing:
    a fifth of the time that a Prefect server takes to start.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def import_early() -> None:
    """Import what a run will need, while it waits for something else."""
    for name in _LATE:
        importlib.import_module(name)
