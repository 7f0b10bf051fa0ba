"""A line of progress is read back as it was written, whatever an engine puts before it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from components.progress import Progress

_word = st.text(st.characters(categories=["Ll", "Nd"], include_characters="@_-"), min_size=1)
_detail = st.text(st.characters(categories=["Ll", "Nd"], include_characters=" .|%/")).map(str.strip)


@given(
    _word,
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    _word,
    _detail,
    st.sampled_from(["", "(w) "]),
)
def test_round_trip(what: str, done: int, total: int, unit: str, detail: str, prefix: str) -> None:
    progress = Progress(what, done, total, unit, detail)
    assert Progress.parse(f"{prefix}{progress}\n") == progress


def test_other_lines_are_no_progress() -> None:
    assert Progress.parse("INFO making progress: slowly") is None
