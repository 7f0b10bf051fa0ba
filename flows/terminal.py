"""What Prefect writes about runs, shortened to what a person wants to read.

Our errors carry their whole message; a traceback of Prefect's engine adds nothing to them, neither
in the terminal nor in the UI's logs (which keeps it with the state). Nor does one of its client to
the word that the server cannot be reached.
"""

from __future__ import annotations

import logging
import re

from components.errors import LesionflowError

_FINISHED = re.compile(r"^Finished in state (?P<name>\w+)\((?P<rest>.*)\)$", re.DOTALL)
_HOOK = re.compile(r"^(Running hook '|Hook '.*' finished running successfully$)")
_SHORT = {
    "NotReady": "not run: a stage that it needs failed",
    "Failed": "failed",
    "Cached": "nothing changed since the last run",
}


class _ShortLines(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, LesionflowError):
            return False  # told by what failed, and once more at the end
        if error is not None and _is_server_away(error):
            record.exc_info = None  # the line names it, and the command says what to do
        if _HOOK.match(record.getMessage()):
            return False  # a hook that has something to say says it itself
        ended = _FINISHED.match(record.getMessage())
        if ended is not None:
            name, rest = ended["name"], ended["rest"]
            record.msg = _SHORT.get(name) or _first_string(rest) or "done"
            record.args = ()
        return True


def shorten_run_lines() -> None:
    """Shorten what Prefect logs about flow runs and task runs of this process."""
    for name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
        logger = logging.getLogger(name)
        if not any(isinstance(each, _ShortLines) for each in logger.filters):
            logger.addFilter(_ShortLines())


def _is_server_away(error: BaseException) -> bool:
    from httpx import TransportError

    return isinstance(error, TransportError)


def _first_string(rest: str) -> str:
    quoted = re.match(r"""(['"])(?P<text>.*?)\1""", rest)
    return quoted["text"] if quoted else ""
