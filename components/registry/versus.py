"""The candidate against the champion, on images that say something about both of them.

Only test images count whose group (patient, lesion, near-duplicates) neither model was trained or
selected on. Groups are those of both snapshots together: what either of them knows to belong
together does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.registry.ancestry import SEEN
from components.registry.candidate import Candidate
from components.registry.config import GateParams
from components.registry.gates import Gate, Verdict
from components.registry.images import ImageFiles
from components.registry.predicting import predict_all
from components.tables import probability_columns

NAME = "max_worse_than_champion"
_KEYS = ("sha256", "lesion_id", "patient_id")


@dataclass(frozen=True)
class Comparison:
    """Both models on the same images.

    Attributes
    ----------
    frame
        `image_id, group_id, diagnosis` of the images.
    candidate, champion
        Shape (N, C): their probabilities.
    """

    frame: pd.DataFrame
    candidate: npt.NDArray[np.float64]
    champion: npt.NDArray[np.float64]


def clean_test_images(exposures: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of the first exposure's test part that no model has seen the group of.

    Parameters
    ----------
    exposures
        Of the candidate, its own snapshot first, and of the champion if there is one.

    Returns
    -------
    DataFrame
        Its rows, `group_id` being the group over all snapshots.
    """
    everything = pd.concat(
        [table.assign(snapshot=number) for number, table in enumerate(exposures)],
        ignore_index=True,
    )
    group = _connected(everything)
    seen = set(group[everything["split"].isin(SEEN)])
    own_test = (everything["snapshot"] == 0) & (everything["split"] == "test")
    clean = own_test & ~pd.Series(group).isin(seen)
    names = [f"group {number}" for number in group[clean]]
    return everything[clean].assign(group_id=names).drop(columns="snapshot")


def _connected(rows: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Number the groups of images over several snapshots."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    named = ("snapshot " + rows["snapshot"].astype(str) + " " + rows["group_id"]).where(
        rows["group_id"].notna()
    )
    sources, targets, num_nodes = [], [], len(rows)
    for column in (*(rows[name] for name in _KEYS), named):
        codes, uniques = pd.factorize(column)
        known = np.flatnonzero(codes >= 0)
        sources.append(known)
        targets.append(codes[known] + num_nodes)
        num_nodes += len(uniques)
    source, target = np.concatenate(sources), np.concatenate(targets)
    graph = coo_array((np.ones(len(source), bool), (source, target)), shape=(num_nodes, num_nodes))
    component = connected_components(graph, directed=False)[1]
    return np.asarray(component[: len(rows)], dtype=np.int64)


def probabilities_for(
    model: Candidate, images: pd.DataFrame, files: Path
) -> npt.NDArray[np.float64]:
    """Return a model's probabilities for images, shape (N, C); NaN where there are none.

    What it has predicted of the same bytes is taken from its table; the rest it predicts now,
    from the raw bytes by its own preprocessing.

    Parameters
    ----------
    images
        `image_id, sha256`.
    files
        Folder with the original files.
    """
    columns = probability_columns(model.model.classes)
    of_bytes = model.test.merge(model.exposure[["image_id", "sha256"]], on="image_id")
    known = of_bytes.drop_duplicates("sha256").set_index("sha256")[columns]
    found = known.reindex(images["sha256"]).to_numpy(dtype=np.float64, copy=True)
    missing = np.flatnonzero(np.isnan(found).any(axis=1))
    if len(missing):
        found[missing] = _predict(model, images.iloc[missing], files)
    return found


def _predict(model: Candidate, images: pd.DataFrame, files: Path) -> npt.NDArray[np.float64]:
    lookup = ImageFiles(files)
    pictures = [
        partial(lookup.read, image_id, sha256)
        for image_id, sha256 in zip(images["image_id"], images["sha256"], strict=True)
    ]
    return predict_all(model.load(), pictures)[0]


def pair_on_clean_images(candidate: Candidate, champion: Candidate, files: Path) -> Comparison:
    """Return both models' probabilities for the images that count."""
    images = clean_test_images([*candidate.exposures, *champion.exposures])
    own = probabilities_for(candidate, images, files)
    other = probabilities_for(champion, images, files)
    both = ~(np.isnan(own).any(axis=1) | np.isnan(other).any(axis=1))
    return Comparison(
        images.iloc[np.flatnonzero(both)].reset_index(drop=True), own[both], other[both]
    )


def differences(
    comparison: Comparison, classes: Sequence[str], resamples: int, seed: int
) -> tuple[float, npt.NDArray[np.float64]]:
    """Return candidate minus champion in balanced accuracy, and that of every resample.

    Both models are weighted by the same resamples of the same groups (a paired bootstrap).
    """
    from components.evaluation.intervals import image_weights
    from components.evaluation.metrics import confusion_matrices, from_confusion
    from components.evaluation.prediction_table import Floats, Predictions, parse_predictions

    columns = probability_columns(classes)

    def table_of(probabilities: Floats) -> Predictions:
        return parse_predictions(
            comparison.frame.assign(**dict(zip(columns, probabilities.T, strict=True))), classes
        )

    def balanced(table: Predictions, weights: Floats) -> Floats:
        measures = from_confusion(confusion_matrices(table, weights), table.classes)
        return measures["balanced_accuracy"]

    own, other = table_of(comparison.candidate), table_of(comparison.champion)
    once = np.ones((1, len(own)))
    parts = [
        balanced(own, weights) - balanced(other, weights)
        for weights in image_weights(own, resamples, seed)
    ]
    return float((balanced(own, once) - balanced(other, once))[0]), np.concatenate(parts)


def champion_gate(
    candidate: Candidate,
    champion: Candidate,
    files: Path,
    params: GateParams,
    *,
    resamples: int,
    seed: int,
) -> Gate:
    """Return the gate "not worse than the champion by more than the margin"."""
    margin = params.max_worse_than_champion
    comparison = pair_on_clean_images(candidate, champion, files)
    classes = candidate.model.classes
    counts = comparison.frame["diagnosis"].value_counts().reindex(classes, fill_value=0)
    least = params.min_images_per_class
    few = [f"{name} {count}" for name, count in counts.items() if count < least]
    bound = None if margin is None else -margin
    on = f"on {len(comparison.frame)} test images that neither has seen the group of"
    if few:
        detail = f"{on} there are too few of {', '.join(few)} (at least {least})"
        return Gate(NAME, None, bound, "off" if margin is None else "undecided", detail)
    value, resampled = differences(comparison, classes, resamples, seed)
    low = float(np.quantile(resampled, 1 - params.champion_confidence))
    sure = f"{params.champion_confidence:.0%} sure: at least {low:+.3f}"
    detail = f"balanced accuracy {value:+.3f} against {champion.version} {on}, {sure}"
    return Gate(NAME, value, bound, judge(value, low, bound), detail)


def judge(value: float, low: float, bound: float | None) -> Verdict:
    """Return the verdict on a difference, candidate minus champion.

    Parameters
    ----------
    value
        As measured.
    low
        What it is at least, with the confidence that params ask for.
    bound
        Minus the margin; None: the gate is off.

    Returns
    -------
    str
        `passed` where the candidate measures at least as good, or is surely not worse by more
        than the margin; `failed` where it measures worse by more than the margin; else
        `undecided`.
    """
    if bound is None:
        return "off"
    if value >= 0 or low >= bound:
        return "passed"
    return "failed" if value < bound else "undecided"
