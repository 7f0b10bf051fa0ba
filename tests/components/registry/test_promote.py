"""A candidate against the gates and the champion, in a workspace whose stages have run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from components.backbones.saved import read_model
from components.dataset.withdrawn import append_withdrawn
from components.errors import RegistryError
from components.evaluation.ensembles import candidate_predictions
from components.layout import Layout
from components.registry.aliases import PromotionConflictError
from components.registry.candidate import build_candidate
from components.registry.decision import Decision
from components.registry.model import Classifier
from components.registry.promote import (
    decide,
    decision_rows,
    promote_candidate,
    promote_version,
)
from components.registry.versions import Registry, version_rows
from components.splitting import ledger
from components.tables import probability_columns, read_table, write_table

from .conftest import Work, train


def _promote(work: Work) -> Decision:
    return promote_candidate(work.params, work.layout)


def _registered(origin: str) -> dict[str, Any]:
    return {"origin": origin, "sha256": "", "our_model": True}


def _tree(folder: Path) -> dict[str, str]:
    """Return path -> hash of every file, without the count of looks and the lock."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("test_uses.json", ".lock")
    }


def _verdicts(decision: Decision) -> dict[str, str]:
    return {gate.name: gate.verdict for gate in decision.gates}


def test_the_first_candidate_that_passes_becomes_champion(work: Work) -> None:
    decision = _promote(work)
    assert decision.promoted
    assert decision.changed
    assert decision.reason == (
        "promoted v0001 (the first champion); this test set has been used for 1 candidate"
    )
    assert work.registry.aliases() == {"champion": "v0001"}
    assert work.registry.check() == []
    folder = work.registry.fetch("champion")
    assert {path.name for path in folder.iterdir()} == {
        "card.md",
        "checksums.json",
        "decision.json",
        "exposure.parquet",
        "inherited.parquet",
        "metrics.json",
        "model.json",
        "model.safetensors",
        "predictions",
    }
    assert json.loads((folder / "decision.json").read_text())["passed_gates"]
    (event,) = work.registry.champion.history()
    assert event.record["promoted"]


def test_the_version_says_where_it_comes_from(work: Work) -> None:
    _promote(work)
    folder = work.registry.fetch("champion")
    model = read_model(folder)
    run = json.loads((work.layout.evaluation("mobilenet_v2", 0) / "calibration.json").read_text())
    assert model.members[0].temperature == run["temperature"]
    assert model.provenance["thresholds"] == run["thresholds"]
    manifest = json.loads(work.layout.manifest.read_text())
    assert model.provenance["data"]["content_id"] == manifest["content_id"]
    assert model.provenance["params"]["recipe"] == "tiny"
    exposure = read_table(folder / "exposure.parquet").set_index("image_id")
    splits = read_table(work.layout.splits).set_index("image_id")
    labels = read_table(work.layout.labels).set_index("image_id")
    assert (exposure["split"] == splits["split"]).all()
    assert (exposure["sha256"] == labels["sha256"]).all()
    card = (folder / "card.md").read_text()
    for said in ("no medical device", "licence CC0", "Balanced accuracy", "Subgroups", "Limits"):
        assert said in card


def test_the_same_candidate_again_is_a_no_op(work: Work) -> None:
    first = _promote(work)
    before = _tree(work.layout.root / "registry")
    again = _promote(work)
    assert again.promoted
    assert not again.changed
    assert "champion already" in again.reason
    assert again.gates == first.gates
    assert again.num_candidates == 1
    assert _tree(work.layout.root / "registry") == before


def test_a_failed_gate_changes_no_version_and_no_alias(work: Work) -> None:
    decision = _promote(work.gates(min_balanced_accuracy=1.0, max_latency_ms=7.0))
    assert not decision.promoted
    assert _verdicts(decision)["max_latency_ms"] == "failed"
    assert "max_latency_ms failed (7.5, bound 7)" in decision.reason
    assert _tree(work.layout.root / "registry") == {}
    _promote(work)
    before = _tree(work.layout.root / "registry")
    train(work, skill=0.0, seed=3)
    decision = _promote(work)
    assert not decision.promoted
    assert _verdicts(decision)["min_balanced_accuracy"] == "failed"
    assert _tree(work.layout.root / "registry") == before


def test_a_dry_run_writes_nothing(work: Work) -> None:
    decision = promote_candidate(work.params, work.layout, dry_run=True)
    assert decision.promoted
    assert not (work.layout.root / "registry").exists()


def test_an_approval_counts_for_that_candidate_against_that_champion(work: Work) -> None:
    proposal = promote_candidate(work.params, work.layout, dry_run=True)
    approved = (proposal.content_id, proposal.champion)
    assert promote_candidate(work.params, work.layout, approved=approved).changed
    train(work, skill=1.0, seed=7)
    before = _tree(work.layout.root / "registry")
    with pytest.raises(PromotionConflictError, match=r"held against v0001(?s:.*)asks anew"):
        promote_candidate(work.params, work.layout, approved=approved)
    assert _tree(work.layout.root / "registry") == before


def test_a_candidate_as_good_as_the_champion_takes_its_place(work: Work) -> None:
    _promote(work)
    train(work, skill=1.0, seed=7)
    decision = _promote(work.gates(min_images_per_class=2))
    assert decision.reason == (
        "promoted v0002 (champion before: v0001); this test set has been used for 2 candidates"
    )
    assert work.registry.aliases() == {"champion": "v0002", "previous": "v0001"}


def test_a_worse_candidate_is_refused_however_good_it_is(work: Work) -> None:
    _promote(work)
    train(work, skill=0.0, seed=7)
    decision = _promote(work.gates(min_images_per_class=2, min_balanced_accuracy=None))
    verdicts = _verdicts(decision)
    assert verdicts["max_worse_than_champion"] == "failed"
    assert work.registry.alias("champion") == "v0001"
    assert work.registry.alias("challenger") is None


def test_too_few_images_of_a_class_leave_it_undecided_which_is_not_passed(work: Work) -> None:
    _promote(work)
    train(work, skill=1.0, seed=7)
    decision = _promote(work.gates(min_images_per_class=5))
    assert not decision.promoted
    assert _verdicts(decision)["max_worse_than_champion"] == "undecided"
    assert "too few of bkl 4, mel 4, nv 4 (at least 5)" in decision.reason
    assert work.registry.aliases() == {"champion": "v0001", "challenger": "v0002"}
    assert work.registry.document("v0002", "decision.json")["passed_gates"] is False
    decided = promote_version(work.gates(min_images_per_class=2).params, work.layout, "challenger")
    assert decided.promoted
    assert work.registry.alias("champion") == "v0002"


def test_other_classes_than_the_champions_are_refused(
    work: Work, make_work: Callable[..., Work], tmp_path: Path
) -> None:
    _promote(work)
    other = make_work(tmp_path / "other", classes=("mel", "nv"))
    train(other, skill=1.0)
    decision = decide(
        build_candidate(other.params, other.layout), work.registry, other.params, other.layout
    )
    assert not decision.promoted
    assert _verdicts(decision)["comparable"] == "failed"
    assert "another registry.model_name" in decision.reason


def test_a_synthetic_model_never_replaces_a_real_one(work: Work) -> None:
    _promote(work)
    train(work, skill=1.0, seed=7)
    manifest = json.loads(work.layout.manifest.read_text()) | {"synthetic": True}
    work.layout.manifest.write_text(json.dumps(manifest))
    decision = _promote(work.gates(min_images_per_class=2))
    assert _verdicts(decision)["comparable"] == "failed"


@pytest.mark.parametrize("damage", ["gone", "incomplete", "moved"])
def test_with_a_champion_the_ledger_must_hold_every_image(work: Work, damage: str) -> None:
    _promote(work)
    train(work, skill=1.0, seed=7)
    lines = pd.read_csv(work.layout.split_ledger, dtype=str)
    if damage == "gone":
        work.layout.split_ledger.unlink()
    elif damage == "incomplete":
        lines.iloc[:-1].to_csv(work.layout.split_ledger, index=False)
    else:
        lines.loc[0, "part"] = "test"
        lines.to_csv(work.layout.split_ledger, index=False)
    decision = _promote(work.gates(min_images_per_class=2))
    assert _verdicts(decision)["split_ledger"] == "failed"
    assert work.registry.alias("champion") == "v0001"


def test_a_ledger_that_was_begun_after_the_champion_is_not_enough(work: Work) -> None:
    """A run appends its own split before it promotes: that the old one is lost must show."""
    _promote(work)
    splits = read_table(work.layout.splits)
    moved = splits["group_id"] == splits.loc[splits["split"] == "train", "group_id"].iloc[0]
    other = splits.assign(split=splits["split"].mask(moved, "validation"))
    write_table(other, work.layout.splits)
    work.layout.split_ledger.unlink()
    ledger.append(work.layout.split_ledger, other, read_table(work.layout.labels))
    train(work, skill=1.0, seed=7)
    decision = _promote(work.gates(min_images_per_class=2))
    assert _verdicts(decision)["split_ledger"] == "failed"
    assert "the ledger that the champion was trained with" in decision.reason
    assert work.registry.alias("champion") == "v0001"


def test_a_test_image_of_a_trained_lesion_is_found(work: Work) -> None:
    """However the split came about: the numbers would flatter."""
    splits = read_table(work.layout.splits)
    labels = read_table(work.layout.labels)
    test = splits.loc[splits["split"] == "test", "image_id"].iloc[0]
    trained = splits.loc[splits["split"] == "train", "image_id"].iloc[0]
    lesion = labels.loc[labels["image_id"] == trained, "lesion_id"].iloc[0]
    labels.loc[labels["image_id"] == test, "lesion_id"] = lesion
    write_table(labels, work.layout.labels)
    decision = _promote(work)
    gate = next(gate for gate in decision.gates if gate.name == "unseen_test")
    # The lesion of the moved image has a second picture in test: it is of the same group.
    assert (gate.verdict, gate.value) == ("failed", 2.0)


def test_what_the_starting_point_was_trained_on_is_not_clean(work: Work) -> None:
    """A model fine-tuned from v0001 has seen v0001's training images, though they are test now."""
    _promote(work)
    good = work.gates(max_worse_than_champion=None)
    train(good, skill=1.0, seed=7, start=_registered("registry:v0001"))
    clean = _promote(good.gates(min_images_per_class=2))
    assert _verdicts(clean)["unseen_test"] == "passed"
    assert clean.version == "v0002"
    splits = read_table(work.layout.splits)
    parts = {"test": "train", "train": "test", "validation": "validation"}
    splits["split"] = splits["split"].map(parts).astype("str")
    write_table(splits, work.layout.splits)
    for parent in ("v0001", "v0002"):  # and so has what was fine-tuned from v0002
        train(good, skill=1.0, seed=8, start=_registered(f"registry:{parent}"))
        gate = next(gate for gate in _promote(good).gates if gate.name == "unseen_test")
        assert (gate.verdict, gate.value) == ("failed", 18.0)
    train(good, skill=1.0, seed=8)
    assert _verdicts(_promote(good))["unseen_test"] == "passed"


@pytest.mark.parametrize("column", ["image_id", "sha256", "lesion_id"])
def test_a_model_that_used_a_withdrawn_image_is_refused(work: Work, column: str) -> None:
    """Wherever its list came from: a snapshot of before the withdrawal may have been taken."""
    labels = read_table(work.layout.labels)
    append_withdrawn(work.layout.withdrawn, {("image_id", "elsewhere")})
    assert _verdicts(_promote(work))["not_withdrawn"] == "passed"
    append_withdrawn(work.layout.withdrawn, {(column, labels[column].iloc[0])})
    train(work, skill=1.0, seed=7)
    decision = _promote(work)
    gate = next(gate for gate in decision.gates if gate.name == "not_withdrawn")
    assert (gate.verdict, gate.value) == ("failed", 2.0 if column == "lesion_id" else 1.0)
    assert labels["image_id"].iloc[0] in decision.reason
    assert "data/withdrawn.csv" in decision.reason
    assert work.registry.alias("champion") == "v0001"


def test_so_is_one_that_started_from_a_model_that_used_it(work: Work) -> None:
    _promote(work)
    splits, labels = read_table(work.layout.splits), read_table(work.layout.labels)
    gone = splits.loc[splits["split"] == "train", "image_id"].iloc[0]
    write_table(splits[splits["image_id"] != gone], work.layout.splits)
    write_table(labels[labels["image_id"] != gone], work.layout.labels)
    append_withdrawn(work.layout.withdrawn, {("image_id", gone)})
    train(work, skill=1.0, seed=7, start=_registered("registry:v0001"))
    assert _verdicts(_promote(work))["not_withdrawn"] == "failed"
    train(work, skill=1.0, seed=7)
    assert _verdicts(_promote(work))["not_withdrawn"] == "passed"


def test_a_start_that_nobody_knows_the_images_of_cannot_be_promoted(work: Work) -> None:
    """A training's folder is a model of ours, too, and says nothing of what it was trained on."""
    train(work, skill=1.0, seed=7, start=_registered("runs/earlier-0"))
    decision = _promote(work)
    assert _verdicts(decision)["unseen_test"] == "failed"
    assert "started from runs/earlier-0: it is a model of ours without exposure" in decision.reason
    assert work.registry.versions() == []


def test_predictions_of_another_model_are_found(work: Work) -> None:
    folder = work.layout.evaluation("mobilenet_v2", 0)
    table = read_table(folder / "test.parquet")
    table["p_mel"], table["p_nv"] = table["p_nv"].to_numpy(), table["p_mel"].to_numpy()
    write_table(table, folder / "test.parquet")
    assert _verdicts(_promote(work))["reproduces"] == "failed"


def test_two_promotions_at_once_one_wins_and_the_other_is_told(work: Work) -> None:
    """Both have decided against the same champion; the second one comes too late."""
    _promote(work)
    train(work, skill=1.0, seed=7)
    late = work.gates(min_images_per_class=2)
    registry = work.registry
    candidate = build_candidate(late.params, late.layout)
    decision = decide(candidate, registry, late.params, late.layout)
    assert decision.promoted
    name = registry.publish(candidate.files(), candidate.content_id)
    winner = registry.publish({"model.json": b"{}"}, "winner")
    registry.promote(winner, "v0001", {})
    with pytest.raises(PromotionConflictError, match=rf"{name} was not made champion.*{winner}"):
        registry.promote(name, decision.champion, decision.as_dict())


def test_a_version_that_lost_its_race_does_not_say_that_it_was_promoted(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    _promote(work)
    train(work, skill=1.0, seed=7)
    publish = Registry.publish

    def publish_and_be_overtaken(registry: Registry, files: Any, content_id: str) -> str:
        name = publish(registry, files, content_id)
        winner = publish(registry, {"model.json": b"{}"}, "winner")
        registry.promote(winner, "v0001", {})
        return name

    monkeypatch.setattr(Registry, "publish", publish_and_be_overtaken)
    with pytest.raises(PromotionConflictError, match=r"v0002 was not made champion.*v0003"):
        _promote(work.gates(min_images_per_class=2))
    said = work.registry.document("v0002", "decision.json")
    assert said["passed_gates"] is True
    assert said["held_against"] == "v0001"
    assert not {"promoted", "changed", "reason", "version"} & set(said)
    assert "promoted" not in (work.registry.fetch("v0002") / "card.md").read_text()
    assert [event.new for event in work.registry.champion.history()] == ["v0001", "v0003"]


def test_a_damaged_champion_leaves_it_undecided(work: Work) -> None:
    _promote(work)
    weights = work.layout.root / "registry" / "tiny" / "versions" / "v0001" / "model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(b"no weights")
    train(work, skill=1.0, seed=7)
    decision = _promote(work.gates(min_images_per_class=2))
    assert not decision.promoted
    assert _verdicts(decision)["max_worse_than_champion"] == "undecided"
    assert "model.safetensors" in decision.reason


def test_what_was_rolled_back_comes_back_only_by_name(work: Work) -> None:
    _promote(work)
    train(work, skill=1.0, seed=7)
    good = work.gates(min_images_per_class=2)
    _promote(good)
    work.registry.rollback()
    decision = _promote(good)
    assert not decision.promoted
    assert "lesionflow promote v0002" in decision.reason
    assert promote_version(good.params, good.layout, "v0002").promoted
    assert work.registry.alias("champion") == "v0002"


def test_by_hand_the_gates_are_checked_again(work: Work) -> None:
    _promote(work)
    train(work, skill=1.0, seed=7)
    good = work.gates(min_images_per_class=2)
    _promote(good)
    work.registry.rollback()
    before = _tree(work.layout.root / "registry")
    strict = good.gates(max_latency_ms=1.0)
    decision = promote_version(strict.params, strict.layout, "v0002")
    assert not decision.promoted
    assert _verdicts(decision)["max_latency_ms"] == "failed"
    assert _tree(work.layout.root / "registry") == before
    with pytest.raises(RegistryError, match="no version 'v0009'"):
        promote_version(good.params, good.layout, "v0009")


def test_every_look_at_the_test_set_counts_but_the_same_candidate_once(work: Work) -> None:
    strict = work.gates(max_latency_ms=1.0)
    assert [_promote(strict).num_candidates for _ in range(2)] == [1, 1]
    train(work, skill=1.0, seed=7)
    assert _promote(work).num_candidates == 2
    assert (
        "used to decide on 2 candidates"
        in (work.registry.fetch("champion") / "card.md").read_text()
    )


def test_an_ensemble_is_promoted_like_any_candidate(work: Work) -> None:
    ranking = work.params.ranking.model_copy(update={"candidate": "seed_ensemble"})
    two = replace(work, params=work.params.model_copy(update={"ranking": ranking}))
    two = train(two, skill=1.0, seeds=(0, 1))
    decision = _promote(two)
    assert decision.promoted
    assert _verdicts(decision)["reproduces"] == "passed"
    folder = work.registry.fetch("champion")
    model = read_model(folder)
    assert [member.file for member in model.members] == [
        "model-mobilenet_v2-0.safetensors",
        "model-mobilenet_v2-1.safetensors",
    ]
    latency = next(gate for gate in decision.gates if gate.name == "max_latency_ms")
    assert latency.value == 15.0
    metrics = json.loads((folder / "metrics.json").read_text())
    of_a_run = work.layout.evaluation("mobilenet_v2", 0) / "metrics.json"
    assert set(metrics) == set(json.loads(of_a_run.read_text()))
    assert metrics["operating_points"] and metrics["uncalibrated"]


def test_the_report_shows_the_gates_as_the_promotion_decides_them(work: Work) -> None:
    from components.evaluation.report_gates import gates_section

    strict = work.gates(max_latency_ms=1.0, max_ece=0.5, min_melanoma_sensitivity=0.1)
    board = json.loads(work.layout.leaderboard.read_text())
    candidate = build_candidate(strict.params, strict.layout)
    section = gates_section(strict.params, board, candidate.test, candidate.metrics)
    shown = {row["name"]: (row["verdict"], row["detail"]) for row in section["rows"]}
    decided = {gate.name: (gate.verdict, gate.detail) for gate in _promote(strict).gates}
    alone = [name for name in shown if name != "max_worse_than_champion"]
    assert {name: shown[name] for name in alone} == {name: decided[name] for name in alone}
    assert section["not_passed"] == ["max_latency_ms"]


def test_the_list_of_versions_says_how_each_stood_at_the_gates(work: Work) -> None:
    _promote(work)
    champion = work.registry.document("v0001", "decision.json")
    passed = sum(gate["verdict"] == "passed" for gate in champion["gates"])
    assert [row["gates"] for row in version_rows(work.registry)] == [f"{passed} passed"]
    train(work, skill=1.0, seed=7)  # too few images per class: it cannot be told from the champion
    assert not _promote(work.gates(min_images_per_class=99)).promoted
    challenger = version_rows(work.registry)[0]
    assert challenger["alias"] == "challenger"
    assert challenger["gates"].endswith("passed, max_worse_than_champion undecided")


def test_what_rank_chooses_of_runs_with_and_without_tta_predicts_its_rows(work: Work) -> None:
    backbones = {"mobilenet_v2": {"tta": True}, "mobilenet_v1": {}}
    ranking = work.params.ranking.model_copy(update={"candidate": "greedy_ensemble"})
    params = work.params.model_copy(update={"backbones": backbones, "ranking": ranking})
    mixed = train(replace(work, params=params), skill=0.9, seed=2)
    chosen = json.loads(work.layout.leaderboard.read_text())["candidate"]
    assert {member["backbone"] for member in chosen["members"]} == set(backbones)
    decision = _promote(mixed)
    assert decision.promoted
    assert _verdicts(decision)["reproduces"] == "passed"
    members = read_model(work.registry.fetch("champion")).members
    assert {member.backbone: member.tta for member in members} == {
        "mobilenet_v1": False,
        "mobilenet_v2": True,
    }
    table = candidate_predictions(work.layout, chosen, "test")
    paths = [work.pictures / f"{name}.png" for name in table["image_id"]]
    found = Classifier.from_registry(work.registry).predict(paths)
    columns = probability_columns(params.diagnoses.classes)
    assert np.abs(found[columns].to_numpy() - table[columns].to_numpy()).max() < 1e-5


def test_the_champion_predicts_new_test_images_from_their_bytes(work: Work) -> None:
    """What a champion has no prediction for it predicts itself; what is not here is left out."""
    from components.registry.candidate import registered
    from components.registry.versus import probabilities_for

    _promote(work)
    champion = registered(work.registry, "v0001")
    images = champion.exposure[champion.exposure["split"] == "test"]
    columns = [f"p_{name}" for name in champion.model.classes]
    stored = champion.test.set_index("image_id").loc[images["image_id"], columns].to_numpy()
    without = replace(champion, test=champion.test.iloc[::2])
    found = probabilities_for(without, images, work.layout.images)
    assert np.abs(found - stored).max() < 1e-5
    assert not np.array_equal(found, np.full_like(found, 1 / 3))
    gone = probabilities_for(without, images, work.layout.root / "nowhere")
    assert np.isnan(gone).all(axis=1).sum() == len(images) - len(without.test)


def test_the_rows_for_the_terminal_are_plain(work: Work) -> None:
    rows = decision_rows(_promote(work))
    assert list(rows[0]) == ["gate", "value", "bound", "verdict", "what it is"]
    json.dumps(rows)


def test_the_whole_promotion_works_on_s3(work: Work, s3_bucket: str, tmp_path: Path) -> None:
    registry = work.params.registry.model_copy(update={"uri": f"s3://{s3_bucket}/models"})
    params = work.params.model_copy(update={"registry": registry})
    there = replace(work, params=params)
    assert _promote(there).promoted
    train(there, skill=1.0, seed=7)
    assert _promote(there.gates(min_images_per_class=2)).promoted
    assert there.registry.check() == []
    assert there.registry.pull("previous", tmp_path / "out") == "v0001"
    assert not (Layout(work.layout.root).root / "registry").exists()
