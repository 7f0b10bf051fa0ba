"""Ctrl-C: once ends a run in order, twice ends it at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = "lesionflow: interrupted; the same command goes on from here"
EXIT_CODE = 128 + signal.SIGINT


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
