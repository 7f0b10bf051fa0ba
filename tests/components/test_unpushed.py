"""What is not pushed yet lies there for the next such run, whatever ends the one that made it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from components.unpushed import WorkingCache, forget_old, working_cache

KILLED = """
import os, signal, sys
from pathlib import Path
from components.unpushed import working_cache
with working_cache("ours", "main", "record", Path(sys.argv[1])) as working:
    (working.cache / "object").write_text(sys.argv[2])
    os.kill(os.getpid(), signal.SIGKILL)
"""


class _PushError(Exception):
    """What a run ends with that could not push."""


def _fail(parent: Path, made: str = "", ref: str = "main", record_on: str = "record") -> str:
    """Work as a run that fails in the end; return what an earlier one had left for it."""
    with pytest.raises(_PushError), working_cache("ours", ref, record_on, parent) as working:
        found = _made(working)
        if made:
            (working.cache / "object").write_text(made)
        raise _PushError
    return found


def _succeed(parent: Path, ref: str = "main", record_on: str = "record") -> str:
    with working_cache("ours", ref, record_on, parent) as working:
        return _made(working)


def _remove(folders: list[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder)


def _made(working: WorkingCache) -> str:
    objects = list(working.cache.iterdir())
    assert working.taken_up == bool(objects)
    return objects[0].read_text() if objects else ""


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """Return a folder for temporary files."""
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


def test_what_a_failed_run_leaves_is_there_until_one_succeeds(parent: Path) -> None:
    assert _fail(parent) == ""
    assert not list(parent.iterdir()), "nothing was made, and something is kept"
    assert _fail(parent, "1") == ""
    (kept,) = parent.iterdir()
    assert kept.stat().st_mode & 0o077 == 0, "others may read the pictures"
    assert _fail(parent, "2") == "1"
    assert _fail(parent) == "2"
    assert list(parent.iterdir()) == [kept]
    assert _succeed(parent) == "2"
    assert not list(parent.iterdir())


def test_a_run_of_another_ref_or_record_does_not_take_it(parent: Path) -> None:
    """It would push its own alone, and remove the rest as done."""
    _fail(parent, "of main", ref="main")
    assert _succeed(parent, ref="dev") == ""
    assert _succeed(parent, record_on="elsewhere") == ""
    assert _succeed(parent, ref="main") == "of main"


def test_two_runs_at_once_keep_what_each_has_made(parent: Path) -> None:
    with pytest.raises(_PushError), working_cache("ours", "main", "record", parent) as working:
        (working.cache / "object").write_text("first")
        assert _fail(parent, "second") == ""
        assert (working.cache / "object").read_text() == "first"
        raise _PushError
    assert {_succeed(parent), _succeed(parent)} == {"first", "second"}
    assert not list(parent.iterdir())


def test_a_kill_leaves_what_was_made_and_taken_up(parent: Path) -> None:
    for made in ("first", "second"):
        subprocess.run([sys.executable, "-c", KILLED, str(parent), made], check=False)
        assert len(list(parent.iterdir())) == 1
    assert _succeed(parent) == "second"


def test_what_nobody_takes_up_goes_after_a_week(parent: Path) -> None:
    for ref in ("old", "new", "at work"):
        _fail(parent, ref, ref=ref)
    with working_cache("ours", "at work", "record", parent) as working:
        then = time.time() - 8 * 24 * 3600
        for folder in parent.iterdir():
            if (folder / "cache" / "object").read_text() != "new":
                os.utime(folder, (then, then))
        forget_old(parent)
        assert (working.cache / "object").exists(), "taken from under a run that is at work"
        assert len(list(parent.iterdir())) == 2
    assert (_succeed(parent, ref="old"), _succeed(parent, ref="new")) == ("", "new")


def test_folders_that_other_runs_remove_meanwhile_stop_nobody(parent: Path) -> None:
    for _ in range(3):
        folders = [parent / f"lesionflow-unpushed-{number}" for number in range(300)]
        for folder in folders:
            folder.mkdir()
        other = threading.Thread(target=_remove, args=(folders,))
        other.start()
        while other.is_alive():
            forget_old(parent)
        other.join()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make another user's folder")
def test_what_another_user_has_put_there_is_left_alone(parent: Path) -> None:
    _fail(parent, "1")
    (theirs,) = parent.iterdir()
    os.chown(theirs, 12345, 12345)
    assert _succeed(parent) == ""
    assert theirs.exists()
