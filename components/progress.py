"""One line of progress: printed by a stage, read back by the Prefect task that watches it."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE = re.compile(
    r"progress (?P<what>\S+): (?P<done>\d+)/(?P<total>\d+) (?P<unit>\S+)(?: \| (?P<detail>.*))?$"
)


@dataclass(frozen=True)
class Progress:
    """`done` of `total` units of `what`, with free text such as loss, images/s and time left."""

    what: str
    done: int
    total: int
    unit: str
    detail: str = ""

    def __str__(self) -> str:
        tail = f" | {self.detail}" if self.detail else ""
        return f"progress {self.what}: {self.done}/{self.total} {self.unit}{tail}"

    @staticmethod
    def parse(line: str) -> Progress | None:
        """Return the progress that `line` ends in (Ray puts a prefix before it), or None."""
        found = _LINE.search(line.rstrip())
        if found is None:
            return None
        return Progress(
            found["what"],
            int(found["done"]),
            int(found["total"]),
            found["unit"],
            found["detail"] or "",
        )
