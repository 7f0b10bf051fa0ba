"""`params.yaml`: read, validated as a whole, and refused with the key's name when it is wrong."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from zoneinfo import available_timezones

from cronsim import CronSim, CronSimError
from pydantic import Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components.backbones.config import BACKBONE_NAMES
from components.dataset.config import DiagnosesParams, PackParams, PairsParams, SourceParams
from components.errors import ParamsError
from components.evaluation.config import EvaluationParams, RankingParams
from components.registry.config import GateParams, RegistryParams
from components.settings import Settings
from components.splitting.config import SplitParams
from components.training.config import TrainingParams
from components.tuning.config import TuneParams
from components.validation.config import ValidationParams


class ClusterParams(Settings):
    """The Ray cluster: a local one, or that of `RAY_ADDRESS`."""

    num_cpus: int | None = Field(default=None, ge=1)
    """Logical CPUs of the local cluster; null: the cores of this machine."""
    side_by_side: int | None = Field(default=None, ge=1)
    """Trainings that a flow has under way at once; null: as many as have room, and on the cluster
    of `RAY_ADDRESS` two that wait for it."""


class ScheduleParams(Settings):
    """When the served flows run: cron expressions in `timezone`; null: by hand only."""

    retrain_cron: str | None = "0 3 * * 0"
    ingest_cron: str | None = "0 2 * * *"
    timezone: str = "UTC"
    wait_minutes: float = Field(default=60.0, ge=0)
    """How long a run of a deployment waits for another one that is at work in the workspace."""
    timeout_hours: float | None = Field(default=48.0, gt=0)
    """How long a run of a deployment may work before it is ended as failed; null: no limit."""

    @model_validator(mode="after")
    def _cron_and_timezone_exist(self) -> Self:
        if self.timezone not in available_timezones():
            raise ValueError(f"timezone: there is no {self.timezone!r}; write Europe/Vienna, say")
        for name in ("retrain_cron", "ingest_cron"):
            expression = getattr(self, name)
            if expression is not None and not _is_cron(expression):
                raise ValueError(f"{name}: {expression!r} is no cron expression (0 3 * * 0, say)")
        return self


_CRON_FIELD = re.compile(r"(?:[0-9*,/-]|(?<![A-Za-z])[A-Za-z]{3}(?![A-Za-z]))+")  # MON, but no L


def _is_cron(expression: str) -> bool:
    """Tell whether Prefect, which runs it, and we, who say when, understand the same by it.

    Prefect knows no seconds as a first field, no `LW` and no `5L`; of two restricted fields for
    days, one with a step (`*/2`), it takes days that match either, others take those that match
    both.
    """
    fields = expression.split()
    if len(fields) != 5 or not all(map(_CRON_FIELD.fullmatch, fields)):
        return False
    days = (fields[2], fields[4])
    if "*" not in days and any(day.startswith("*/") for day in days):
        return False
    try:
        CronSim(expression, datetime.now(UTC))
    except CronSimError:
        return False
    return True


class Params(Settings):
    """The whole of `params.yaml`. One section per stage or concern; see `params/` for recipes."""

    recipe: str
    seed: int = Field(ge=0, lt=2**31)
    sources: tuple[SourceParams, ...] = Field(min_length=1)
    diagnoses: DiagnosesParams
    pairs: PairsParams
    validation: ValidationParams
    split: SplitParams
    pack: PackParams
    training: TrainingParams
    backbones: dict[str, dict[str, Any]] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(min_length=1)
    evaluation: EvaluationParams
    ranking: RankingParams
    gates: GateParams
    registry: RegistryParams
    storage: str = Field(min_length=1)
    """Checkpoints and what travels to the nodes: a folder (from the workspace) or `s3://…`."""
    cluster: ClusterParams
    schedule: ScheduleParams = ScheduleParams()
    tune: TuneParams = TuneParams()

    @model_validator(mode="after")
    def _seeds_are_distinct(self) -> Self:
        if len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ValueError("seeds: give different numbers, none below 0")
        return self

    @model_validator(mode="after")
    def _candidate_can_be_chosen(self) -> Self:
        folds, kind = self.split.folds, self.ranking.candidate
        used = {seed % folds for seed in self.seeds} if folds else set()
        if len(used) > 1 and kind != "seed_ensemble":
            raise ValueError(
                f"ranking.candidate: {kind} compares runs on one validation part, but with "
                f"split.folds {folds} the seeds have {len(used)} different ones; set it to "
                "seed_ensemble, or split.folds to 0"
            )
        return self

    def training_of(self, backbone: str) -> TrainingParams:
        """Return the recipe of `backbone`: `training` with what `backbones.<backbone>` changes.

        Raises
        ------
        pydantic.ValidationError
            `backbones.<backbone>` has an unknown key or a wrong value.
        """
        merged = self.training.model_dump(mode="json") | self.backbones[backbone]
        return TrainingParams.model_validate_json(json.dumps(merged, default=str))


def load_params(path: Path) -> Params:
    """Read and validate `params.yaml`.

    Raises
    ------
    ParamsError
        The file is missing, is no YAML, or has an unknown key, a wrong type or a value that is
        not allowed; the message names every such key.
    """
    return parse_params(read_yaml(path), where=str(path))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML 1.2 mapping (so that `1e-3` is a number, as DVC reads it).

    Raises
    ------
    ParamsError
        The file is missing or is no YAML mapping.
    """
    try:
        document = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ParamsError(
            "no such file", where=str(path), fix="run `lesionflow use RECIPE` to make one"
        ) from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(
            f"this is no valid YAML: {error}", where=str(path), fix="mend the line named above"
        ) from error
    if not isinstance(document, dict):
        raise ParamsError(
            "this is no YAML mapping", where=str(path), fix="start from a file in params/"
        )
    return document


def parse_params(document: dict[str, Any], *, where: str) -> Params:
    """Validate a document that was read from `where`.

    Raises
    ------
    ParamsError
        As `load_params`.
    """
    try:
        params = Params.model_validate_json(json.dumps(document, default=str))
    except ValidationError as error:
        raise _params_error([_problem(item) for item in error.errors()], where) from error
    problems = []
    for name in params.backbones:
        if name not in BACKBONE_NAMES:
            problems.append(f"backbones.{name}: unknown, choose of {', '.join(BACKBONE_NAMES)}")
            continue
        try:
            params.training_of(name)
        except ValidationError as error:
            problems += [_problem(item, f"backbones.{name}.") for item in error.errors()]
    if problems:
        raise _params_error(problems, where)
    return params


def _params_error(problems: list[str], where: str) -> ParamsError:
    return ParamsError(
        "; ".join(problems),
        where=where,
        fix="correct the keys named above; params/ holds complete examples",
    )


def _problem(item: Any, prefix: str = "") -> str:
    key = prefix + ".".join(str(part) for part in item["loc"]) or "params"
    if item["type"] == "extra_forbidden":
        return f"{key}: unknown key"
    if item["type"] == "missing":
        return f"{key}: missing"
    message = str(item["msg"]).removeprefix("Value error, ")
    given = item["input"]
    shown = f" (got {given!r})" if not isinstance(given, dict | list) else ""
    return f"{key}: {message}{shown}"
