"""DVC's command line as the tasks run it: silent, but for why it failed.

`dvc --quiet` hides the errors too, such as a full disk under its cache.

Usage: python -m tasks.dvc_command --wait-for-lock repro -q …
"""

from __future__ import annotations

import logging
import sys


def dvc_command(*arguments: str) -> list[str]:
    """Return the command for a subprocess; `arguments` hold `-q`."""
    return [sys.executable, "-m", "tasks.dvc_command", *arguments]


def main() -> None:
    """Run DVC with the arguments of this process."""
    from dvc.cli import main as run_dvc

    for name in ("dvc.cli", "dvc.commands"):  # who reports errors; `-q` sets the level of `dvc`
        logging.getLogger(name).setLevel(logging.ERROR)
    sys.exit(run_dvc())


if __name__ == "__main__":
    main()
