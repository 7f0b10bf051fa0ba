"""How something is shown in the Prefect UI: never at the price of what was done; live progress."""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.settings import PREFECT_API_URL

from components.progress import Progress

UPDATE_SECONDS = 2.0
"""Least time between two updates of one progress artifact; each is a call to the server."""
_AWAY_SECONDS = 60.0
"""The same while the server is away; each is a warning in the log."""
_LOOK_SECONDS = 5.0

P = ParamSpec("P")


def shown(function: Callable[P, None]) -> Callable[P, None]:
    """Let `function` neither fail nor wait because the Prefect server is away.

    What was done is done, seen or not. Prefect's client tries for a minute, at each call; so a look
    at the address comes first.
    """

    @wraps(function)
    def show(*args: P.args, **kwargs: P.kwargs) -> None:
        why = _nobody_there()
        if why is None:
            try:
                return function(*args, **kwargs)
            except (httpx.TransportError, httpx.HTTPStatusError) as error:
                if isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500:
                    raise
                why = (str(error).splitlines() or [type(error).__name__])[0]
        get_run_logger().warning("not shown in the UI, the Prefect server is away: %s", why)
        return None

    return show


def _nobody_there() -> str | None:
    """Return why the address of the Prefect server cannot be reached, None if it can.

    A server behind a proxy is not looked for: its name may mean nothing here.
    """
    parts = urlsplit(PREFECT_API_URL.value() or "")
    host = parts.hostname
    if host is None or (parts.scheme in getproxies() and not proxy_bypass(host)):
        return None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((host, port), _LOOK_SECONDS).close()
    except OSError as error:
        return str(error)
    return None


def artifact_key(name: str) -> str:
    """Turn `train@vit_b_16-0` into a key that Prefect accepts (`train-vit-b-16-0`)."""
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower()).strip("-")


class ProgressArtifact:
    """The progress bar of one stage; it exists from the stage's first line of progress on.

    Its key is not the stage's, under which lies the history of what the stage has made.
    """

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._key = artifact_key(f"{stage}-progress")
        self._id: UUID | None = None
        self._last = 0.0

    def update(self, progress: Progress) -> None:
        """Show `progress`, at most once in `UPDATE_SECONDS`."""
        now = time.monotonic()
        if now - self._last < UPDATE_SECONDS:
            return
        self._last = now + _AWAY_SECONDS  # until it was shown
        share = 100.0 * progress.done / max(progress.total, 1)
        description = f"{self._stage}: {progress.done}/{progress.total} {progress.unit}"
        self._show(share, f"{description} {progress.detail}".strip())

    def finish(self) -> None:
        """Show that the stage is done, if it ever showed progress."""
        if self._id is not None:
            self._show(100.0, f"{self._stage}: done")

    @shown
    def _show(self, share: float, description: str) -> None:
        if self._id is None:
            created = create_progress_artifact(
                progress=share, key=self._key, description=description
            )
            self._id = created if isinstance(created, UUID) else None
        else:
            update_progress_artifact(self._id, progress=share, description=description)
        self._last = time.monotonic()


@shown
def publish_decision(rows: list[dict[str, Any]], verdict: str) -> None:
    """Show the promotion decision: every gate with its value, bound and verdict."""
    create_table_artifact(table=rows, key="promotion", description=verdict)


@shown
def publish_search(backbone: str, rows: list[dict[str, Any]], verdict: str, picture: Path) -> None:
    """Show the trials of a search as a table, the best first, and their picture."""
    key = artifact_key(f"tune-{backbone}")
    create_table_artifact(table=rows, key=key, description=verdict)
    create_markdown_artifact(
        markdown=f"# {backbone}\n\n{verdict}\n\n{embedded(picture)}",
        key=f"{key}-plot",
        description="Learning curves, and the score over each searched key.",
    )


def embedded(path: Path) -> str:
    """Return a PNG as Markdown that needs no file server: the UI runs in a browser elsewhere."""
    encoded = base64.b64encode(path.read_bytes()).decode("ascii")
    return f"![{path.stem}](data:image/png;base64,{encoded})"
