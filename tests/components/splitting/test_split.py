"""The stage and its summary, on real metadata."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from components.errors import SplitError
from components.layout import Layout
from components.params import load_params
from components.splitting.assign import assign
from components.splitting.audit import audit
from components.splitting.config import SplitParams
from components.splitting.ledger import append, read_ledger
from components.splitting.split import run
from components.splitting.summary import split_summary
from components.tables import LABEL_COLUMNS, PAIR_COLUMNS, QUARANTINE_COLUMNS, write_table


@pytest.fixture
def layout(tmp_path: Path, real_data: Path, repo: Path) -> Layout:
    """A workspace with the labels of the real mini set, one pair and one quarantined image."""
    layout = Layout(tmp_path)
    shutil.copy(repo / "params" / "quickstart.yaml", layout.params)
    metadata = pd.read_csv(real_data / "ham10000-mini" / "HAM10000_metadata.csv")
    labels = metadata.rename(columns={"dx": "diagnosis"}).reindex(columns=list(LABEL_COLUMNS))
    labels["sha256"] = labels["image_id"]
    labels = labels.sort_values("image_id", ignore_index=True)
    write_table(labels, layout.labels)
    first, second = labels["image_id"][0], labels["image_id"][1]
    write_table(
        pd.DataFrame([(first, second, "same spot", 0.9, 50)], columns=list(PAIR_COLUMNS)),
        layout.pairs,
    )
    measured = labels[["image_id"]].assign(decodes=True, contrast=20.0)
    write_table(measured, layout.quality)
    write_table(
        pd.DataFrame([(first, "too dark")], columns=list(QUARANTINE_COLUMNS)), layout.quarantine
    )
    return layout


def test_the_stage_writes_the_same_bytes_before_and_after_the_ledger_grew(layout: Layout) -> None:
    params = load_params(layout.params)
    run(params, layout)
    written = layout.splits.read_bytes()
    splits, labels = pd.read_parquet(layout.splits), pd.read_parquet(layout.labels)
    assert not audit(splits, labels)["leaks"]
    assert append(layout.split_ledger, splits, labels) == len(labels) - 1
    run(params, layout)
    assert layout.splits.read_bytes() == written


def test_pictures_that_were_saved_anew_are_counted_with_what_to_do(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    """Class folders: no lesion ids, so that other bytes under an old name are a new image."""
    labels = pd.read_parquet(layout.labels).assign(lesion_id=None, patient_id=None)
    write_table(labels.astype({"lesion_id": "str", "patient_id": "str"}), layout.labels)
    params = load_params(layout.params)
    run(params, layout)
    append(layout.split_ledger, pd.read_parquet(layout.splits), labels)
    run(params, layout)
    assert "warning" not in capsys.readouterr().out
    before = pd.read_parquet(layout.splits).set_index("image_id")["split"]
    labels["sha256"] = "quality 80: " + labels["sha256"]
    write_table(labels.astype({"lesion_id": "str", "patient_id": "str"}), layout.labels)
    params = params.model_copy(update={"seed": 1})
    run(params, layout)
    after = pd.read_parquet(layout.splits).set_index("image_id")["split"]
    placed = before.notna() & after.notna()
    num_moved = int((before[placed] != after[placed]).sum())
    assert num_moved > 10
    said = capsys.readouterr().out
    assert f"{len(labels) - 1} images have other bytes than under the same id before" in said
    assert f"{num_moved} of them are in another part now" in said
    assert "To do: if it is the same picture saved anew" in said
    assert "data/split_ledger.csv" in said


def test_the_summary_counts_groups_and_images(layout: Layout) -> None:
    run(load_params(layout.params), layout)
    labels = pd.read_parquet(layout.labels)
    rows = split_summary(pd.read_parquet(layout.splits), labels)
    assert [row["diagnosis"] for row in rows] == [*sorted(labels["diagnosis"].unique()), "all"]
    total = rows[-1]
    assert total["left_out"] == 1
    assert total["images"] == len(labels) - 1
    assert total["images"] == sum(
        total[f"{part}_images"] for part in ("train", "validation", "test")
    )
    assert json.loads(json.dumps(rows)) == rows


def test_a_real_increment_moves_no_image_and_keeps_the_shares(
    tmp_path: Path, real_data: Path
) -> None:
    def labels_of(name: str) -> pd.DataFrame:
        metadata = pd.read_csv(real_data / name / "HAM10000_metadata.csv")
        labels = metadata.rename(columns={"dx": "diagnosis"}).reindex(columns=list(LABEL_COLUMNS))
        return labels.assign(sha256=labels["image_id"], source=name)

    pairs = pd.DataFrame(columns=list(PAIR_COLUMNS))
    quarantine = pd.DataFrame(columns=list(QUARANTINE_COLUMNS))
    params, ledger = SplitParams(), tmp_path / "ledger.csv"
    old = labels_of("ham10000")
    first = assign(old, pairs, quarantine, read_ledger(ledger), params, seed=0)
    assert append(ledger, first, old) == 10_015
    grown = pd.concat([old, labels_of("ham10000-increment")], ignore_index=True)
    second = assign(grown, pairs, quarantine, read_ledger(ledger), params, seed=1)
    both = first.merge(second, on=["image_id", "group_id"])
    assert len(both) == 10_015
    assert (both["split_x"] == both["split_y"]).all()
    assert not audit(second, grown)["leaks"]
    for row in split_summary(second, grown)[:-1]:
        for part, share in params.shares().items():
            assert abs(row[f"{part}_groups"] - share * row["groups"]) <= 1


def test_broken_files_of_equal_bytes_tie_no_lesions_together(layout: Layout) -> None:
    """As when a download was refused six times, and the refusal was saved as a picture."""
    params = load_params(layout.params)
    run(params, layout)
    before = pd.read_parquet(layout.splits)
    labels = pd.read_parquet(layout.labels)
    append(layout.split_ledger, before, labels)
    lesions = labels.drop_duplicates("lesion_id").head(30)
    broken = lesions.assign(image_id="broken_" + lesions["image_id"], sha256="404 Not Found")
    write_table(pd.concat([labels, broken], ignore_index=True), layout.labels)
    quality = pd.read_parquet(layout.quality)
    refused = broken[["image_id"]].assign(decodes=False, contrast=None)
    write_table(pd.concat([quality, refused], ignore_index=True), layout.quality)
    reasons = broken[["image_id"]].assign(reason="does not decode")
    quarantine = pd.read_parquet(layout.quarantine)
    write_table(pd.concat([quarantine, reasons], ignore_index=True), layout.quarantine)
    run(params, layout)
    after = pd.read_parquet(layout.splits)
    kept = after[~after["image_id"].isin(broken["image_id"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, before)


def test_ties_that_would_leave_a_remnant_to_train_on_are_refused(layout: Layout) -> None:
    params = load_params(layout.params)
    run(params, layout)
    labels = pd.read_parquet(layout.labels)
    append(layout.split_ledger, pd.read_parquet(layout.splits), labels)
    written = layout.splits.read_bytes()
    images = labels["image_id"].tolist()
    chain = [(one, other, "same spot", 0.9, 50) for one, other in pairwise(images[:200])]
    write_table(pd.DataFrame(chain, columns=list(PAIR_COLUMNS)), layout.pairs)
    with pytest.raises(SplitError, match=r"images would be left out \(at most 10%\), such as"):
        run(params, layout)
    assert layout.splits.read_bytes() == written
    run(params.model_copy(update={"split": SplitParams(max_left_out_share=1)}), layout)
    assert pd.read_parquet(layout.splits)["split"].isna().sum() > 100
