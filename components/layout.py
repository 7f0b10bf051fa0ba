"""The one place that knows the folders of a workspace.

A workspace is the folder that holds `dvc.yaml` and `params.yaml`. Every folder has exactly one
owner (a DVC stage, or nobody but the caches below `.lesionflow/`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from components.errors import ParamsError


@dataclass(frozen=True)
class Layout:
    """Paths of one workspace; `root` is absolute because Ray workers change directory."""

    root: Path

    @staticmethod
    def find(start: Path | None = None) -> Layout:
        """Return the layout of the workspace that `start` (default: the current folder) lies in.

        Raises
        ------
        ParamsError
            No folder from `start` upwards holds a `dvc.yaml` beside a `params.yaml`.
        """
        here = (start or Path.cwd()).resolve()
        for folder in (here, *here.parents):
            if (folder / "dvc.yaml").is_file() and (folder / "params.yaml").is_file():
                return Layout(folder)
        raise ParamsError(
            "no Lesionflow workspace found",
            where=f"{here} and the folders above it",
            fix="go to the folder that holds dvc.yaml and params.yaml (your clone of Lesionflow)",
        )

    # --- configuration -------------------------------------------------------------------
    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def recipes(self) -> Path:
        return self.root / "params"

    @property
    def graph(self) -> Path:
        return self.root / "dvc.yaml"

    @property
    def sources(self) -> Path:
        """Fingerprints of the data sources (kept in Git)."""
        return self.root / "data" / "sources.json"

    @property
    def own_weights(self) -> Path:
        """Fingerprints of own weights that trainings start from (kept in Git)."""
        return self.root / "data" / "weights.json"

    @property
    def split_ledger(self) -> Path:
        """Which group member belongs to which part, for ever (append-only)."""
        return self.root / "data" / "split_ledger.csv"

    @property
    def reference_profile(self) -> Path:
        """Profiles of the snapshots that a run succeeded on, for drift (kept in Git)."""
        return self.root / "data" / "reference_profile.json"

    @property
    def test_uses(self) -> Path:
        """How often each test set has been used, for the report (kept in Git)."""
        return self.root / "data" / "test_uses.json"

    @property
    def withdrawn(self) -> Path:
        """Ids and bytes that no snapshot takes again (append-only, kept in Git)."""
        return self.root / "data" / "withdrawn.csv"

    # --- what the stages own -------------------------------------------------------------
    @property
    def raw(self) -> Path:
        return self.root / "data" / "raw"

    @property
    def images(self) -> Path:
        return self.raw / "images"

    @property
    def labels(self) -> Path:
        return self.raw / "labels.parquet"

    @property
    def manifest(self) -> Path:
        return self.raw / "manifest.json"

    @property
    def quality(self) -> Path:
        return self.root / "data" / "quality.parquet"

    @property
    def pairs(self) -> Path:
        return self.root / "data" / "pairs.parquet"

    @property
    def quarantine(self) -> Path:
        return self.root / "data" / "quarantine.parquet"

    @property
    def validation_report(self) -> Path:
        return self.root / "reports" / "validation"

    @property
    def failed_validation_report(self) -> Path:
        """The report of a validation that stopped the run; the last good one stays in its place."""
        return self.state / "validation-failed"

    @property
    def splits(self) -> Path:
        return self.root / "data" / "splits.parquet"

    @property
    def packed(self) -> Path:
        return self.root / "data" / "packed"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def run(self, backbone: str, seed: int) -> Path:
        """Folder of one training."""
        return self.runs / f"{backbone}-{seed}"

    @property
    def evaluations(self) -> Path:
        return self.root / "evaluations"

    def evaluation(self, backbone: str, seed: int) -> Path:
        """Folder of one run's evaluation."""
        return self.evaluations / f"{backbone}-{seed}"

    @property
    def profiles(self) -> Path:
        return self.root / "profiles"

    def profile(self, backbone: str) -> Path:
        """Measured latency and size of one backbone."""
        return self.profiles / f"{backbone}.json"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def leaderboard(self) -> Path:
        return self.reports / "leaderboard.json"

    @property
    def leaderboard_csv(self) -> Path:
        return self.reports / "leaderboard.csv"

    @property
    def leaking_split(self) -> Path:
        """What a split of single images would have claimed for the winner."""
        return self.reports / "leaking_split.json"

    @property
    def report(self) -> Path:
        return self.reports / "report.html"

    @property
    def plots(self) -> Path:
        return self.reports / "plots"

    @property
    def tuning(self) -> Path:
        """What `lesionflow tune` found, per backbone; no stage owns it."""
        return self.reports / "tune"

    # --- outside every stage -------------------------------------------------------------
    @property
    def state(self) -> Path:
        """Caches, error files and locks; never an input of a result."""
        return self.root / ".lesionflow"

    @property
    def cache(self) -> Path:
        """Caches that are addressed by content (measurements, features, packed rows)."""
        return self.state / "cache"

    @property
    def forgotten(self) -> Path:
        """The list of what was withdrawn, as it was when the caches last forgot what is on it."""
        return self.state / "forgotten.csv"

    @property
    def packed_shelves(self) -> Path:
        """Earlier packed sets, one folder for each way of packing."""
        return self.cache / "packed"

    @property
    def recalled_snapshots(self) -> Path:
        """Earlier snapshots out of DVC, while `ingest` runs."""
        return self.cache / "snapshots"

    @property
    def trained(self) -> Path:
        """What a training has left, while its stage makes outputs of it."""
        return self.state / "training"

    @property
    def half_done_snapshot(self) -> Path:
        """The snapshot that `ingest` is at, until it is complete; on the disk of `raw`."""
        return self.raw.with_name(".raw-half-done")

    @property
    def half_done_validation_report(self) -> Path:
        """The report that `validate` is at, until it is complete; on the disk of the whole one."""
        return self.validation_report.with_name(".validation-half-done")

    @property
    def run_at_work(self) -> Path:
        """Which flow run has this workspace to itself at present."""
        return self.state / "run.json"

    @property
    def clean_clone(self) -> Path:
        """What this workspace is a clone of, where it is one that goes with its run."""
        return self.state / "clean_clone.json"

    @property
    def events(self) -> Path:
        """One line of JSON for each event of a run, for log collectors."""
        return self.state / "events.jsonl"

    def training_clock(self, name: str) -> Path:
        """When training `name` (such as `resnet18-0`) last began and ended."""
        return self.state / "timings" / f"{name}.json"

    def stage_error(self, stage: str) -> Path:
        """What stage `stage` (as DVC names it, such as `train@resnet18-0`) failed with."""
        return self.state / "errors" / f"{stage}.json"
