"""Search better hyperparameters for one backbone, judged on validation; test is never read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.atomic import write_json
from components.layout import Layout
from components.params import Params
from components.recipes import set_values
from components.tables import write_table
from components.tuning import results
from components.tuning.config import Value
from components.tuning.plot import draw
from components.tuning.results import Trial
from components.tuning.study import Study, make_study


@dataclass(frozen=True)
class Outcome:
    """What a search found, and where it was written."""

    backbone: str
    max_epochs: int
    trials: tuple[Trial, ...]
    folder: Path

    @property
    def best(self) -> Trial:
        """The best trial."""
        return results.best_of(self.trials)

    @property
    def verdict(self) -> str:
        """The best trial and the recipe as it stands, in one sentence."""
        best, now = self.best, self.trials[0]
        before = "failed" if now.score is None else f"has {now.score:.3f}"
        if best is now:
            return (
                f"no trial of {len(self.trials)} is better than the recipe as it is, which {before}"
            )
        return (
            f"trial {best.number} is the best of {len(self.trials)}: balanced accuracy "
            f"{best.score:.3f} on validation; the recipe as it is {before}"
        )

    @property
    def picture(self) -> Path:
        """Learning curves, and the score over each searched key."""
        return self.folder / f"{self.backbone}.png"

    @property
    def table(self) -> Path:
        """One row per trial."""
        return self.folder / f"{self.backbone}.csv"

    def rows(self) -> list[dict[str, Any]]:
        """Return the trials for a reader, the best first."""
        return results.ranked_rows(self.trials, self.max_epochs)


def tune(params: Params, layout: Layout, backbone: str) -> Outcome:
    """Search for `backbone`; write `reports/tune/<backbone>.csv`, `.png` and `.json`.

    A search that is finished is not done again, one that was interrupted goes on, as long as
    data, split, recipe, space, seed and code are the same.

    Raises
    ------
    LesionflowError
        As `make_study` and `run_search`.
    """
    study = make_study(params, layout, backbone)
    record = layout.tuning / f"{backbone}.json"
    trials = _finished(record, study)
    if trials is None:
        from components.cluster import connect
        from components.tuning.search import forget_search, run_search

        with connect(params.cluster.num_cpus):
            trials = run_search(study)
        _write(record, study, trials)
        if all(trial.conclusive for trial in trials):
            forget_search(study)
    else:
        print("nothing has changed since this search was finished", flush=True)
    return Outcome(backbone, study.max_epochs, tuple(trials), layout.tuning)


def apply_best(layout: Layout, backbone: str, best: Trial) -> list[str]:
    """Write the values of `best` into `params.yaml` below the backbone, comments kept.

    Returns
    -------
    list of str
        What was changed, one line per key.
    """
    if best.number == 0:
        return []
    given = [f"backbones.{backbone}.{key}={_as_yaml(value)}" for key, value in best.values.items()]
    return set_values(layout, given)


def _as_yaml(value: Value) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _finished(record: Path, study: Study) -> list[Trial] | None:
    """Return the trials of the same search if it was finished, else None."""
    try:
        document: Mapping[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        if document["identity"] != study.identity:
            return None
        trials = [
            Trial.from_dict(each | {"values": study.values_of(each["number"])})
            for each in document["trials"]
        ]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return trials if all(trial.conclusive for trial in trials) else None


def _write(record: Path, study: Study, trials: list[Trial]) -> None:
    document = {"identity": study.identity, "trials": [trial.as_dict() for trial in trials]}
    write_table(results.table(trials, study.max_epochs), record.with_suffix(".csv"))
    title = f"{study.job.backbone}: {len(trials)} trials"
    draw(trials, title, record.with_suffix(".png"))
    write_json(record, document)  # last: it says that the others are there
