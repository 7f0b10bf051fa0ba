"""What a split of single images would have claimed: how much it flatters, measured cheaply.

Published results often come from a split that deals images, so that another picture of a test
lesion lies in training. Here the same classifier is trained on both kinds of split, dealt anew
several times with the same shares: a linear head on features of the network that the winner
*started* from. Those features have seen none of the labels; the trained network's own ones have,
and would flatter both.

A network that is trained as a whole can remember more of a lesion than a linear head can: the
difference is rather a lower bound of what its own number would gain.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from components.backbones.saved import read_model
from components.backbones.weights import WeightsFile, resolve_weights
from components.dataset.pack import PackedImages
from components.errors import WeightsError
from components.evaluation.intervals import one_thread
from components.evaluation.prediction_table import Codes, Floats
from components.layout import Layout
from components.tables import read_table

if TYPE_CHECKING:
    import pandas as pd

Document = dict[str, Any]
Flags = npt.NDArray[np.bool_]
REPEATS = 10
MOST_IMAGES = 2000
"""Of larger sets whole groups are drawn until there are so many images."""
_COMPONENTS = 128
_STEPS, _PENALTY = 100, 0.5
"""Most steps of a head's training; penalty of its squared weights, per training image."""
_DIGITS = 6


def measure_leaking_split(layout: Layout, candidate: Mapping[str, Any], seed: int) -> Document:
    """Return what a linear head reaches on group-level and on image-level splits.

    Parameters
    ----------
    candidate
        Of the leaderboard; of an ensemble its first member stands for all.
    seed
        Of the deals.

    Returns
    -------
    dict
        `measured`; if False, the `reason`: the network's start is not to be had any more, or has
        seen labels. If True: `own_split`, the balanced accuracy on test of our own split;
        `group_level` and `image_level` (`mean`, `sd`, `by_repeat`); their `difference`, deal by
        deal; `leaking_share`, the mean share of an image-level test part with another image of
        its group in training.
    """
    member = candidate["members"][0]
    document: Document = {"schema_version": 1, "backbone": member["backbone"]}
    run = layout.run(member["backbone"], member["seed"])
    try:
        weights = starting_weights(run, layout.root)
    except WeightsError as error:
        return document | {"measured": False, "reason": error.what}
    packed = PackedImages.open(layout.packed)
    images = draw_groups(_images(layout), MOST_IMAGES, seed)
    features = _frozen_features(run, weights, packed, packed.rows(list(images["image_id"])))
    with one_thread():
        found = compare_splits(
            principal_components(features),
            images["diagnosis"].to_numpy(),
            images["group_id"].to_numpy(),
            images["split"].to_numpy(),
            seed,
        )
    return document | {"measured": True, "started_from": weights.origin} | found


def starting_weights(run: Path, base: Path) -> WeightsFile:
    """Return the weights that a training started from, as its `model.json` recorded them.

    Raises
    ------
    WeightsError
        They are not to be had on this machine, are others by now, or are those of a model that
        was trained on such images.
    """
    file = read_model(run)
    recorded = file.provenance["weights"]
    spec = file.provenance["training"]["weights"]
    seen = WeightsError(
        "the network started from an earlier model, which has seen labels of such images",
        where=str(run),
        fix="train one with `weights: imagenet` to have this measured",
    )
    if spec.startswith("registry:"):
        raise seen
    weights = resolve_weights(spec, file.members[0].backbone, base=base)
    if weights.sha256 != recorded["sha256"]:
        raise WeightsError(
            "the weights that the training started from are others by now",
            where=weights.origin,
            fix="train it again",
        )
    if weights.our_model:
        raise seen
    return weights


def draw_groups(images: pd.DataFrame, most: int, seed: int) -> pd.DataFrame:
    """Return the images of whole groups, drawn until there are at least `most` images."""
    groups = np.unique(images["group_id"])
    order = np.random.default_rng(seed).permutation(len(groups))
    sizes = images["group_id"].value_counts()[groups[order]].to_numpy()
    count = int(np.searchsorted(np.cumsum(sizes), most)) + 1
    chosen = images["group_id"].isin(groups[order[:count]])
    return images[chosen].reset_index(drop=True)


def principal_components(features: npt.NDArray[np.float32]) -> Floats:
    """Return standardised features `[N, D]` as their first components `[N, <= 128]`.

    No label takes part. It makes the many heads cheap.
    """
    values = features.astype(np.float64)
    spread = values.std(axis=0)
    values = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    num_images, num_features = values.shape
    solver = "full" if num_images < num_features else "covariance_eigh"  # whichever is cheaper
    count = min(_COMPONENTS, num_images, num_features)
    return np.asarray(PCA(count, svd_solver=solver).fit_transform(values))


def compare_splits(
    features: Floats, diagnosis: Any, group: Any, own_split: Any, seed: int
) -> Document:
    """Train heads on splits of groups and of images; return their balanced accuracies on test.

    Parameters
    ----------
    features
        Shape (N, D).
    diagnosis, group, own_split
        Name, group and part (`train`, `validation`, `test`) of each image, shape (N,).
    seed
        Of the deals.
    """
    truth: Codes = np.unique(diagnosis, return_inverse=True)[1]
    groups: Codes = np.unique(group, return_inverse=True)[1]
    shares = float((own_split == "train").mean()), float((own_split == "test").mean())
    rng = np.random.default_rng(seed)
    reached: dict[str, list[float]] = {"group_level": [], "image_level": []}
    leaking = []
    for _ in range(REPEATS):
        for kind, units in (("group_level", groups), ("image_level", np.arange(len(groups)))):
            train, test = deal(units, truth, shares, rng)
            reached[kind].append(head_balanced_accuracy(features, truth, train, test))
        leaking.append(float(np.isin(groups[test], groups[train]).mean()))
    own = head_balanced_accuracy(features, truth, own_split == "train", own_split == "test")
    difference = np.subtract(reached["image_level"], reached["group_level"])
    return {
        "num_images": len(truth),
        "num_groups": int(groups.max()) + 1,
        "repeats": REPEATS,
        "own_split": round(own, _DIGITS),
        **{kind: _spread(np.array(values)) for kind, values in reached.items()},
        "difference": _spread(difference),
        "leaking_share": round(float(np.mean(leaking)), _DIGITS),
    }


def deal(
    units: Codes, truth: Codes, shares: tuple[float, float], rng: np.random.Generator
) -> tuple[Flags, Flags]:
    """Deal whole units by diagnosis; return which images are in train and in test.

    Parameters
    ----------
    units
        Number of the unit of each image, shape (N,), from 0 on: groups, or the images themselves.
    truth
        Class of each image, shape (N,); a unit goes by the one that is rarest.
    shares
        Of train and test, by images.
    """
    num_units = int(units.max()) + 1
    by_rarity = np.argsort(np.bincount(truth), kind="stable")
    stratum = np.full(num_units, len(by_rarity))
    np.minimum.at(stratum, units, np.argsort(by_rarity, kind="stable")[truth])
    size = np.bincount(units, minlength=num_units)
    order = np.lexsort((rng.random(num_units), stratum))
    before = np.cumsum(size[order]) - size[order] / 2
    totals = np.bincount(stratum, weights=size)
    start = np.cumsum(totals) - totals
    place = np.empty(num_units)
    place[order] = (before - start[stratum[order]]) / totals[stratum[order]]
    return np.asarray(place < shares[0])[units], np.asarray(place >= 1 - shares[1])[units]


def head_balanced_accuracy(features: Floats, truth: Codes, train: Flags, test: Flags) -> float:
    """Train a softmax head, classes weighted evenly; return its balanced accuracy on `test`."""
    strength = 1 / (_PENALTY * train.sum())
    head = LogisticRegression(C=strength, class_weight="balanced", max_iter=_STEPS, tol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a head may stop early
        head.fit(features[train], truth[train])
    predicted = head.predict(features[test])
    right, own = predicted == truth[test], truth[test]
    return float(np.mean([right[own == number].mean() for number in np.unique(own)]))


def _spread(values: Floats) -> Document:
    return {
        "mean": round(float(values.mean()), _DIGITS),
        "sd": round(float(values.std(ddof=1)), _DIGITS),
        "by_repeat": [round(float(value), _DIGITS) for value in values],
    }


def _images(layout: Layout) -> pd.DataFrame:
    """Return the images that take part, sorted by id."""
    splits = read_table(layout.splits, ("image_id", "group_id", "split"))
    labels = read_table(layout.labels, ("image_id", "diagnosis"))[["image_id", "diagnosis"]]
    table = splits[splits["split"].notna()].merge(
        labels.astype({"diagnosis": str}), on="image_id", validate="one_to_one"
    )
    return table.sort_values("image_id", ignore_index=True)


def _frozen_features(
    run: Path, weights: WeightsFile, packed: PackedImages, rows: Codes
) -> npt.NDArray[np.float32]:
    """Return pooled features `[N, D]` of the network as its training found it."""
    import torch

    from components.backbones.inference import exact_float32, images_at_once
    from components.backbones.weights import load_into
    from components.backbones.zoo import create_backbone, features

    file = read_model(run)
    member = file.members[0]
    torch.manual_seed(int(file.provenance["seed"]))  # of a random start
    network = create_backbone(member.backbone, len(file.classes))
    load_into(network, member.backbone, weights)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.eval().to(memory_format=torch.channels_last).to(device)
    together = images_at_once(member.preprocessing.image_size, device)
    parts, before = [], torch.get_num_threads()
    torch.set_num_threads(1)  # the same bytes on every number of cores
    with exact_float32(), torch.inference_mode():
        for start in range(0, len(rows), together):
            squares = torch.from_numpy(packed.images[rows[start : start + together]])
            images = member.preprocessing.to_input(squares.to(device))
            parts.append(features(network, images).float().cpu().numpy())
    torch.set_num_threads(before)
    return np.concatenate(parts)
