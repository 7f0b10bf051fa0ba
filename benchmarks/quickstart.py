"""What the README's first command takes, and what of it passes between the stages.

`retrain` of the quickstart in a fresh clone, from the command to its end, and once more with
nothing changed. A stage's time includes that of its DVC.

Usage: python -m benchmarks.quickstart
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.machine import write_results
from benchmarks.whole_run import fresh_clone, overhead_rows, read_events, run_command


def main() -> None:
    """Measure, print and write `results/quickstart.csv`."""
    with tempfile.TemporaryDirectory(prefix="lesionflow-bench-") as folder:
        workspace = fresh_clone(Path(folder) / "workspace")
        whole = run_command(workspace, "retrain")
        events = read_events(workspace)
        again = run_command(workspace, "retrain")
    rows = [
        {"case": "retrain of the quickstart", "value": round(whole, 1), "unit": "s"},
        *overhead_rows(whole, events),
        {"case": "run again, nothing changed", "value": round(again, 1), "unit": "s"},
    ]
    for row in rows:
        print(f"{row['case']}: {row['value']} {row['unit']}", flush=True)
    write_results("quickstart", rows)


if __name__ == "__main__":
    main()
