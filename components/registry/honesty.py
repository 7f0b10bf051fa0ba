"""Gates that ask whether the numbers may be believed at all; they cannot be turned off."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from components.dataset.withdrawn import read_withdrawn
from components.registry.candidate import Candidate
from components.registry.gates import Gate, at_most
from components.registry.images import ImageFiles
from components.registry.predicting import predict_all
from components.registry.versus import clean_test_images
from components.splitting.ledger import read_ledger
from components.tables import probability_columns

TOLERANCE = 1e-4
"""Largest difference between a prediction and the same picture's row of the prediction table. On
one machine it is below 1e-5; between a GPU and a CPU rounding makes a little more."""
_SAMPLE = 8


def unseen_test(candidate: Candidate) -> Gate:
    """Return the gate: no test image's group was trained or selected on.

    A model that started from one whose images nobody knows cannot pass it.
    """
    if candidate.unknown_starts:
        return Gate("unseen_test", None, 0.0, "failed", "; ".join(candidate.unknown_starts))
    own_test = candidate.exposure["split"] == "test"
    num_seen = int(own_test.sum()) - len(clean_test_images(candidate.exposures))
    detail = "test images whose patient, lesion or near-duplicate the model has seen"
    return at_most("unseen_test", float(num_seen), 0.0, detail)


def not_withdrawn(candidate: Candidate, listed: Path) -> Gate:
    """Return the gate: nothing that was withdrawn was trained, selected or judged on.

    Neither by the candidate nor by a model that it started from.

    Parameters
    ----------
    listed
        `data/withdrawn.csv`. Ids and bytes count, and every image of a withdrawn lesion or patient.
    """
    withdrawn = read_withdrawn(listed)
    seen = pd.concat(candidate.exposures)
    used = seen[seen["split"].notna()]
    gone = used[~withdrawn.allows(used) | used["sha256"].isin(withdrawn.sha256)]
    ids = sorted(set(gone["image_id"]))
    names = f" ({', '.join(ids[:3])}{' …' if len(ids) > 3 else ''})" if ids else ""
    detail = (
        f"images that data/{listed.name} withdraws, used by the model or one that it started "
        f"from{names}"
    )
    if ids:
        detail += ": `lesionflow retrain` trains without them; start from no model that saw them"
    return at_most("not_withdrawn", float(len(ids)), 0.0, detail)


def reproduces(candidate: Candidate, files: Path) -> Gate:
    """Return the gate: the raw bytes give the rows of the prediction table.

    Parameters
    ----------
    files
        Folder of the original files; where they are gone the gate is off.
    """
    lookup = ImageFiles(files)
    columns = probability_columns(candidate.model.classes)
    table = candidate.test.merge(candidate.exposure[["image_id", "sha256"]], on="image_id")
    chosen = table.iloc[np.unique(np.linspace(0, len(table) - 1, _SAMPLE).astype(int))]
    pictures = [
        partial(lookup.read, image_id, sha256)
        for image_id, sha256 in zip(chosen["image_id"], chosen["sha256"], strict=True)
    ]
    predicted, _ = predict_all(candidate.load(), pictures)
    there = ~np.isnan(predicted).any(axis=1)
    name, what = "reproduces", "largest difference between predict and the prediction table"
    if not there.any():
        return Gate(name, None, TOLERANCE, "off", "the original images are not here")
    expected = chosen[columns].to_numpy(dtype=np.float64)
    value = float(np.abs(predicted - expected)[there].max())
    return at_most(name, value, TOLERANCE, f"{what}, {int(there.sum())} images")


def comparable(candidate: Candidate, champion: Candidate) -> Gate:
    """Return the gate: both know the same classes and are of the same kind of pictures."""
    own, other = candidate.model.classes, champion.model.classes
    if own != other:
        detail = f"classes {', '.join(own)}; those of {champion.version} are {', '.join(other)}"
    elif candidate.synthetic != champion.synthetic:
        names = {True: "synthetic", False: "real"}
        detail = (
            f"trained on {names[candidate.synthetic]} pictures, "
            f"{champion.version} on {names[champion.synthetic]} ones"
        )
    else:
        return Gate("comparable", None, None, "passed", f"same classes as {champion.version}")
    detail += ": give it another registry.model_name"
    return Gate("comparable", None, None, "failed", detail)


def in_ledger(exposures: Sequence[pd.DataFrame], ledger: Path) -> Gate:
    """Return the gate: the split ledger has every image, in the part that each model saw it in.

    Without it the next split may deal a champion's training images into the test part. Whoever
    promotes has appended the present split to the ledger just before; that it was another one when
    the champion was trained shows in the champion's images alone.

    Parameters
    ----------
    exposures
        What the candidate and the champion have seen.
    """
    both = pd.concat(exposures).drop_duplicates(["sha256", "split"])
    taking_part = both[both["split"].notna()]
    parts = read_ledger(ledger).rows.dropna(subset=["sha256"])
    part_of = parts.drop_duplicates("sha256").set_index("sha256")["part"]
    found = taking_part["sha256"].map(part_of)
    num_missing = int(found.isna().sum())
    num_moved = int((found.notna() & (found != taking_part["split"])).sum())
    detail = (
        f"{num_missing} images of the candidate or the champion are not in data/{ledger.name}, "
        f"{num_moved} are in another part there: take back the ledger that the champion was "
        "trained with, or start anew under another registry.model_name"
    )
    return at_most("split_ledger", float(num_missing + num_moved), 0.0, detail)
