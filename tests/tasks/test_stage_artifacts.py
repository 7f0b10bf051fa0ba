"""What each stage has made is shown in the UI, with the numbers of its files, and with history."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from prefect import flow, get_client, task
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort

from components.atomic import write_json
from components.clean_clone import CleanClone, note_clone
from components.layout import Layout
from components.tables import PAIR_COLUMNS, write_table
from tasks.stage_artifacts import publish, publish_failure

RUN = "resnet18-0"

pytestmark = pytest.mark.usefixtures("prefect_server")


def _versions(key: str) -> list[Any]:
    """Return what the server has under a key, the latest first."""
    with get_client(sync_client=True) as client:
        return client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])),
            sort=ArtifactSort.CREATED_DESC,
        )


def _published(stage: str, workspace: Path, key: str) -> tuple[list[dict[str, Any]], str]:
    """Publish a stage; return the table and the description that the server then has."""
    before = len(_versions(key))
    publish(stage, Layout(workspace))
    latest, *earlier = _versions(key)
    assert len(earlier) == before
    return json.loads(latest.data), latest.description


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_ingest_shows_the_images_of_each_diagnosis(finished: Path) -> None:
    manifest = _json(finished / "data" / "raw" / "manifest.json")
    table, said = _published("ingest", finished, "snapshot")
    assert {row["diagnosis"]: row["images"] for row in table} == manifest["counts"]
    assert f"{manifest['num_images']} images" in said
    assert "SYNTHETIC" in said


def test_measure_shows_ranges_and_what_cannot_be_decoded(finished: Path) -> None:
    quality = pd.read_parquet(finished / "data" / "quality.parquet")
    decoded, broken = quality[quality["decodes"]], quality[~quality["decodes"]]
    table, said = _published("measure", finished, "measure")
    rows = {row["measure"]: row for row in table}
    assert rows["width"]["median"] == decoded["width"].median() == 160
    assert rows["brightness"]["median"] == pytest.approx(decoded["brightness"].median(), rel=5e-3)
    assert rows["num_bytes"]["greatest"] == decoded["num_bytes"].max()
    assert said.startswith(f"{len(quality)} images measured; ")
    assert len(broken) > 0
    assert f"{len(broken)} cannot be decoded: " in said
    assert f"1 {broken['problem'].value_counts().index[-1]}" in said


def test_pairs_shows_near_duplicates_by_evidence(finished: Path) -> None:
    pairs = pd.read_parquet(finished / "data" / "pairs.parquet")
    table, said = _published("pairs", finished, "pairs")
    found = {row["evidence"]: row["pairs"] for row in table}
    assert found.pop("all") == len(pairs) > 0
    assert {kind: num for kind, num in found.items() if num} == dict(
        pairs["evidence"].value_counts()
    )
    whole = table[-1]
    assert whole["lesions_tied"] >= 2 * whole["into_groups"] > 0
    assert f"{len(pairs)} pairs tie {whole['lesions_tied']} lesions" in said
    assert "data/pairs.parquet" in said


def test_pairs_that_were_not_looked_for_are_not_taken_for_none(
    finished_copy: Path, edit_params: Callable[..., None]
) -> None:
    edit_params(finished_copy, pairs__enabled=False)
    write_table(pd.DataFrame(columns=list(PAIR_COLUMNS)), finished_copy / "data" / "pairs.parquet")
    table, said = _published("pairs", finished_copy, "pairs")
    assert said == "Not looked for: pairs.enabled is false."
    assert {row["pairs"] for row in table} == {0}


def test_validate_and_split_show_their_summaries(finished: Path) -> None:
    summary = _json(finished / "reports" / "validation" / "summary.json")
    table, said = _published("validate", finished, "validation")
    assert {row["check"] for row in table} == {
        entry["expectation"] for entry in summary["expectations"]
    }
    assert f"{summary['num_quarantined']} of {summary['num_images']} images quarantined" in said
    table, _ = _published("split", finished, "split")
    splits = pd.read_parquet(finished / "data" / "splits.parquet")
    assert table[-1]["test_images"] == (splits["split"] == "test").sum()


def test_pack_shows_how_many_images_of_which_size_take_how_much_room(finished: Path) -> None:
    images = finished / "data" / "packed" / "images.npy"
    packed = np.load(images, mmap_mode="r")
    ((row,), said) = _published("pack", finished, "pack")
    assert row["images"] == len(packed)
    assert row["image size"] == "32 × 32"
    written = float(row["on disk"].removesuffix(" MB"))
    assert written == pytest.approx(images.stat().st_size / 1e6, abs=0.2)
    assert _json(finished / "data" / "packed" / "spec.json")["content_id"][:12] in said


def test_train_shows_each_epoch_and_marks_the_one_that_was_kept(finished_copy: Path) -> None:
    path = finished_copy / "runs" / RUN / "history.csv"
    history = pd.read_csv(path)
    table, _ = _published(f"train@{RUN}", finished_copy, f"train-{RUN}")
    assert [row["epoch"] for row in table] == list(history["epoch"])
    assert [row["loss"] for row in table] == [f"{loss:.4f}" for loss in history["train_loss"]]
    history = pd.concat([history] * 2, ignore_index=True).assign(epoch=range(1, 5))
    history["validation_balanced_accuracy"] = [0.2, 0.6, 0.6, 0.4]
    write_table(history, path)
    table, said = _published(f"train@{RUN}", finished_copy, f"train-{RUN}")
    assert [row["balanced accuracy"] for row in table] == ["0.2000", "0.6000", "0.6000", "0.4000"]
    assert [row["kept"] for row in table] == ["", "*", "", ""]
    assert "best epoch 2 of 4, balanced accuracy 0.600 on validation" in said


def test_each_training_has_a_history_of_its_own(finished: Path) -> None:
    others = {path.name for path in (finished / "runs").iterdir()} - {RUN}
    other = min(others)
    before = len(_versions(f"train-{RUN}"))
    _published(f"train@{other}", finished, f"train-{other}".replace("_", "-"))
    assert len(_versions(f"train-{RUN}")) == before


def test_a_training_that_dvc_only_restored_says_nothing_of_its_time(finished_copy: Path) -> None:
    """Its clock is that of whichever training ran here last."""

    @task
    def restored(age: float) -> None:
        clock = Layout(finished_copy).training_clock(RUN)
        os.utime(clock, (time.time() - age,) * 2)
        publish(f"train@{RUN}", Layout(finished_copy))

    @flow
    def restore(age: float) -> str:
        restored(age)
        return str(_versions(f"train-{RUN}")[0].description)

    clock = _json(Layout(finished_copy).training_clock(RUN))
    seconds = f"{clock['ended'] - clock['entered']:.0f} s on its workers"
    assert seconds in restore(age=-1.0)
    assert "on its workers" not in restore(age=60.0)


def test_evaluate_shows_both_parts_with_their_intervals(finished: Path) -> None:
    folder = finished / "evaluations" / RUN
    test, validation = _json(folder / "metrics.json"), _json(folder / "validation_metrics.json")
    table, said = _published(f"evaluate@{RUN}", finished, f"evaluate-{RUN}")
    rows = {row["metric"]: row for row in table}
    best = rows["Balanced accuracy"]
    assert best["validation"] == f"{validation['balanced_accuracy']:.3f}"
    assert best["test"] == f"{test['balanced_accuracy']:.3f}"
    low, high = test["intervals"]["balanced_accuracy"]
    assert best["test, 95 %"] == f"{low:.3f} – {high:.3f}"
    assert rows["Macro AUC"]["test"] == f"{test['macro_auc']:.3f}"
    melanoma = test["per_class"]["mel"]["sensitivity"]
    assert rows["Melanoma sensitivity"]["test"] == f"{melanoma:.3f}"
    assert f"{test['num_images']} test images" in said


def test_numbers_that_a_test_set_cannot_give_are_shown_as_missing(finished_copy: Path) -> None:
    """No malignant class, no interval: `evaluate` allows both."""
    path = finished_copy / "evaluations" / RUN / "metrics.json"
    document = _json(path) | {"malignant": None, "intervals": {}, "macro_auc": None}
    document["per_class"] = {"nv": document["per_class"]["nv"]}
    write_json(path, document)
    table, _ = _published(f"evaluate@{RUN}", finished_copy, f"evaluate-{RUN}")
    rows = {row["metric"]: row for row in table}
    assert rows["Melanoma sensitivity"]["test"] == rows["Macro AUC"]["test"] == "–"
    assert rows["Accuracy"]["test, 95 %"] == "–"


def test_profile_shows_size_and_latency_and_where_it_was_measured(finished_copy: Path) -> None:
    path = finished_copy / "profiles" / "resnet18.json"
    profile = _json(path)
    table, said = _published("profile@resnet18", finished_copy, "profile-resnet18")
    rows = {row["of one picture"]: row["value"] for row in table}
    assert rows["parameters"] == f"{profile['num_parameters'] / 1e6:,.2f} M"
    assert rows["multiply-adds"] == f"{profile['macs'] / 1e6:,.1f} M"
    latency = profile["latency_ms"]["cpu_batch1"]
    assert rows["CPU latency, median"] == f"{latency['median']:.2f} ms"
    assert profile["machine"]["cpu"] in said
    assert "GPU" not in said + "".join(rows)
    profile["latency_ms"]["cuda_batch1"] = {"median": 1.5, "p95": 2.0}
    write_json(path, profile | {"machine": profile["machine"] | {"gpu": "a GPU"}})
    table, said = _published("profile@resnet18", finished_copy, "profile-resnet18")
    assert {"of one picture": "GPU latency, median", "value": "1.50 ms"} in table
    assert said.endswith("; a GPU.")


def test_the_leaderboard_of_each_run_stays_beside_the_later_ones(finished_copy: Path) -> None:
    before = len(_versions("leaderboard"))
    layout = Layout(finished_copy)
    publish("rank", layout)
    board = _json(layout.leaderboard)
    board["rows"][0]["validation"]["balanced_accuracy"]["mean"] = 0.987
    write_json(layout.leaderboard, board)
    publish("rank", layout)
    later, earlier, *others = _versions("leaderboard")
    assert len(others) == before
    assert json.loads(later.data)[0]["balanced accuracy"] == "0.987"
    assert json.loads(earlier.data)[0]["balanced accuracy"] != "0.987"


def test_ensembles_are_shown_where_there_are_any(finished_copy: Path) -> None:
    layout = Layout(finished_copy)
    before = len(_versions("ensembles"))
    publish("rank", layout)
    assert len(_versions("ensembles")) == before, "the quickstart has one seed and no ensemble"
    board = _json(layout.leaderboard)
    members = [{"backbone": row["backbone"], "seed": 0, "weight": 1} for row in board["rows"]]
    greedy = board["candidate"] | {"kind": "greedy_ensemble", "members": members}
    write_json(layout.leaderboard, board | {"ensembles": [greedy]})
    publish("rank", layout)
    best, ensemble = json.loads(_versions("ensembles")[0].data)
    assert best["candidate"] == "best seed of the winner *"
    assert ensemble["members"] == " + ".join(f"{one['backbone']}-0" for one in members)


def test_report_links_the_page_and_shows_the_confusion_matrices(finished: Path) -> None:
    publish("report", Layout(finished))
    shown = _versions("report")[0].data
    assert f"[report.html]({(finished / 'reports' / 'report.html').as_uri()})" in shown
    titles = [line for line in shown.splitlines() if line.startswith("## ")]
    assert titles[0] == "## The candidate"
    assert len(titles) == shown.count("data:image/png;base64,") == 3


def test_nothing_links_into_a_clean_clone_that_goes_with_its_run(finished_copy: Path) -> None:
    layout = Layout(finished_copy)
    note_clone(layout, CleanClone("ssh://git.example/lesions.git", "record", None))
    publish("report", layout)
    publish("validate", layout)
    for key, place in (("report", "reports/report.html"), ("validation", "reports/validation")):
        latest = _versions(key)[0]
        shown = str(latest.data) + latest.description
        assert place in shown
        assert "artifact `links`" in shown
        assert "file://" not in shown
        assert str(finished_copy) not in shown
    layout.validation_report.rename(layout.failed_validation_report)
    publish_failure("validate", layout)
    said = _versions("validation")[0].description
    assert said.endswith("Data Docs: not kept, they go with the clean clone of this run")


@pytest.mark.parametrize("stage", [f"train@{RUN}", f"evaluate@{RUN}", "rank", "ingest"])
def test_what_cannot_be_read_is_a_warning_and_no_failure_of_a_stage_that_is_done(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, stage: str
) -> None:
    @flow(name="publish")
    def show() -> None:
        publish(stage, Layout(tmp_path))

    show()
    assert f"{stage} is not shown in the UI: " in caplog.text
