"""What lies in a clone that goes with its run can be fetched afterwards, or is said to be gone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from components.clean_clone import CleanClone, fetch_command, note_clone, noted_clone, record_of
from components.layout import Layout
from components.repository import clone, take_record, write_record

LOCK = """
schema: '2.0'
stages:
  report:
    cmd: echo
    outs:
    - path: reports/report.html
      hash: md5
      md5: {md5}
      size: 1
"""
OURS = CleanClone("/srv/our lesions.git", "record", None)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Return a clean clone of a repository that has no record yet."""
    bare, work = tmp_path / "bare.git", tmp_path / "work"
    work.mkdir()
    (work / "params.yaml").write_text("seed: 0\n", encoding="utf-8")
    author = ["-c", "user.name=A", "-c", "user.email=a@b"]
    for arguments in (
        ["init", "-q", "-b", "main", str(work)],
        ["init", "-q", "--bare", "-b", "main", str(bare)],
        ["-C", str(work), "add", "-A"],
        ["-C", str(work), *author, "commit", "-q", "-m", "all"],
        ["-C", str(work), "push", "-q", str(bare), "main"],
    ):
        subprocess.run(["git", *arguments], check=True, capture_output=True)
    layout = Layout(tmp_path / "clone")
    clone(str(bare), "main", layout.root)
    take_record(layout.root, "record")
    return layout


def _make_report(layout: Layout, md5: str) -> None:
    (layout.root / "dvc.lock").write_text(LOCK.format(md5=md5), encoding="utf-8")


def test_only_what_is_noted_is_a_clone_that_goes(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert noted_clone(layout) is None
    note_clone(layout, OURS)
    assert noted_clone(layout) == OURS


def test_a_report_is_fetched_at_the_commit_that_records_it(layout: Layout) -> None:
    assert fetch_command(layout, OURS, layout.report) is None, "nothing was made"
    _make_report(layout, "1" * 32)
    assert fetch_command(layout, OURS, layout.report) is None, "it is not recorded yet"
    commit = write_record(layout.root, "record", "run")
    assert commit == record_of(layout, OURS)
    assert fetch_command(layout, OURS, layout.report) == (
        f"dvc get --rev {commit} '/srv/our lesions.git' reports/report.html"
    )
    other = CleanClone(OURS.repository, "record", "store")
    assert "--remote store" in str(fetch_command(layout, other, layout.report))
    assert fetch_command(layout, OURS, layout.validation_report) is None


def test_an_earlier_record_does_not_stand_for_a_later_report(layout: Layout) -> None:
    """Its push or its record failed: the command would fetch another report."""
    _make_report(layout, "1" * 32)
    write_record(layout.root, "record", "run")
    _make_report(layout, "2" * 32)
    assert fetch_command(layout, OURS, layout.report) is None


def test_without_a_record_the_commit_that_was_cloned_may_have_it(layout: Layout) -> None:
    alone = CleanClone(OURS.repository, None, None)
    _make_report(layout, "1" * 32)
    assert fetch_command(layout, alone, layout.report) is None
    write_record(layout.root, "main", "as a person who commits dvc.lock")
    subprocess.run(["git", "checkout", "-qf", "origin/main"], cwd=layout.root, check=True)
    assert " reports/report.html" in str(fetch_command(layout, alone, layout.report))
