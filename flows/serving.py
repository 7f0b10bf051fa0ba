"""Serves deployments until Ctrl-C or SIGTERM; a run that is under way then is cancelled in order.

Prefect's own `serve` kills such a run before it can say how it ended: at Ctrl-C by closing its
process, at SIGTERM by leaving the event loop with `Runner.stop` unawaited. It would be shown as
Running for ever.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import psutil
from prefect.deployments.runner import RunnerDeployment
from prefect.runner import Runner

from components.errors import ResourceError

_SECONDS_TO_START = 10


def serve_until_told_to_end(deployments: Sequence[RunnerDeployment], *, limit: int) -> None:
    """Start the runs of `deployments` when they are due, until SIGTERM; a second one ends at once.

    Parameters
    ----------
    deployments
        They are made known to the Prefect server, and paused there at the end.
    limit
        How many runs may be under way at once.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        asyncio.run(_serve(deployments, limit))
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def ended_with(server: subprocess.Popen[bytes]) -> Iterator[None]:
    """End this process when `server` ends within the block, and at once.

    Without its server nothing is ever started again, and a service manager that sees this process
    alive would not start it anew. To end in order, the server would have to be asked.
    """
    is_over = threading.Event()

    def watch() -> None:
        server.wait()
        if is_over.is_set():
            return
        print(
            f"the Prefect server ended (exit code {server.returncode}): nothing can be started "
            "without it, so `lesionflow schedule` ends; start it again",
            file=sys.stderr,
            flush=True,
        )
        _end_at_once(ResourceError.exit_code)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        is_over.set()


class _Runner(Runner):
    """Tells of SIGTERM instead of leaving the event loop from within its handler."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit=limit, pause_on_shutdown=True)
        self.told_to_end = asyncio.Event()
        self._told = False  # the event is set only when the loop comes round to it
        self._loop_of_signals = asyncio.get_running_loop()

    def handle_sigterm(self, *_args: Any, **_options: Any) -> None:
        if self._told:
            _end_at_once(128 + signal.SIGTERM)
        self._told = True
        self._loop_of_signals.call_soon_threadsafe(self.told_to_end.set)


async def _serve(deployments: Sequence[RunnerDeployment], limit: int) -> None:
    runner = _Runner(limit)
    signal.signal(signal.SIGTERM, runner.handle_sigterm)
    serving = asyncio.create_task(_start(runner, deployments))
    told = asyncio.create_task(runner.told_to_end.wait())
    await asyncio.wait({serving, told}, return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if runner.started:
        await runner.astop()
        # A run that was just about to start takes its cancellation in order when it has started.
        while (await asyncio.wait({serving}, timeout=_SECONDS_TO_START))[1]:
            await runner.cancel_all()
    else:
        serving.cancel()
    with suppress(asyncio.CancelledError):
        await serving


async def _start(runner: Runner, deployments: Sequence[RunnerDeployment]) -> None:
    for deployment in deployments:
        await runner.aadd_deployment(deployment)
    await runner.start()


def _end_at_once(code: int) -> NoReturn:
    # Stages and clusters look for the process of their run, and end when it is gone.
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            child.kill()
    os._exit(code)
