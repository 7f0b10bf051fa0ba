"""A small, good snapshot as tables; every test breaks what it is about."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from components.params import Params, load_params
from components.splitting.ledger import LEDGER_COLUMNS, Ledger
from components.tables import LABEL_COLUMNS, PAIR_COLUMNS
from components.validation.config import ValidationParams
from components.validation.judgement import Judgement, Snapshot, judge_snapshot

CLASSES = ("bcc", "mel", "nv")


@dataclass
class Tables:
    """What `ingest`, `measure` and `pairs` would have written, to be changed by a test."""

    labels: pd.DataFrame
    quality: pd.DataFrame
    pairs: pd.DataFrame
    manifest: dict[str, Any] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger.empty)

    def set(self, table: str, image_id: str, **values: Any) -> None:
        """Change single values of one image."""
        frame = getattr(self, table)
        row = frame.index[frame["image_id"] == image_id]
        for column, value in values.items():
            frame.loc[row, column] = value

    def pair(self, first: str, second: str, evidence: str) -> None:
        """Add a row to the pairs."""
        row = pd.DataFrame([(first, second, evidence, 0.97, 40)], columns=list(PAIR_COLUMNS))
        self.pairs = pd.concat([self.pairs, row], ignore_index=True)

    def absent(self, image_id: str) -> None:
        """Take the image's file away."""
        self.set("labels", image_id, sha256=None)
        self._without_measures(image_id, file_name=None, sha256=None, problem="file is absent")

    def split_before(self, image_id: str, sha256: str, part: str) -> None:
        """Have an earlier run split another file under this id."""
        line = pd.DataFrame([(image_id, sha256, None, None, part)], columns=list(LEDGER_COLUMNS))
        self.ledger = Ledger(pd.concat([self.ledger.rows, line], ignore_index=True))

    def undecodable(self, image_id: str, problem: str) -> None:
        """Make the image's file one that cannot be decoded."""
        self._without_measures(image_id, problem=problem)

    def _without_measures(self, image_id: str, **values: Any) -> None:
        measures = dict.fromkeys(self.quality.columns[self.quality.columns.get_loc("format") :])
        self.set("quality", image_id, **(measures | values | {"decodes": False}))


def _make_tables(lesions: tuple[int, int, int] = (4, 4, 4), seed: int = 0) -> Tables:
    """Return two images of so many lesions of each class, with nothing wrong in them."""
    rng = np.random.default_rng(seed)
    diagnosis_of = np.repeat(CLASSES, lesions)
    lesion = np.repeat(np.arange(len(diagnosis_of)), 2)
    count = len(lesion)
    ids = [f"IMG_{number:02d}" for number in range(count)]
    labels = pd.DataFrame(
        {
            "image_id": ids,
            "patient_id": None,
            "lesion_id": [f"L{number:02d}" for number in lesion],
            "diagnosis": diagnosis_of[lesion],
            "diagnosis_method": "histo",
            "age_years": rng.integers(20, 80, count).astype(float),
            "sex": rng.choice(["female", "male"], count),
            "site": rng.choice(["back", "face"], count),
            "skin_type": None,
            "source": "test",
            "sha256": [f"{number:064x}" for number in range(count)],
        },
        columns=list(LABEL_COLUMNS),
    )
    quality = pd.DataFrame(
        {
            "image_id": ids,
            "file_name": [f"{name}.jpg" for name in ids],
            "sha256": labels["sha256"],
            "num_bytes": 10_000,
            "decodes": True,
            "problem": None,
            "format": "JPEG",
            "mode": "RGB",
            "width": pd.array([600] * count, dtype="Int64"),
            "height": pd.array([450] * count, dtype="Int64"),
            "aspect": 600 / 450,
            "brightness": rng.uniform(0.4, 0.8, count),
            "contrast": rng.uniform(0.05, 0.2, count),
            "sharpness": rng.uniform(10, 100, count),
            "entropy": rng.uniform(5, 7, count),
            "colourfulness": rng.uniform(20, 50, count),
            "vignette_share": 0.0,
            "phash": "0" * 16,
        }
    )
    manifest = {
        "content_id": "c0ffee",
        "synthetic": False,
        "present_but_not_listed": [],
        "seen_twice": [],
        "label_conflicts": [],
    }
    return Tables(labels, quality, pd.DataFrame(columns=list(PAIR_COLUMNS)), manifest)


@pytest.fixture
def tables() -> Tables:
    return _make_tables()


@pytest.fixture
def make_tables() -> Callable[..., Tables]:
    """Return the function that makes good tables, for tests that need several."""
    return _make_tables


@pytest.fixture(scope="session")
def base_params(repo: Path) -> Params:
    params = load_params(repo / "params" / "quickstart.yaml")
    diagnoses = params.diagnoses.model_copy(update={"classes": CLASSES})
    # 24 images: one is 4 %, and most tests break two.
    rules = ValidationParams(max_quarantined_share=0.2)
    return params.model_copy(update={"diagnoses": diagnoses, "validation": rules})


@pytest.fixture
def no_reference(tmp_path: Path) -> Path:
    path = tmp_path / "reference_profile.json"
    path.write_text("{}")
    return path


JudgeTables = Callable[..., Judgement]


@pytest.fixture
def judge_tables(base_params: Params, no_reference: Path) -> JudgeTables:
    """Return a function that judges tables with the default rules, changed as in a recipe."""

    def judge(tables: Tables, rules: dict[str, Any] | None = None, **more: Any) -> Judgement:
        changed = {"max_quarantined_share": 0.2} | (rules or {})
        validation = ValidationParams.model_validate_json(json.dumps(changed))
        params = base_params.model_copy(update={"validation": validation} | more)
        snapshot = Snapshot(
            tables.labels, tables.manifest, tables.quality, tables.pairs, tables.ledger
        )
        return judge_snapshot(snapshot, params, no_reference)

    return judge
