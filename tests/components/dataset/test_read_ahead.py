"""Files are read a few at a time, and given in order."""

from __future__ import annotations

import threading

import pytest

from components.dataset.read_ahead import read_ahead

NAMES = [str(number) for number in range(500)]


def test_every_file_comes_in_order() -> None:
    assert list(read_ahead(NAMES, str.encode)) == [(name, name.encode()) for name in NAMES]


def test_no_more_is_read_than_a_few_files_ahead() -> None:
    lock, done = threading.Lock(), 0

    def read(name: str) -> bytes:
        nonlocal done
        with lock:
            done += 1
        return name.encode()

    for taken, _ in enumerate(read_ahead(NAMES, read), start=1):
        assert done <= taken + 16


def test_a_file_that_cannot_be_read_is_an_error() -> None:
    def read(name: str) -> bytes:
        if name == "200":
            raise OSError("gone")
        return b""

    seen = []
    with pytest.raises(OSError, match="gone"):
        for name, _ in read_ahead(NAMES, read):
            seen.append(name)
    assert seen == NAMES[:200]
