"""The pictures that compare: models with each other, subgroups with the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from components.evaluation.plots import ACCENT, ALERT, INK, MUTED, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Interval = tuple[float, float, float]
"""Value, lower and upper bound (NaN where unknown)."""


def leaderboard(rows: Sequence[tuple[str, Interval, Interval]]) -> Figure:
    """Balanced accuracy with intervals: validation (ranked on) and test (for the reader).

    Parameters
    ----------
    rows
        Name, validation, test; the best first.
    """
    figure, (axis,) = new_figure(8.4, 0.9 + 0.42 * len(rows))
    for number, (_, validation, test) in enumerate(rows):
        for (value, low, high), shift, colour, marker in (
            (validation, -0.13, ACCENT, "o"),
            (test, 0.13, MUTED, "D"),
        ):
            axis.plot([low, high], [number + shift] * 2, color=colour, linewidth=2, alpha=0.55)
            axis.plot(value, number + shift, marker, color=colour, markersize=5.5)
    axis.plot([], [], "o-", color=ACCENT, label="validation (ranked on)")
    axis.plot([], [], "D-", color=MUTED, label="test")
    axis.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axis.tick_params(axis="y", length=0, labelcolor=INK)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlabel("balanced accuracy (95 % interval over groups)")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def pareto(points: Sequence[tuple[str, float, float]]) -> Figure:
    """Quality against latency; the line joins what nothing beats in both.

    Parameters
    ----------
    points
        Name, latency in milliseconds (CPU, one picture), balanced accuracy on validation.
    """
    from matplotlib.ticker import LogLocator, NullLocator

    figure, (axis,) = new_figure(8.4, 3.4)
    front, best = [], -np.inf
    for name, latency, quality in sorted(points, key=lambda point: (point[1], -point[2])):
        if quality > best:
            best = quality
            front.append((name, latency, quality))
    axis.step(
        [latency for _, latency, _ in front],
        [quality for _, _, quality in front],
        where="post",
        color=ACCENT,
        linewidth=1.2,
        alpha=0.6,
    )
    on_front = {name for name, _, _ in front}
    ordered = sorted(points, key=lambda point: (point[1], -point[2]))
    for place, (name, latency, quality) in enumerate(ordered):
        chosen = name in on_front
        axis.plot(latency, quality, "o", color=ACCENT if chosen else MUTED, markersize=7)
        axis.annotate(
            name,
            (latency, quality),
            textcoords="offset points",
            xytext=(7, -13) if place % 2 else (7, 5),  # neighbours do not write over each other
            color=INK if chosen else MUTED,
        )
    latencies = [latency for _, latency, _ in points]
    if max(latencies) > 4 * min(latencies):
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_xlim(min(latencies) * 0.7, max(latencies) * 2)
    else:
        axis.set_xlim(0, max(latencies) * 1.35)
    axis.margins(y=0.2)
    axis.set(xlabel="latency of one picture on the CPU, ms", ylabel="balanced accuracy, validation")
    return figure


def forest(
    rows: Sequence[tuple[str, str, int, Sequence[Interval]]], metrics: Sequence[str]
) -> Figure:
    """One line per subgroup, one panel per metric: value and interval.

    Parameters
    ----------
    rows
        Heading, subgroup, number of images, an interval per metric; the first row is everything.
        Without bounds a subgroup is too small to tell and drawn hollow.
    metrics
        Labels of the panels.
    """
    headings = dict.fromkeys(row[0] for row in rows)
    figure, axes = new_figure(8.4, 0.9 + 0.23 * (len(rows) + 1.6 * len(headings)), len(metrics))
    places, labels = _places(rows, list(headings))
    for panel, (axis, metric) in enumerate(zip(axes, metrics, strict=True)):
        for place, (_, _, count, intervals) in zip(places, rows, strict=True):
            value, low, high = intervals[panel]
            told = np.isfinite(low)
            axis.plot([low, high], [place, place], color=ACCENT, linewidth=2, alpha=0.55)
            axis.plot(
                value,
                place,
                "s",
                color=ACCENT if told else MUTED,
                markerfacecolor=ACCENT if told else "white",
                markersize=min(8.0, 3 + 1.4 * np.log10(max(count, 1))),
            )
        axis.axvline(rows[0][3][panel][0], color=ALERT, linewidth=1, linestyle="--")
        axis.set_yticks(*(labels if panel == 0 else (labels[0], [""] * len(labels[0]))))
        axis.tick_params(axis="y", length=0, labelcolor=INK)
        axis.set_ylim(places[-1] + 0.8, -0.8)
        axis.set_xlim(-0.03, 1.03)
        axis.grid(axis="y", visible=False)
        axis.set_title(metric)
    return figure


def _places(
    rows: Sequence[tuple[str, str, int, Sequence[Interval]]], headings: Sequence[str]
) -> tuple[list[float], tuple[list[float], list[str]]]:
    """Return the height of each row, and the heights with labels of rows and headings."""
    places: list[float] = []
    ticks: list[float] = []
    labels: list[str] = []
    height = 0.0
    for heading in headings:
        if heading:
            height += 0.5
            ticks.append(height)
            labels.append(heading.upper())
            height += 1
        for _, name, count, _ in (row for row in rows if row[0] == heading):
            places.append(height)
            ticks.append(height)
            labels.append(f"{name} ({count})")
            height += 1
    return places, (ticks, labels)
