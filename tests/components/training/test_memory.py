"""A training's large blocks are used again, and not asked from the kernel in every step."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

_FAULTS = """
import resource
import torch
from components.training.memory import keep_freed_memory

if {kept}:
    keep_freed_memory()

def step() -> None:
    held = [torch.ones(6 * 2**20) for _ in range(8)]  # 24 MiB each

for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(*, kept: bool) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _FAULTS.format(kept=kept)],
        # What glibc begins with; left alone, it may learn from the first blocks to keep them.
        env=os.environ | {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back")
def test_freed_blocks_are_used_again() -> None:
    assert page_faults(kept=True) * 10 < page_faults(kept=False)
