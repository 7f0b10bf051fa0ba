"""The picture of a search; the same trials give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from components.atomic import atomic_path
from components.tuning.results import Trial, best_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEST, OTHER, AS_IS = "#1c6ea4", "#c3ccd6", "#1f2933"
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(trials: Sequence[Trial], title: str, path: Path) -> None:
    """Draw learning curves, and the score over each searched key, into the PNG file `path`."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    keys = list(trials[0].values)
    columns = min(4, 1 + len(keys))
    lines = -(-(1 + len(keys)) // columns)
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(2.6 * columns, 2.3 * lines), layout="constrained")
        panels = list(figure.subplots(lines, columns, squeeze=False, sharey=True).flat)
        _draw_curves(panels[0], trials)
        for panel, key in zip(panels[1:], keys, strict=False):
            _draw_key(panel, trials, key)
        for panel in panels[1 + len(keys) :]:
            panel.set_visible(False)
        for line in range(lines):
            panels[line * columns].set_ylabel("balanced accuracy\n(validation)")
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})


def _colour(trial: Trial, best: Trial) -> str:
    return BEST if trial is best else OTHER if trial.number else AS_IS


def _draw_curves(panel: Axes, trials: Sequence[Trial]) -> None:
    best = best_of(trials)
    for trial in sorted(trials, key=lambda each: (each is best, not each.number)):
        label = "best" if trial is best else None if trial.number else "as it is"
        epochs = range(1, len(trial.scores) + 1)
        colour = _colour(trial, best)
        panel.plot(epochs, trial.scores, ".-", color=colour, label=label, linewidth=1.2)
    panel.set_xlabel("epoch")
    panel.locator_params(axis="x", integer=True)
    panel.legend(frameon=False)


def _draw_key(panel: Axes, trials: Sequence[Trial], key: str) -> None:
    best = best_of(trials)
    scored = [trial for trial in trials if trial.scores]
    numeric = all(type(trial.values[key]) in (int, float) for trial in scored)
    given = [trial.values[key] if numeric else str(trial.values[key]) for trial in scored]
    colours = [_colour(trial, best) for trial in scored]
    panel.scatter(given, [max(trial.scores) for trial in scored], c=colours, s=18)
    positive = [float(value) for value in given if numeric and float(value) > 0]
    if len(positive) == len(given) and max(positive) > 20 * min(positive):
        panel.set_xscale("log")
    panel.set_xlabel(key)
