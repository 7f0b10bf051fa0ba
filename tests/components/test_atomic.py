"""A file is the old one or the new one."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from components.atomic import atomic_path, disk_full_as_error, write_json
from components.errors import ResourceError


def test_a_failure_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half", encoding="utf-8")
        raise RuntimeError
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="no space left"), disk_full_as_error(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_real_full_disk_keeps_the_old_file() -> None:
    # /dev/full answers every write as a full disk does.
    with pytest.raises(ResourceError), disk_full_as_error(Path("/dev/full")):
        Path("/dev/full").write_text("x" * 10_000, encoding="utf-8")


def test_json_has_the_same_bytes_for_the_same_content(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": 2})
    write_json(tmp_path / "b.json", {"a": 2, "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_json_refuses_what_json_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert not (tmp_path / "a.json").exists()
