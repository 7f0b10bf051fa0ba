"""What a killed process left is removed; what somebody still works in is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from components.left_behind import owned_folder, remove_left_behind

MAKE = """
import sys
from pathlib import Path
from components.left_behind import owned_folder
print(owned_folder("ours-", Path(sys.argv[1])))
"""


def test_only_what_processes_that_have_ended_left_is_removed(tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-c", MAKE, str(tmp_path)], check=True, capture_output=True, text=True
    )
    left, mine = Path(made.stdout.strip()), owned_folder("ours-", tmp_path)
    file = tmp_path / f"{left.name}.npz"
    file.write_bytes(b"half")
    (tmp_path / "ours-and-not-numbered").mkdir()
    assert left.is_dir()
    remove_left_behind("ours-", tmp_path)
    assert not left.exists()
    assert not file.exists()
    assert mine.is_dir()
    assert (tmp_path / "ours-and-not-numbered").is_dir()
