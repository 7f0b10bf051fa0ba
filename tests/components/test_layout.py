"""Where things lie in a workspace."""

from __future__ import annotations

from pathlib import Path

from components.layout import Layout


def test_what_is_half_done_lies_on_the_disk_of_its_result(tmp_path: Path) -> None:
    """`data/` and `reports/` may be disks of their own; a rename works within one disk only."""
    layout = Layout(tmp_path)
    assert layout.half_done_snapshot.parent == layout.raw.parent
    assert layout.half_done_validation_report.parent == layout.validation_report.parent
