"""What the drills are held to does find what it is there for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .measure import Drill, damaged, half_written
from .runs import went_on_after


@pytest.fixture
def loose() -> Iterator[Drill]:
    """Return a drill that only this test checks."""
    drill = Drill()
    yield drill
    drill.end()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a workspace of one whole result, and one that the drill itself has left half."""
    folder = tmp_path / "workspace"
    (folder / "reports").mkdir(parents=True)
    (folder / "reports" / "leaderboard.json").write_text("{}\n", encoding="utf-8")
    (folder / "reports" / ".left.json.12-x.json").touch()
    return folder


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("exit 2", "not one message"),
        ("echo lesionflow: a; echo lesionflow: b; exit 2", "not one message"),
        ("sleep 60 & echo done", "outlive"),
        ("echo 'Traceback (most recent call last):'", "Traceback"),
        ("printf '{' > reports/leaderboard.json", "half-written: .*leaderboard.json"),
        ("touch reports/.leaderboard.json.12-y.json", "temporary names: .*12-y"),
        ("sleep 60", "still at work"),
    ],
)
def test_a_drill_fails_for_what_a_command_leaves_or_says(
    loose: Drill, folder: Path, monkeypatch: pytest.MonkeyPatch, script: str, found: str
) -> None:
    monkeypatch.setattr(Drill, "patience", 1.0)
    run = loose.start(folder, "sh", "-c", script)
    if found != "still at work":
        run.wait()
    with pytest.raises(AssertionError, match=found):
        loose.check()


def test_what_was_damaged_is_found_before_the_next_command_mends_it(
    loose: Drill, folder: Path
) -> None:
    assert loose.start(folder, "sh", "-c", "printf '{' > reports/leaderboard.json").wait() == 0
    with pytest.raises(AssertionError, match=r"leaderboard\.json"):
        loose.start(folder, "sh", "-c", "echo '{}' > reports/leaderboard.json")


def test_a_sound_command_passes_and_what_the_drill_left_is_not_held_against_it(
    loose: Drill, folder: Path
) -> None:
    assert loose.start(folder, "true").wait() == 0
    loose.check()
    assert half_written(folder) == ["reports/.left.json.12-x.json"]


@pytest.mark.parametrize(
    "name",
    ["a.csv", "a.html", "a.json", "a.md", "a.npy", "a.parquet", "a.png", "a.safetensors", "a.zip"],
)
def test_half_a_file_is_no_file(folder: Path, name: str) -> None:
    (folder / "data").mkdir()
    (folder / "data" / name).write_text('{"half', encoding="utf-8")
    (found,) = damaged(folder)
    assert found.startswith(f"data/{name}: ")


@pytest.mark.parametrize(
    ("said", "went_on"),
    [
        ("m-0: goes on after epoch 3", True),
        ("m-0: goes on after epoch 2", True),  # the third was cut off while it was stored
        ("m-0: goes on after epoch 1", False),
        ("m-0: goes on after epoch 3, m-0: goes on after epoch 1", False),
        ("m-0: 13/156 steps", False),
    ],
)
def test_a_training_from_the_first_epoch_is_not_taken_for_one_that_goes_on(
    loose: Drill, folder: Path, said: str, went_on: bool
) -> None:
    run = loose.start(folder, "echo", said)
    assert run.wait() == 0
    assert went_on_after(run, stored=3) is went_on
