"""What a number was measured on, and where numbers are kept."""

from __future__ import annotations

import csv
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.atomic import atomic_path

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """Return processor, cores, memory, GPU and the versions that matter, on one line."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    parts.append(f"Python {platform.python_version()}, torch {torch.__version__}")
    return "; ".join(parts)


def write_results(name: str, rows: Sequence[Mapping[str, object]]) -> Path:
    """Write `rows` with the machine beside each number to `results/<name>.csv`.

    A row that `read_results` has read keeps its machine.
    """
    path = RESULTS / f"{name}.csv"
    here = machine()
    columns = [key for key in dict.fromkeys(key for row in rows for key in row) if key != "machine"]
    with atomic_path(path) as half, half.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*columns, "machine"], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"machine": here, **row} for row in rows)
    return path


def read_results(name: str) -> list[dict[str, str]]:
    """Return the rows of `results/<name>.csv`, each with its machine; none without the file."""
    path = RESULTS / f"{name}.csv"
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
