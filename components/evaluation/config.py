"""What `params.yaml` says of evaluation, ranking and the report."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from components.settings import Settings


class EvaluationParams(Settings):
    """How a run is judged."""

    bootstrap_resamples: int = Field(default=2000, ge=100, le=100_000)


class RankingParams(Settings):
    """How runs become a leaderboard, and what the candidate for promotion is."""

    candidate: Literal["best_seed", "seed_ensemble", "greedy_ensemble"] = "best_seed"
    """The winner's best seed on validation, all its seeds averaged, or the runs (of any backbone)
    that a greedy search on validation puts together."""
    max_members: int = Field(default=5, ge=2, le=50)
    """Most picks of the greedy search; a run that is picked twice weighs twice."""
    significance: float = Field(default=0.05, gt=0, lt=1)
    """Models share a rank unless the corrected p-value of their difference is below this."""
