"""Work on many items in several processes, where one item may take its process down."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from typing import Self, TypeVar

from components.errors import ResourceError
from components.progress import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")

_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
)

_HOPELESS = 10
"""So many items in a row do not each crash a decoder: it is the machine."""


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Workers:
    """Processes for work that holds Python's lock; they start when the first work comes.

    Parameters
    ----------
    num_processes
        Default: one per core.
    """

    def __init__(self, num_processes: int | None = None) -> None:
        self.num_processes = num_processes or num_cores()
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def map(
        self,
        work: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        crashed: Callable[[Item], Result] | None = None,
        chunk: int = 1,
    ) -> Iterator[tuple[Item, Result]]:
        """Yield `(item, work(item))` for all `items` in the order in which they get done.

        Parameters
        ----------
        work
            A function at the top of a module that is light to import (each process imports it).
        items
            What to work on; they can be pickled.
        crashed
            Where an item may take its process down (a decoder may): what was under way is then
            tried item by item, and `crashed(item)` stands for the result of one that does it
            again. None: a process that dies is an error.
        chunk
            Items that travel to a process together.

        Raises
        ------
        ResourceError
            A process died, and `crashed` is None; or process after process dies.
        """
        suspects: list[Item] = []
        waiting: dict[Future[list[Result]], Sequence[Item]] = {}
        for start in range(0, len(items), chunk):
            part = items[start : start + chunk]
            try:
                waiting[self._submit(work, part)] = part
            except BrokenProcessPool:  # it broke while we were still handing out
                suspects += part
        for future in as_completed(list(waiting)):
            part = waiting.pop(future)
            try:
                results = future.result()
            except BrokenProcessPool:
                suspects += part
                continue
            yield from zip(part, results, strict=True)
        if not suspects:
            return
        self._close()
        if crashed is None:
            raise ResourceError(
                "a worker process died",
                where=f"{len(suspects)} pieces of work were under way",
                fix="it probably ran out of memory: free some, or use a machine with more",
            )
        yield from self._one_by_one(work, suspects, crashed)

    def _one_by_one(
        self,
        work: Callable[[Item], Result],
        items: Sequence[Item],
        crashed: Callable[[Item], Result],
    ) -> Iterator[tuple[Item, Result]]:
        in_a_row = 0
        for item in items:
            try:
                result = self._submit(work, [item]).result()[0]
                in_a_row = 0
            except BrokenProcessPool:
                self._close()
                in_a_row += 1
                if in_a_row == _HOPELESS:
                    raise ResourceError(
                        f"{_HOPELESS} worker processes in a row died",
                        where=f"the last one on {item}",
                        fix="it is not the data: free some memory, or look on standard error for "
                        "why no process can start here",
                    ) from None
                result = crashed(item)
            yield item, result

    def _submit(
        self, work: Callable[[Item], Result], items: Sequence[Item]
    ) -> Future[list[Result]]:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.num_processes, _context(work.__module__), initializer=_end_with_parent
            )
        with _one_thread_each():
            return self._pool.submit(_work_on, work, items)

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _context(module: str) -> BaseContext:
    """Never "fork": a fork of a process with threads (Arrow's, BLAS') can hang."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # Imported once, and not in each process: the work, and what a stage's own module imports.
    context.set_forkserver_preload([module, "components.stage", "components.tables"])
    return context


def _end_with_parent() -> None:
    """End this worker when the process that it works for is gone: nobody else would end it."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes that start here share the cores: their libraries shall use one thread."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _work_on(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [work(item) for item in items]


class ProgressPrinter:
    """Print the progress of a loop, at most twice a second and always at the end."""

    def __init__(self, what: str, total: int, unit: str) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._done = 0
        self._started = self._printed = time.monotonic()

    def add(self, count: int = 1) -> None:
        """`count` more are done."""
        self._done += count
        now = time.monotonic()
        if self._done >= self._total or now - self._printed > 0.5:
            self._printed = now
            rate = self._done / max(now - self._started, 1e-6)
            detail = f"{rate:,.0f} {self._unit}/s, {(self._total - self._done) / rate:.0f} s left"
            print(Progress(self._what, self._done, self._total, self._unit, detail), flush=True)
