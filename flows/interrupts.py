"""Ctrl-C: once ends what is under way in order, twice ends it at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = "lesionflow: interrupted; the same command goes on from here"
EXIT_CODE = 128 + signal.SIGINT
_TERMINALS = frozenset({signal.SIGINT, signal.SIGHUP})
"""What a terminal sends to every process that was started in it."""


@contextmanager
def interruptible() -> Iterator[None]:
    """End with one message at Ctrl-C; let a second one end this process at once.

    The message comes when what the block began has been ended (typer would end without a word). A
    process that was started to ignore Ctrl-C (in the background of a script) goes on ignoring it.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, _end_in_order)
    try:
        yield
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        sys.exit(EXIT_CODE)
    finally:
        signal.signal(signal.SIGINT, before)


def _end_in_order(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, _end_at_once)
    raise KeyboardInterrupt


def _end_at_once(_number: int, _frame: FrameType | None) -> None:
    # What a run starts ends by itself when the run is gone: servers and clusters have a pipe from
    # it, stages look for its process.
    os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(EXIT_CODE)


@contextmanager
def terminal_signals_as_sigterm() -> Iterator[None]:
    """Take Ctrl-C and the end of the terminal as SIGTERM, and keep both from all processes below.

    A run that got the signal, too, would crash of it before it is cancelled. Begin this before
    other threads are started: the signals are blocked in this thread and in what it starts. Those
    that this process was started to ignore (`nohup`) are ignored.
    """
    ours = {each for each in _TERMINALS if signal.getsignal(each) is not signal.SIG_IGN}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ours)
    threading.Thread(target=_pass_on, args=(ours,), name="terminal-signals", daemon=True).start()
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _pass_on(signals: set[signal.Signals]) -> None:
    told = False
    while signals:
        number = signal.sigwait(signals)
        # A terminal that is closed says so twice: by its shell, and by the kernel.
        if not (told and number == signal.SIGHUP):
            os.kill(os.getpid(), signal.SIGTERM)
        told = True
