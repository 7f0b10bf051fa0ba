"""DVC's list of files in use, rid of what a kill left in it.

DVC writes into `.dvc/tmp/rwlock` which process reads and writes which file. It forgets an entry
when no process has that id; but after a restart of the machine, or of a container, where ids begin
anew, another process has it, and DVC would refuse the files for good. A list that was cut off while
it was written, DVC cannot read at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from components.atomic import write_text

if TYPE_CHECKING:
    from dvc.repo import Repo


def forget_killed(repo: Repo) -> None:
    """Remove the entries of processes that are gone; leave those that work alone."""
    from dvc.lock import make_lock
    from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK

    listed = Path(repo.tmp_dir, RWLOCK_FILE)
    guard = make_lock(
        str(listed.with_name(RWLOCK_LOCK)),
        tmp_dir=repo.tmp_dir,
        hardlink_lock=repo.config["core"].get("hardlink_lock", False),
    )
    with guard:  # DVC writes the list only under this
        if not listed.is_file():
            return
        try:
            entries = json.loads(listed.read_text(encoding="utf-8"))
            alive = _alive(entries)
        except (ValueError, KeyError, TypeError, AttributeError):
            listed.unlink()
            return
        if alive != entries:
            write_text(listed, json.dumps(alive))


def _alive(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    writers = entries.get("write", {})
    readers = entries.get("read", {})
    kept = {path: [who for who in many if _works(who)] for path, many in readers.items()}
    return {
        "write": {path: who for path, who in writers.items() if _works(who)},
        "read": {path: many for path, many in kept.items() if many},
    }


def _works(entry: Mapping[str, Any]) -> bool:
    """Tell whether the process of `entry` has its id still: the arguments are those listed."""
    arguments = _arguments(str(entry["cmd"]))
    try:
        return " ".join(psutil.Process(int(entry["pid"])).cmdline()).endswith(arguments)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _arguments(command: str) -> str:
    """Return what stands behind the program in `command`; the program's path may hold spaces."""
    spaces = [place for place, letter in enumerate(command) if letter == " "]
    for space in spaces:
        with suppress(OSError):  # what is no path at all may be too long for one
            if Path(command[:space]).is_file():
                return command[space + 1 :]
    return command.partition(" ")[2]  # the program is gone, or a module's name
