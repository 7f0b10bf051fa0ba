"""The pictures of the report: one function per picture, from plain numbers to a figure.

Every figure is drawn on Agg with the same style and written without dates or versions, so that the
same numbers give the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from components.evaluation import calibration
from components.evaluation.curves import Curve
from components.evaluation.prediction_table import Predictions

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]

INK, MUTED, GRID, ACCENT, ALERT = "#1f2933", "#6b7785", "#e3e8ee", "#1c6ea4", "#c0392b"
COLOURS = (
    *("#1c6ea4", "#d55e00", "#009e73", "#e0a000", "#7b5ea7", "#56b4e9", "#8c4a3c"),
    *("#cc79a7", "#9a9a9a", "#5d6d1e"),
)
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "figure.dpi": 100,
    "savefig.dpi": 170,
}


def style() -> AbstractContextManager[None]:
    """Return a context in which figures are drawn and written in the report's style."""
    import matplotlib as mpl

    mpl.use("Agg")
    return mpl.rc_context(_STYLE)  # type: ignore[arg-type]


def to_png(figure: Figure) -> bytes:
    """Return the figure as PNG, without metadata, and forget it."""
    from matplotlib import pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()


def new_figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure of `width` by `height` inches and its axes, side by side."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        1, columns, figsize=(width, height), layout="constrained", squeeze=False
    )
    return figure, list(axes[0])


# --- one table of predictions ---------------------------------------------------------------


def confusion(counts: npt.NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """Confusion matrix: row shares as colour and percentage, counts below.

    Parameters
    ----------
    counts
        Shape (C, C): row the diagnosis, column the prediction.
    """
    figure, (axis,) = new_figure(1.6 + 0.72 * len(classes), 1.2 + 0.66 * len(classes))
    total = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axis.grid(False)
    axis.spines[:].set_visible(False)
    for row, column in np.ndindex(*counts.shape):
        axis.text(
            column,
            row,
            f"{shares[row, column]:.0%}\n{counts[row, column]}",
            ha="center",
            va="center",
            fontsize=7.5,
            linespacing=1.4,
            fontweight="bold" if row == column else "normal",
            color="white" if shares[row, column] > 0.55 else INK,
            alpha=1.0 if counts[row, column] else 0.35,
        )
    axis.set_xticks(range(len(classes)), classes)
    axis.set_yticks(
        range(len(classes)), [f"{name} ({n})" for name, n in zip(classes, total[:, 0], strict=True)]
    )
    axis.tick_params(length=0, labelcolor=INK)
    axis.set_xlabel("predicted")
    axis.set_ylabel("diagnosis (images)")
    return figure


def curves(table: Predictions) -> Figure:
    """ROC and precision-recall of every class, and of malignant against benign."""
    figure, (roc, precision_recall) = new_figure(8.4, 3.9, columns=2)
    roc.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=":")
    for name, colour, width, scores, positive in _targets(table):
        curve = Curve.of(scores, positive, np.ones((1, len(table))))
        called = curve.true_positives[0] + curve.false_positives[0]
        precision = curve.true_positives[0, 1:] / called[1:]
        look: dict[str, Any] = {"color": colour, "linewidth": width}
        roc.plot(
            curve.false_positive_rate[0],
            curve.sensitivity[0],
            label=f"{name}  {curve.auc()[0]:.2f}",
            **look,
        )
        # The precision of a threshold holds for the recall that it adds: from the one before.
        precision_recall.step(
            curve.sensitivity[0],
            np.append(precision[:1], precision),
            where="pre",
            label=f"{name}  {curve.average_precision()[0]:.2f}",
            **look,
        )
    roc.set(title="ROC", xlabel="1 − specificity", ylabel="sensitivity")
    precision_recall.set(title="Precision and recall", xlabel="recall", ylabel="precision")
    for axis, legend in ((roc, "AUC"), (precision_recall, "average precision")):
        axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.03))
        axis.legend(title=legend, loc="center left", bbox_to_anchor=(1, 0.5), title_fontsize=8)
    return figure


def _targets(
    table: Predictions,
) -> list[tuple[str, str, float, Floats, npt.NDArray[np.bool_]]]:
    """Return name, colour, line width, score and truth of each curve that can be drawn."""
    found = [
        (
            name,
            COLOURS[number % len(COLOURS)],
            1.2,
            np.asarray(table.probabilities[:, number]),
            np.asarray(table.truth == number),
        )
        for number, name in enumerate(table.classes)
    ]
    malignant = np.asarray(table.is_malignant[table.truth])
    found.append(("malignant", INK, 2.2, np.asarray(table.malignant_score), malignant))
    return [target for target in found if 0 < target[4].sum() < len(table)]


def reliability(tables: Mapping[str, Predictions]) -> Figure:
    """Accuracy against confidence in bins of equal width, with the number of images below.

    Parameters
    ----------
    tables
        Label -> predictions; the last one is drawn strongest, and its counts are shown.
    """
    figure, (axis,) = new_figure(4.1, 3.9)
    axis.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=":")
    for number, (label, table) in enumerate(tables.items()):
        strongest = number == len(tables) - 1
        bins = calibration.reliability(table)
        colour = ACCENT if strongest else MUTED
        axis.plot(
            bins["confidence"],
            bins["accuracy"],
            linewidth=1.6 if strongest else 0.9,
            color=colour,
            alpha=0.7,
            label=label,
        )
        size = 6 + 60 * bins["num_images"] / len(table)
        axis.scatter(bins["confidence"], bins["accuracy"], s=size, color=colour, zorder=3)
        if strongest:
            axis.bar(
                bins["low"],
                0.22 * bins["num_images"] / bins["num_images"].max(),
                width=bins["high"] - bins["low"],
                align="edge",
                color=ACCENT,
                alpha=0.18,
                edgecolor="white",
            )
    axis.set(title="Reliability", xlabel="confidence", ylabel="share that is right")
    axis.set(xlim=(0, 1.02), ylim=(0, 1.04))
    figure.legend(loc="outside lower center", ncols=2)
    return figure


# --- one training -----------------------------------------------------------------------------


def learning(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Loss and validation metric over the epochs of the runs of one backbone.

    Parameters
    ----------
    histories
        Run -> its `history.csv`; the best epoch of each is marked.
    """
    from matplotlib.ticker import MaxNLocator

    figure, (losses, metric) = new_figure(8.4, 2.7, columns=2)
    for number, (name, history) in enumerate(histories.items()):
        colour = COLOURS[number % len(COLOURS)]
        epochs = history["epoch"].to_numpy(dtype=float)
        for column, line, mark in (("train_loss", ":", ""), ("validation_loss", "-", ".")):
            values = history[column].to_numpy(dtype=float)
            losses.plot(epochs, values, color=colour, linestyle=line, marker=mark)
        values = history["validation_balanced_accuracy"].to_numpy(dtype=float)
        metric.plot(epochs, values, color=colour, marker=".", label=name)
        if np.isfinite(values).any():
            best = int(np.nanargmax(values))
            metric.plot(
                epochs[best], values[best], "o", color=colour, markersize=8, markerfacecolor="none"
            )
    losses.plot([], [], ":", color=MUTED, label="training")
    losses.plot([], [], "-", color=MUTED, label="validation")
    losses.legend()
    metric.legend()
    losses.set(title="Loss", xlabel="epoch")
    metric.set(title="Balanced accuracy on validation", xlabel="epoch")
    metric.margins(y=0.12)
    for axis in (losses, metric):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
