"""An error's message says what, where and what to do, on three lines or on one."""

from __future__ import annotations

import pytest

from components.errors import SourceError, in_one_line

_ERROR = SourceError("no such folder: /x", where="sources.0", fix="correct the path")


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (str(_ERROR), "no such folder: /x; where: sources.0; to do: correct the path"),
        (
            f"RunError: stage ingest failed: {_ERROR}\n  then: run it again",
            "RunError: stage ingest failed: no such folder: /x; where: sources.0; "
            "to do: correct the path",
        ),
        (
            f"{_ERROR}\n{SourceError('other', where='there', fix='that')}",
            "no such folder: /x; where: sources.0; to do: correct the path",
        ),
        ("Traceback, of a bug\n  at a line", "Traceback, of a bug"),
        ("", ""),
    ],
)
def test_one_line_has_the_first_cause_whole(message: str, line: str) -> None:
    assert in_one_line(message) == line
