"""What Ray's workers print, shown as they wrote it."""

from __future__ import annotations

import re
import sys
from types import TracebackType
from typing import TextIO

_PREFIX = re.compile(r"^(?:\x1b\[\d+m)?\(\w+ pid=\d+(?:, ip=[^)]+)?\)(?:\x1b\[0m)? ", re.MULTILINE)

_LOST = re.compile(r"^.*\(raylet[^)]*\)\S* A worker died or was killed.*$", re.MULTILINE)
_IN_SHORT = "a worker was lost (killed, or out of memory)"
_LOST_NODE = re.compile(
    r"^.*\(raylet[^)]*\)\S* The node with node id: .* and address: (?P<address>\S+) and .*"
    r"marked dead.*(?:\n\t\(2\).*)?$",
    re.MULTILINE,
)


class PlainWorkerLines:
    """For a `with` block: standard output and error without Ray's `(RayTrainWorker pid=7) `.

    Its paragraphs about a lost worker or node become one line.
    """

    def __enter__(self) -> None:
        self._streams = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = _Plain(sys.stdout), _Plain(sys.stderr)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        sys.stdout, sys.stderr = self._streams


class _Plain:
    """A text stream that takes the prefix off every line (Ray writes whole lines)."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        short = _LOST.sub(_IN_SHORT, _PREFIX.sub("", text))
        self._stream.write(_LOST_NODE.sub(r"the node \g<address> was lost", short))
        return len(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)
