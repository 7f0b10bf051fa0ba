"""The command line: `lesionflow COMMAND`.

Exit codes are a contract: 0 done; 1 a check found something; 2 the user's mistake, told in one
message on standard error; anything else is a bug of ours.
"""

from __future__ import annotations

import os
import signal
import sys

import typer

from components.errors import LesionflowError
from flows.commands import data, models, operate, scores, work
from flows.interrupts import EXIT_CODE, INTERRUPTED

app = typer.Typer(
    name="lesionflow",
    help="Keeps a skin-lesion classifier fresh. Research software, no medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for group in (work, data, scores, models, operate):
    group.register(app)


def main() -> None:
    """Run the command line; turn our errors into one message and an exit code."""
    # As Ctrl-C does: servers, stages and clusters that a command started are ended with it.
    # So does a terminal that is closed; not under nohup.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        app()
    except LesionflowError as error:
        print(f"lesionflow: {error}", file=sys.stderr)
        sys.exit(exit_code_of(error))
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        sys.exit(EXIT_CODE)
    except BrokenPipeError:
        # The reader (`| head`) has what it wanted.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def exit_code_of(error: LesionflowError) -> int:
    """Return the exit code of an error; a failed stage brings its own."""
    return int(getattr(error, "code", error.exit_code))


if __name__ == "__main__":
    main()
