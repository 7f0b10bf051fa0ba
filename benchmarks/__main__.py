"""Everything that is measured here, one after the other: `make bench` (about an hour on two cores).

Each benchmark runs in a process of its own, so that none inherits another's threads or memory, and
writes `benchmarks/results/`. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = ("quickstart", "whole_run", "training", "dataset", "versioning")


def main() -> int:
    """Run all; return how many failed."""
    failed = []
    for name in BENCHMARKS:
        print(f"--- {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
