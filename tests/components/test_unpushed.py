"""What could not be pushed lies there for the next run of the same repository, and not for ever."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from components.unpushed import forget_old, keep, take_up


def clone(folder: Path, made: str = "") -> Path:
    """Make what a clean clone has of DVC, and `made` in its cache."""
    (folder / ".dvc").mkdir(parents=True)
    if made:
        (folder / ".dvc" / "cache").mkdir()
        (folder / ".dvc" / "cache" / "object").write_text(made)
    return folder


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """Return a folder for temporary files."""
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


def test_the_last_of_a_repository_is_kept_and_taken_up_once(tmp_path: Path, parent: Path) -> None:
    assert keep(clone(tmp_path / "nothing"), "ours", parent) is None
    keep(clone(tmp_path / "first", "1"), "ours", parent)
    kept = keep(clone(tmp_path / "second", "2"), "ours", parent)
    assert list(parent.iterdir()) == [kept]
    assert kept is not None and kept.stat().st_mode & 0o077 == 0
    keep(clone(tmp_path / "other", "3"), "theirs", parent)
    third = clone(tmp_path / "third")
    assert take_up(third, "ours", parent)
    assert (third / ".dvc" / "cache" / "object").read_text() == "2"
    assert not kept.exists()
    assert not take_up(clone(tmp_path / "fourth"), "ours", parent)
    assert len(list(parent.iterdir())) == 1


def test_what_nobody_takes_up_goes_after_a_week(tmp_path: Path, parent: Path) -> None:
    old, new = (keep(clone(tmp_path / name, name), name, parent) for name in ("old", "new"))
    assert old is not None
    then = time.time() - 8 * 24 * 3600
    os.utime(old, (then, then))
    forget_old(parent)
    assert list(parent.iterdir()) == [new]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make another user's folder")
def test_what_another_user_has_put_there_is_left_alone(tmp_path: Path, parent: Path) -> None:
    theirs = keep(clone(tmp_path / "first", "1"), "ours", parent)
    assert theirs is not None
    os.chown(theirs, 12345, 12345)
    assert not take_up(clone(tmp_path / "second"), "ours", parent)
    assert theirs.exists()
