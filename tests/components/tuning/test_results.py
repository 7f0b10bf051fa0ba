"""The rows, the best trial and the picture of a search."""

from __future__ import annotations

from pathlib import Path

from components.tuning.plot import draw
from components.tuning.results import Trial, best_of, ranked_rows, table

TRIALS = (
    Trial(0, {"learning_rate": 1e-3, "unfreeze": "all"}, (0.4, 0.6, 0.5)),
    Trial(1, {"learning_rate": 3.16e-4, "unfreeze": "all"}, (0.3,)),
    Trial(2, {"learning_rate": 2e-3, "unfreeze": "last_block"}, (0.5, 0.6, 0.7)),
    Trial(3, {"learning_rate": 9.0, "unfreeze": "all"}, (), "the loss is no longer a number"),
    Trial(4, {"learning_rate": 1e-2, "unfreeze": "all"}, (0.9,), "lost 4 times", conclusive=False),
)


def test_the_table_has_one_row_per_trial() -> None:
    rows = table(TRIALS, max_epochs=3)
    assert list(rows["trial"]) == [0, 1, 2, 3, 4]
    assert list(rows["ended"]) == ["finished", "stopped early", "finished", "failed", "failed"]
    assert list(rows["epochs"]) == [3, 1, 3, 0, 1]
    assert rows["best_epoch"].fillna(0).tolist() == [2, 1, 3, 0, 1]
    assert rows["validation_balanced_accuracy"].fillna(0).tolist() == [0.6, 0.3, 0.7, 0, 0.9]
    assert rows.loc[3, "failure"] == "the loss is no longer a number"


def test_a_failed_trial_is_not_the_best() -> None:
    assert best_of(TRIALS).number == 2


def test_of_equal_trials_the_recipe_as_it_is_stays() -> None:
    equal = Trial(1, TRIALS[1].values, (0.6,))
    assert best_of([TRIALS[0], equal]).number == 0


def test_a_reader_sees_the_best_first_and_small_numbers_as_they_are() -> None:
    rows = ranked_rows(TRIALS, max_epochs=3)
    assert [row["trial"] for row in rows] == ["2 *", "4", "0 (as it is)", "1", "3"]
    assert rows[3]["learning_rate"] == "0.000316"


def test_the_same_trials_give_the_same_picture(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw(TRIALS, "resnet18: 5 trials", tmp_path / name)
    first = (tmp_path / "a.png").read_bytes()
    assert first.startswith(b"\x89PNG")
    assert first == (tmp_path / "b.png").read_bytes()
