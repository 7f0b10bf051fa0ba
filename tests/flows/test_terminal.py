"""Lines of runs are short, and an error of ours brings no traceback."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import httpx
import pytest

from components.errors import SourceError
from flows.terminal import shorten_run_lines


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


LOGGERS = ["prefect.engine", "prefect.flow_runs", "prefect.task_runs"]


@pytest.fixture
def kept() -> Iterator[_Kept]:
    """Return what gets through to the handlers of Prefect's loggers."""
    handler, loggers = _Kept(), [logging.getLogger(name) for name in LOGGERS]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    shorten_run_lines()
    shorten_run_lines()
    yield handler
    for logger in loggers:
        logger.removeHandler(handler)


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        ("Finished in state Completed('brought up to date')", "brought up to date"),
        ("Finished in state Completed()", "done"),
        (
            "Finished in state Cached('nothing changed since the last run', type=COMPLETED)",
            "nothing changed since the last run",
        ),
        ("Finished in state Failed('Task run encountered an exception E: a\nb')", "failed"),
        (
            "Finished in state NotReady(\"Upstream task run '01' did not reach\", type=PENDING)",
            "not run: a stage that it needs failed",
        ),
        ("anything else (with brackets)", "anything else (with brackets)"),
    ],
)
def test_ends_of_runs_are_said_in_a_few_words(kept: _Kept, said: str, seen: str) -> None:
    logging.getLogger("prefect.task_runs").info(said)
    assert [record.getMessage() for record in kept.records] == [seen]


@pytest.mark.parametrize(
    "said",
    [
        "Running hook 'tell_failure' in response to entering state 'Failed'",
        "Hook 'tell_failure' finished running successfully",
    ],
)
@pytest.mark.parametrize("name", LOGGERS)
def test_hooks_are_run_silently(kept: _Kept, name: str, said: str) -> None:
    logging.getLogger(name).info(said)
    logging.getLogger(name).error("An error was encountered while running hook 'x'")
    assert [record.getMessage() for record in kept.records] == [
        "An error was encountered while running hook 'x'"
    ]


def test_only_our_own_errors_lose_their_traceback(kept: _Kept) -> None:
    for error in (SourceError("gone", where="here", fix="look"), ValueError("a bug")):
        try:
            raise error
        except Exception:
            logging.getLogger("prefect.task_runs").exception(
                "Task run failed with exception: %r", error
            )
    assert [record.exc_info[1] for record in kept.records if record.exc_info] == [error]


def test_a_server_that_is_away_is_one_line_without_a_traceback(kept: _Kept) -> None:
    try:
        raise httpx.ConnectError("Connection refused")
    except httpx.ConnectError as error:
        logging.getLogger("prefect.flow_runs").exception("Encountered exception: %r", error)
    (record,) = kept.records
    assert record.getMessage() == "Encountered exception: ConnectError('Connection refused')"
    assert "Traceback" not in logging.Formatter().format(record)
