"""Work in several processes goes on when one of them dies."""

from __future__ import annotations

import os

import pytest

from components.dataset.workers import ProgressPrinter, Workers
from components.errors import ResourceError
from components.progress import Progress


def double_or_die(number: int) -> int:
    """Kill the process without a word for 7 and 70, as a crashing decoder does."""
    if number in (7, 70):
        os._exit(139)
    return 2 * number


def refuse(number: int) -> int:
    raise ValueError(f"no {number}")


def threads(_: int) -> str | None:
    return os.environ.get("OPENBLAS_NUM_THREADS")


@pytest.mark.parametrize("chunk", [1, 8])
def test_an_item_that_kills_its_process_is_named_and_the_rest_is_done(chunk: int) -> None:
    with Workers(2) as workers:
        results = dict(
            workers.map(double_or_die, range(100), crashed=lambda number: -number, chunk=chunk)
        )
        again = dict(workers.map(double_or_die, [1, 2]))  # the processes are there again
    assert results == {number: 2 * number for number in range(100)} | {7: -7, 70: -70}
    assert again == {1: 2, 2: 4}


def die(_: int) -> int:
    os._exit(1)


def test_where_no_process_lives_it_is_not_the_items_that_are_blamed() -> None:
    with Workers(1) as workers, pytest.raises(ResourceError, match="10 worker processes"):
        list(workers.map(die, range(30), crashed=lambda number: -number))


def test_a_process_that_dies_where_none_may_is_an_error() -> None:
    with Workers(1) as workers, pytest.raises(ResourceError, match="a worker process died"):
        list(workers.map(double_or_die, [6, 7]))


def test_an_error_in_the_work_is_raised() -> None:
    with Workers(1) as workers, pytest.raises(ValueError, match="no 3"):
        list(workers.map(refuse, [3]))


def test_nothing_to_do_starts_nothing() -> None:
    with Workers() as workers:
        assert list(workers.map(double_or_die, [])) == []


def test_each_process_has_one_thread() -> None:
    with Workers(1) as workers:
        assert list(workers.map(threads, [0])) == [(0, "1")]


def test_progress_is_printed_at_the_end_and_rarely_before(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printer = ProgressPrinter("measure", 1000, "images")
    for _ in range(1000):
        printer.add()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 3
    last = Progress.parse(lines[-1])
    assert last is not None
    assert (last.done, last.total, last.unit) == (1000, 1000, "images")
