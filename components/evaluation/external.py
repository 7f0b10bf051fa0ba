"""`lesionflow evaluate`: a registered model measured on any labelled source.

Pictures go from their bytes through the model's own preprocessing, as in `lesionflow predict`.
Nothing is fitted: temperature and classes are the model's. What cannot be decoded is left out by
name; pictures that the model was trained or selected on are counted and said to be so.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from components.errors import SourceError
from components.evaluation.predict import prediction_table
from components.evaluation.score import score_table
from components.layout import Layout
from components.progress import Progress

if TYPE_CHECKING:
    from components.backbones.saved import LoadedModel
    from components.dataset.config import SourceParams

_CHUNK = 64
_SEEN_BY = ("sha256", "lesion_id", "patient_id")


def evaluate_source(
    layout: Layout, sources: Sequence[str], model: str = "champion", kind: str | None = None
) -> dict[str, Any]:
    """Measure a registered model on labelled data.

    Parameters
    ----------
    layout
        The workspace; its `params.yaml` names the registry, the default reader and how sources
        spell diagnoses.
    sources
        URIs; a relative path starts where the user stands.
    model
        Version or alias.
    kind
        Reader of the sources; default: the one that fits what lies there.

    Returns
    -------
    dict
        The document of `score_table`, with `model`, `sources`, `left_out` (`image_id`, `reason`),
        `left_out_by_diagnosis` and `seen_in_training`.

    Raises
    ------
    SourceError
        A source cannot be read, or has a diagnosis that the model does not know.
    RegistryError
        There is no such model.
    """
    from components.backbones.saved import load_model
    from components.evaluation.external_source import describe_source
    from components.params import load_params
    from components.registry.versions import open_registry

    params = load_params(layout.params)
    registry = open_registry(params.registry, layout)
    version = registry.resolve(model)
    folder = registry.fetch(version)
    loaded = load_model(folder)
    labels, reads, by_diagnosis = _read_sources(
        [describe_source(uri, kind, params.sources[0], layout.cache) for uri in sources],
        loaded.file.classes,
        params.diagnoses.names,
        layout.cache,
    )
    document, _, absent = evaluate_labelled(
        loaded,
        labels,
        reads,
        resamples=params.evaluation.bootstrap_resamples,
        seed=params.seed,
        exposure=_exposure(folder),
    )
    return document | {
        "model": {"name": registry.model_name, "version": version},
        "sources": list(sources),
        "left_out": absent,
        "left_out_by_diagnosis": by_diagnosis,
    }


def evaluate_labelled(
    model: LoadedModel,
    labels: pd.DataFrame,
    reads: Mapping[str, Callable[[], bytes]],
    *,
    resamples: int = 2000,
    seed: int = 0,
    exposure: pd.DataFrame | None = None,
) -> tuple[dict[str, Any], pd.DataFrame, list[dict[str, str]]]:
    """Measure a model on labelled pictures.

    Parameters
    ----------
    model
        Predicts from bytes.
    labels
        `image_id` (unique), `diagnosis` (classes of the model), and what is known of `lesion_id`,
        `patient_id`, `age_years`, `sex`, `site`, `diagnosis_method`, `skin_type`.
    reads
        Image id -> gives the bytes of its file; an image that has none is left out.
    resamples, seed
        Of the bootstrap.
    exposure
        What the model has seen: `split` and of `sha256`, `lesion_id`, `patient_id` what is known.

    Returns
    -------
    document
        Of `score_table`, with `seen_in_training`: how many images share their bytes, lesion or
        patient with what the model was trained or selected on; None where that is not known.
    predictions
        The prediction table.
    left_out
        `image_id` and `reason` of each image that has no prediction.

    Raises
    ------
    SourceError
        No picture can be decoded.
    """
    from components.splitting.groups import connect

    probabilities, hashes, problems = _predict(model, list(labels["image_id"]), reads)
    there = np.array([problem is None for problem in problems], dtype=bool)
    left_out = [
        {"image_id": str(image_id), "reason": problem}
        for image_id, problem in zip(labels["image_id"], problems, strict=True)
        if problem is not None
    ]
    if not there.any():
        raise SourceError(
            f"none of {len(labels)} images can be used",
            where=f"image {left_out[0]['image_id']}: {left_out[0]['reason']}" if left_out else "-",
            fix="check that the source's table and its image files belong together",
        )
    images = labels[there].assign(sha256=np.array(hashes, dtype=object)[there])
    images = images.reset_index(drop=True)
    for column in ("lesion_id", "patient_id"):
        if column not in images.columns:
            images[column] = None
    images["group_id"] = [f"group:{number}" for number in connect(images)]
    predictions = prediction_table(images, probabilities[there], model.file.classes)
    document = score_table(
        predictions, model.file.classes, model.file.malignant, resamples=resamples, seed=seed
    )
    document["seen_in_training"] = None if exposure is None else _num_seen(images, exposure)
    return document, predictions, left_out


def known_to_model(
    labels: pd.DataFrame, classes: Sequence[str], names: Mapping[str, str | None], *, where: str
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return the rows with the model's classes, and spelling -> count of what is left out.

    Capital letters do not matter, as when a snapshot is taken.

    Parameters
    ----------
    labels
        Diagnoses are in the source's words.
    classes
        Of the model.
    names
        Spelling -> class, or None for what is to be left out (`diagnoses.names`); the empty one
        stands for no diagnosis.

    Raises
    ------
    SourceError
        A diagnosis is neither a class of the model nor a known spelling of one.
    """
    known: dict[str, str | None] = {name.lower(): name for name in classes}
    known |= {word.lower(): name for word, name in names.items() if name is None or name in classes}
    spelled = labels["diagnosis"].astype(object).where(labels["diagnosis"].notna(), "")
    unknown = sorted(word for word in set(spelled) if word.lower() not in known)
    if unknown:
        first = labels.loc[spelled == unknown[0], "image_id"].iloc[0]
        raise SourceError(
            f"the model does not know the diagnos{'is' if len(unknown) == 1 else 'es'} "
            f"{', '.join(repr(word) if word else '(none)' for word in unknown)} "
            f"(such as image {first})",
            where=f"source {where}",
            fix=f"the model tells {', '.join(classes)} apart: map the source's words onto these "
            "under diagnoses.names in params.yaml, or take another model",
        )
    mapped = spelled.map(lambda word: known[word.lower()])
    left_out = spelled[mapped.isna()].value_counts().sort_index()
    kept = labels.assign(diagnosis=mapped)[mapped.notna()]
    return kept, {str(name): int(count) for name, count in left_out.items()}


def _read_sources(
    sources: Sequence[SourceParams],
    classes: Sequence[str],
    names: Mapping[str, str | None],
    cache: Path,
) -> tuple[pd.DataFrame, dict[str, Callable[[], bytes]], dict[str, dict[str, int]]]:
    """Return labels, a way to the bytes of each image, and what each source's words left out."""
    from components.dataset.sources.catalog import read_source

    parts: list[pd.DataFrame] = []
    reads: dict[str, Callable[[], bytes]] = {}
    by_diagnosis = {}
    for source in sources:
        print(f"evaluate: reading {source.uri} as {source.kind}", file=sys.stderr, flush=True)
        images = read_source(source, Path.cwd(), cache)
        labels, by_diagnosis[source.uri] = known_to_model(
            images.labels, classes, names, where=source.uri
        )
        parts.append(labels)
        for image_id in labels["image_id"]:
            if image_id in images.files:
                reads[image_id] = partial(images.read, images.files[image_id])
    joined = pd.concat(parts, ignore_index=True)
    twice = joined["image_id"][joined["image_id"].duplicated()]
    if len(twice):
        raise SourceError(
            f"{len(twice)} images are in two of the sources, such as {twice.iloc[0]}",
            where="--source",
            fix="evaluate the sources one after the other",
        )
    return joined, reads, by_diagnosis


def _predict(
    model: LoadedModel, image_ids: Sequence[str], reads: Mapping[str, Callable[[], bytes]]
) -> tuple[np.ndarray[Any, np.dtype[np.float64]], list[str | None], list[str | None]]:
    """Return probabilities, sha256 and problem of each image; a few pictures in memory."""
    from components.registry.predicting import predict_all

    hashes: list[str | None] = []

    def read(image_id: str) -> bytes:
        if image_id not in reads:
            hashes.append(None)
            raise FileNotFoundError(2, "the file is absent")
        try:
            data = reads[image_id]()
        except BaseException:
            hashes.append(None)
            raise
        hashes.append(hashlib.sha256(data).hexdigest())
        return data

    def tell(done: int) -> None:
        if done % (4 * _CHUNK) == 0 or done == len(image_ids):
            progress = Progress("evaluate", done, len(image_ids), "images")
            print(progress, file=sys.stderr, flush=True)

    pictures = [partial(read, str(image_id)) for image_id in image_ids]
    probabilities, problems = predict_all(model, pictures, tell)
    return probabilities, hashes, problems


def _exposure(folder: Path) -> pd.DataFrame | None:
    """Return what a version and those that it started from have seen; None where it is not kept."""
    from components.registry.ancestry import EXPOSURE, INHERITED
    from components.tables import read_table

    paths = [folder / name for name in (EXPOSURE, INHERITED)]
    tables = [read_table(path) for path in paths if path.is_file()]
    return pd.concat(tables, ignore_index=True) if tables else None


def _num_seen(images: pd.DataFrame, exposure: pd.DataFrame) -> int:
    used = exposure[exposure["split"].isin(["train", "validation"])]
    seen = pd.Series(False, index=images.index)
    for column in _SEEN_BY:
        if column in used.columns and column in images.columns:
            known = images[column].notna()
            seen |= known & images[column].isin(set(used[column].dropna()))
    return int(seen.sum())
