"""DVC's command line as the tasks run it: silent, but for why it failed; its records stay whole.

`dvc --quiet` hides the errors too, such as a full disk under its cache. And DVC writes `dvc.lock`
and its list of past runs in place: a kill or a full disk at that moment would leave a part, which
DVC cannot read, or takes for the whole, in every later run.

Usage: python -m tasks.dvc_command --wait-for-lock repro -q …
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def dvc_command(*arguments: str) -> list[str]:
    """Return the command for a subprocess; `arguments` hold `-q`."""
    return [sys.executable, "-m", "tasks.dvc_command", *arguments]


def main() -> None:
    """Run DVC with the arguments of this process."""
    from dvc.cli import main as run_dvc

    _keep_records_whole()
    for name in ("dvc.cli", "dvc.commands"):  # who reports errors; `-q` sets the level of `dvc`
        logging.getLogger(name).setLevel(logging.ERROR)
    sys.exit(run_dvc())


def _keep_records_whole() -> None:
    from dvc.stage.cache import StageCache
    from dvc.utils.serialize import _common, _yaml

    # The first is for dvc.lock, the second for the past runs.
    _common._dump_data = _yaml._dump_data = _dump_whole
    load = StageCache._load_cache
    # A cut before the first past run of a stage leaves a folder without a newest one.
    StageCache._load_cache = lambda cache, key, newest: load(cache, key, newest) if newest else None


def _dump_whole(
    path: str | os.PathLike[str],
    data: Any,
    dumper: Callable[..., None],
    fs: object = None,  # noqa: ARG001 (DVC's: the local disk, for nothing else can be written to)
    **options: Any,
) -> None:
    """Write `data` beside `path`, and put it in its place when all of it is on the disk.

    Unlike `components.atomic`, under one name for all processes (DVC holds its lock here), so that
    kills leave one file at most, which Git ignores; and a full disk stays the error that DVC
    reports. At once, for among the past runs DVC reads whatever lies there.
    """
    text = io.StringIO()
    dumper(data, text, **options)
    whole = Path(path)
    half_done = whole.with_name(f".{whole.name}.half-done")
    try:
        with half_done.open("wb") as file:
            file.write(text.getvalue().encode())
            file.flush()
            os.fsync(file.fileno())
        half_done.replace(whole)
    finally:
        half_done.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
