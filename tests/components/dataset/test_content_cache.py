"""What was computed once is found again, and can be forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.dataset.content_cache import ContentCache
from components.errors import ResourceError


def test_values_survive_and_unknown_keys_are_left_out(tmp_path: Path) -> None:
    values = {f"key{number}": bytes([number % 256]) for number in range(1200)}
    ContentCache(tmp_path / "deep" / "cache.sqlite", "1").put(values)
    again = ContentCache(tmp_path / "deep" / "cache.sqlite", "1")
    assert again.get([*values, "unknown"]) == values


def test_another_version_sees_nothing(tmp_path: Path) -> None:
    ContentCache(tmp_path / "cache.sqlite", "1").put({"a": b"x"})
    assert ContentCache(tmp_path / "cache.sqlite", "2").get(["a"]) == {}


def test_forgetting_removes_every_version_and_the_bytes_themselves(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    known = {"abc": b"secret-one", "abc|def": b"secret-two", "other": b"y"}
    ContentCache(path, "1").put(known)
    assert ContentCache(path, "2").forget(["abc"]) == 2
    assert ContentCache(path, "1").get(known) == {"other": b"y"}
    assert b"secret" not in path.read_bytes()


def test_a_damaged_cache_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(ResourceError, match="delete the file") as caught:
        ContentCache(path, "1").get(["a"])
    assert str(path) in str(caught.value)
