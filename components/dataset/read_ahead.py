"""Reading many files from where each of them takes its time: a few at once, given in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

_THREADS = 8
_AHEAD = 2 * _THREADS
"""Files that are being read, or wait for being used: this many are in memory."""


def read_ahead(names: Sequence[str], read: Callable[[str], bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield each name with `read(name)`, in the order given.

    Parameters
    ----------
    names
        What to read.
    read
        Called in several threads.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        waiting: deque[tuple[str, Future[bytes]]] = deque()
        try:
            for name in names:
                waiting.append((name, pool.submit(read, name)))
                if len(waiting) == _AHEAD:
                    yield _first(waiting)
            while waiting:
                yield _first(waiting)
        finally:
            pool.shutdown(cancel_futures=True)


def _first(waiting: deque[tuple[str, Future[bytes]]]) -> tuple[str, bytes]:
    name, data = waiting.popleft()
    return name, data.result()
