"""What is held against the gates: a trained model with its predictions and what it has seen."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from components.backbones.saved import (
    MODEL_JSON,
    LoadedModel,
    Member,
    ModelFile,
    load_model,
    read_model,
)
from components.errors import RegistryError
from components.evaluation.uses import id_of_test_set
from components.layout import Layout
from components.params import Params
from components.registry.ancestry import (
    EXPOSURE,
    EXPOSURE_COLUMNS,
    INHERITED,
    inherited_exposure,
)
from components.registry.checksums import canonical_hash
from components.registry.provenance import provenance_of
from components.registry.store import Content
from components.registry.versions import Registry
from components.tables import read_table

TEST, VALIDATION = "predictions/test.parquet", "predictions/validation.parquet"
METRICS = "metrics.json"
CARD, DECISION = "card.md", "decision.json"


@dataclass(frozen=True)
class Candidate:
    """A model that asks to be champion.

    Attributes
    ----------
    model
        As it will be published, with temperatures and weights of the members.
    weights
        File name -> where the file is now.
    test, validation
        Calibrated prediction tables of these parts.
    metrics
        The document of `test` (`components.evaluation.part_document`).
    exposure
        Every image of the snapshot with `EXPOSURE_COLUMNS`: what the model was trained, selected
        and tested on.
    inherited
        The same of what the training's starting points had seen; empty for published weights.
    latency_ms
        Median for one picture on one CPU, all members; None where it was not measured.
    content_id
        The same for the same model judged on the same data.
    version
        Its name where it is registered already.
    unknown_starts
        Models of ours that a training started from and of which nobody can tell what they have
        seen, each with the reason.
    """

    model: ModelFile
    weights: Mapping[str, Path]
    test: pd.DataFrame
    validation: pd.DataFrame
    metrics: dict[str, Any]
    exposure: pd.DataFrame
    inherited: pd.DataFrame
    latency_ms: float | None
    content_id: str
    version: str | None = None
    unknown_starts: tuple[str, ...] = ()
    extra: Mapping[str, Content] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The members' names, for messages."""
        return " + ".join(member.backbone for member in self.model.members)

    @property
    def synthetic(self) -> bool:
        """Whether it was trained on made-up pictures."""
        return bool(self.model.provenance["data"]["synthetic"])

    @property
    def exposures(self) -> list[pd.DataFrame]:
        """All that it has seen, its own snapshot first."""
        return [self.exposure, self.inherited]

    @property
    def test_set(self) -> str:
        """Hash of the test images and their diagnoses."""
        return id_of_test_set(self.exposure[self.exposure["split"] == "test"])

    def load(self) -> LoadedModel:
        """Return the model ready to predict; the weights' checksums are verified."""
        with tempfile.TemporaryDirectory() as name:
            for file, path in self.weights.items():
                (Path(name) / file).symlink_to(path)
            (Path(name) / MODEL_JSON).write_bytes(_json(self.model.model_dump(mode="json")))
            return load_model(Path(name))

    def files(self) -> dict[str, Content]:
        """Return the files of the version, without the card and the decision."""
        return {
            **self.weights,
            **self.extra,
            MODEL_JSON: _json(self.model.model_dump(mode="json")),
            METRICS: _json(self.metrics),
            TEST: _parquet(self.test),
            VALIDATION: _parquet(self.validation),
            EXPOSURE: _parquet(self.exposure),
            INHERITED: _parquet(self.inherited),
        }


def build_candidate(params: Params, layout: Layout) -> Candidate:
    """Make the candidate that `reports/leaderboard.json` names.

    Raises
    ------
    RegistryError, TableError
        A file of it is missing, or the files do not belong together.
    """
    from components.evaluation.candidate_document import candidate_document
    from components.evaluation.ensembles import candidate_predictions

    chosen = _read_json(layout.leaderboard)["candidate"]
    runs = [(str(item["backbone"]), int(item["seed"])) for item in chosen["members"]]
    members, weights = [], {}
    for (backbone, seed), item in zip(runs, chosen["members"], strict=True):
        name = "model.safetensors" if len(runs) == 1 else f"model-{backbone}-{seed}.safetensors"
        member = _member(layout.run(backbone, seed))
        weights[name] = layout.run(backbone, seed) / member.file
        changed = {"file": name, "weight": item["weight"], "temperature": item["temperature"]}
        members.append(member.model_copy(update=changed))
    exposure = exposure_of(
        read_table(layout.splits, ("image_id", "group_id", "split")),
        read_table(layout.labels, ("image_id", "sha256", "diagnosis")),
    )
    starts = [read_model(layout.run(*run)).provenance["weights"] for run in runs]
    inherited, unknown = inherited_exposure(starts, params.registry, layout)
    latency = _latency_ms([backbone for backbone, _ in runs], layout)
    provenance = provenance_of(params, layout, runs)
    model = ModelFile(
        classes=params.diagnoses.classes,
        malignant=params.diagnoses.malignant,
        members=tuple(members),
        provenance=provenance | {"thresholds": chosen["thresholds"], "latency_ms": latency},
    )
    test = candidate_predictions(layout, chosen, "test")
    if set(test["image_id"]) != set(exposure.loc[exposure["split"] == "test", "image_id"]):
        raise _do_not_fit("the predictions are not of the split's test part", "evaluations/")
    folders = [layout.evaluation(*run) for run in runs]
    return Candidate(
        model=model,
        weights=weights,
        test=test,
        validation=_validation([folder / "validation.parquet" for folder in folders], chosen),
        metrics=candidate_document(params, layout, chosen),
        exposure=exposure,
        inherited=inherited,
        unknown_starts=unknown,
        latency_ms=latency,
        content_id=_content_id(model, exposure),
    )


def registered(registry: Registry, version: str) -> Candidate:
    """Return a version of the registry as a candidate."""
    folder = registry.fetch(version)
    model = read_model(folder)
    return Candidate(
        model=model,
        weights={member.file: folder / member.file for member in model.members},
        test=read_table(folder / TEST),
        validation=read_table(folder / VALIDATION),
        metrics=_read_json(folder / METRICS),
        exposure=read_table(folder / EXPOSURE, EXPOSURE_COLUMNS),
        inherited=read_table(folder / INHERITED, EXPOSURE_COLUMNS),
        latency_ms=model.provenance.get("latency_ms"),
        content_id=registry.info(version).content_id,
        version=version,
    )


def with_extra(candidate: Candidate, extra: Mapping[str, Content]) -> Candidate:
    """Return the candidate with further files of its version."""
    return replace(candidate, extra={**candidate.extra, **extra})


def exposure_of(splits: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """Return what a model trained on this split has seen: one row per image, sorted."""
    of_images = splits[["image_id", "group_id", "split"]].merge(
        labels[["image_id", "sha256", "lesion_id", "patient_id", "diagnosis"]],
        on="image_id",
        validate="one_to_one",
    )
    if len(of_images) != len(splits):
        raise _do_not_fit("the split and the labels are not of the same images", "data/")
    ordered = of_images[list(EXPOSURE_COLUMNS)].sort_values("image_id", ignore_index=True)
    return ordered.astype(object).where(ordered.notna(), None)


def _member(run: Path) -> Member:
    model = read_model(run)
    if len(model.members) != 1:
        raise _do_not_fit(f"a run has one network, this one {len(model.members)}", str(run))
    return model.members[0]


def _validation(paths: Sequence[Path], chosen: Mapping[str, Any]) -> pd.DataFrame:
    """Return the ensemble's table; with folds, each image by the members that did not train on it.

    With folds the members have predicted different images, each its own fold.
    """
    from components.evaluation.ensembles import combine_tables, same_images

    tables = [read_table(path) for path in paths]
    weights = [member["weight"] for member in chosen["members"]]
    if same_images(tables):
        return combine_tables(tables, weights, chosen["temperature_factor"])
    everything = pd.concat(tables, ignore_index=True)
    columns = [name for name in everything.columns if str(name).startswith("p_")]
    means = everything.groupby("image_id")[columns].transform("mean")
    out_of_fold = everything.assign(**means).drop_duplicates("image_id")
    return out_of_fold.sort_values("image_id", ignore_index=True)


def _latency_ms(backbones: Sequence[str], layout: Layout) -> float | None:
    found = []
    for backbone in backbones:
        if not layout.profile(backbone).is_file():
            return None
        found.append(
            float(_read_json(layout.profile(backbone))["latency_ms"]["cpu_batch1"]["median"])
        )
    return sum(found)


def _content_id(model: ModelFile, exposure: pd.DataFrame) -> str:
    document = model.model_dump(mode="json", include={"classes", "malignant"})
    members = [member.model_dump(mode="json", exclude={"file"}) for member in model.members]
    seen = exposure[["image_id", "sha256", "group_id", "diagnosis", "split"]]
    rows = seen.to_numpy(dtype=object).tolist()
    return canonical_hash({**document, "members": members, "exposure": rows})


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError) as error:
        raise _do_not_fit("a file of the candidate is missing or damaged", str(path)) from error


def _do_not_fit(what: str, where: str) -> RegistryError:
    return RegistryError(what, where=where, fix="bring every stage up to date: `dvc repro`")


def _json(document: Any) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def _parquet(frame: pd.DataFrame) -> bytes:
    return bytes(frame.to_parquet(index=False, compression="zstd"))
