"""The report of a small workspace: real stages around it, made-up predictions in it."""

from __future__ import annotations

import json
import re
import shutil
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components.atomic import write_json, write_text
from components.backbones.preprocess import Preprocessing
from components.backbones.saved import Member, ModelFile, save_model
from components.backbones.zoo import create_backbone
from components.dataset import ingest, measure, pack
from components.dataset.fingerprint import refresh_sources
from components.errors import TableError
from components.evaluation import rank, report
from components.evaluation.evaluate import part_table, write_evaluation
from components.evaluation.report_data import joined_rows
from components.evaluation.report_tables import p_value, share
from components.evaluation.uses import id_of_test_set, write_test_uses
from components.layout import Layout
from components.params import Params, parse_params, read_yaml
from components.splitting import split
from components.splitting.summary import image_level_leak
from components.tables import (
    PAIR_COLUMNS,
    QUARANTINE_COLUMNS,
    probability_columns,
    read_table,
    write_table,
)

SKILL = {"mobilenet_v3_large": 1.6, "resnet18": 0.8}


def small_params(repo: Path, source: dict[str, object], seeds: list[int]) -> Params:
    """Return the quickstart recipe at 32 pixels with other sources and seeds."""
    document = read_yaml(repo / "params" / "quickstart.yaml")
    document |= {"sources": [source], "seeds": seeds, "backbones": {name: {} for name in SKILL}}
    document["pack"]["image_size"] = 32
    document["evaluation"]["bootstrap_resamples"] = 100
    return parse_params(document, where="the test's params")


def build_workspace(root: Path, params: Params) -> Layout:
    """Run everything but the trainings, the search for pairs and the checks."""
    layout = Layout(root)
    write_text(layout.withdrawn, "column,value\n")
    write_text(layout.test_uses, "{}\n")
    refresh_sources(params, layout)
    ingest.run(params, layout)
    measure.run(params, layout)
    labels = read_table(layout.labels)
    quality = read_table(layout.quality)
    broken = quality.loc[~quality["decodes"], "image_id"]
    write_table(_pairs(labels[~labels["image_id"].isin(broken)]), layout.pairs)
    reasons = [(name, "the file cannot be decoded") for name in broken]
    write_table(pd.DataFrame(reasons, columns=list(QUARANTINE_COLUMNS)), layout.quarantine)
    write_json(layout.validation_report / "summary.json", _summary(list(broken)))
    split.run(params, layout)
    pack.run(params, layout)
    for backbone in params.backbones:
        for seed in params.seeds:
            _train(params, layout, backbone, seed)
        _profile(params, layout, backbone)
    rank.run(params, layout)
    return layout


def _pairs(labels: pd.DataFrame) -> pd.DataFrame:
    """Two pictures of one lesion, and eight times two of different ones."""
    same = labels[labels["lesion_id"] == labels["lesion_id"].value_counts().index[0]]
    apart = labels.drop_duplicates("lesion_id")
    apart = apart[apart["diagnosis"] == apart["diagnosis"].value_counts().index[0]]
    frames = [(same, 61), *((apart.iloc[2 * number :], 25 - number) for number in range(8))]
    rows = [
        (*sorted(frame["image_id"].iloc[:2]), "same spot", 0.93, inliers)
        for frame, inliers in frames
    ]
    return pd.DataFrame(rows, columns=list(PAIR_COLUMNS))


def _summary(broken: list[str]) -> dict[str, object]:
    common = {"suite": "images", "expectation": "decodes", "title": "every image decodes"}
    return {
        "success": True,
        "num_images": 100,
        "num_quarantined": len(broken),
        "expectations": [
            common
            | {"severity": "quarantine", "success": not broken, "observed": len(broken)}
            | {"num_offenders": len(broken), "offenders": broken},
            common | {"severity": "error", "success": True, "observed": 0, "offenders": []},
        ],
    }


def _train(params: Params, layout: Layout, backbone: str, seed: int) -> None:
    """Write a run with random weights and predictions of a given skill."""
    import torch

    torch.manual_seed(seed)
    folder, classes = layout.run(backbone, seed), params.diagnoses.classes
    preprocessing = Preprocessing.of(backbone, pack_size=32, fit="crop", image_size=32)
    save_model(
        folder,
        [create_backbone(backbone, len(classes)).state_dict()],
        ModelFile(
            classes=classes,
            malignant=params.diagnoses.malignant,
            members=(
                Member(file="model.safetensors", backbone=backbone, preprocessing=preprocessing),
            ),
            provenance={
                "weights": {"origin": "none (random start)", "sha256": ""},
                "training": {"weights": "none"},
                "seed": seed,
            },
        ),
    )
    epochs = np.arange(1, 6)
    history = pd.DataFrame(
        {
            "epoch": epochs,
            "train_loss": 2 * 0.7**epochs,
            "validation_loss": 2 * 0.75**epochs + 0.1,
            "validation_balanced_accuracy": 0.8 - 0.6 * 0.7**epochs,
            "learning_rate": 1e-3,
        }
    )
    write_table(history, folder / "history.csv")
    tables = [_predict(part_table(layout, part), classes, backbone, seed) for part in rank.PARTS]
    write_table(tables[0], folder / "validation.parquet")
    write_evaluation(params, layout, layout.evaluation(backbone, seed), *tables)


def _predict(
    images: pd.DataFrame, classes: tuple[str, ...], backbone: str, seed: int
) -> pd.DataFrame:
    generator = np.random.default_rng([seed, len(backbone)])
    truth = pd.Index(classes).get_indexer(pd.Index(images["diagnosis"]))
    logits = generator.normal(size=(len(images), len(classes)))
    logits[np.arange(len(images)), truth] += SKILL[backbone] * (1 + generator.random(len(images)))
    powers = np.exp(1.8 * logits)
    probabilities = pd.DataFrame(
        powers / powers.sum(axis=1, keepdims=True), columns=probability_columns(classes)
    )
    return pd.concat([images, probabilities], axis=1)


def _profile(params: Params, layout: Layout, backbone: str) -> None:
    size = 1 + list(params.backbones).index(backbone)
    write_json(
        layout.profile(backbone),
        {
            "backbone": backbone,
            "num_parameters": 4_000_000 * size,
            "macs": 30_000_000 * size**2,
            "size_bytes": 16_000_000 * size,
            "latency_ms": {"cpu_batch1": {"median": 3.2 * size, "p95": 4.0 * size}},
            "machine": {},
        },
    )


@pytest.fixture(scope="module")
def params(repo: Path) -> Params:
    source = {"kind": "synthetic", "uri": "synthetic:"}
    return small_params(repo, source | {"options": {"lesions": 84, "image_size": 48}}, [0])


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory, params: Params) -> Layout:
    """A workspace whose report is written."""
    layout = build_workspace(tmp_path_factory.mktemp("report"), params)
    report.run(params, layout)
    return layout


@pytest.fixture
def page(layout: Layout) -> str:
    return layout.report.read_text(encoding="utf-8")


def test_the_page_is_one_file_that_needs_no_other(page: str) -> None:
    addresses = re.findall(r'(?:src|href)="([^"]{1,40})', page)
    assert addresses
    assert all(one.startswith(("data:image/", "#")) for one in addresses)
    assert not re.search(r"https?://|url\(|<script|@import", page)


def test_synthetic_pictures_and_research_use_are_said_first(page: str) -> None:
    body = page[page.index("<body>") :]
    assert body.index("SYNTHETIC PICTURES") < body.index("no medical device") < body.index("<h1>")


def test_the_same_input_gives_the_same_bytes(layout: Layout, params: Params, page: str) -> None:
    plots = {path.name: path.read_bytes() for path in layout.plots.rglob("*") if path.is_file()}
    leaking_split = layout.leaking_split.read_bytes()
    shutil.rmtree(layout.plots)
    layout.report.unlink()
    report.run(params, layout)
    again = {path.name: path.read_bytes() for path in layout.plots.rglob("*") if path.is_file()}
    assert layout.report.read_text(encoding="utf-8") == page
    assert again == plots
    assert layout.leaking_split.read_bytes() == leaking_split


def test_the_candidate_is_described_by_its_own_numbers(layout: Layout, page: str) -> None:
    board = json.loads(layout.leaderboard.read_text())
    member = board["candidate"]["members"][0]
    metrics = layout.evaluation(member["backbone"], member["seed"]) / "metrics.json"
    own = json.loads(metrics.read_text())
    verdict = page[page.index('id="verdict"') : page.index('id="leaderboard"')]
    assert f"{member['backbone']}-{member['seed']}" in verdict
    assert f"{own['balanced_accuracy']:.3f}" in verdict
    assert f"{own['per_class']['mel']['sensitivity']:.3f}" in verdict
    low, high = own["intervals"]["balanced_accuracy"]
    assert f"{low:.3f} – {high:.3f}" in verdict


def test_the_page_says_what_a_split_by_image_would_have_claimed(layout: Layout, page: str) -> None:
    found = json.loads(layout.leaking_split.read_text())
    part = page[page.index("What a split by image") : page.index("Near-duplicates</h3>")]
    assert found["measured"]
    assert f"{found['group_level']['mean']:.3f}" in part
    assert f"{found['difference']['mean']:+.3f}" in part
    assert f"{found['leaking_share']:.1%} of its test images" in part


def test_each_diagnosis_shows_what_an_image_level_split_would_have_leaked(
    layout: Layout, params: Params, page: str
) -> None:
    start = page.index("An image-level split<br>would leak")
    body = page[start : page.index("</tbody>", start)]
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in body.split("<tr")[2:]]
    shown = {row[0]: row[-1] for row in rows}
    splits, labels = read_table(layout.splits), read_table(layout.labels)
    leak = image_level_leak(splits, labels, params.seed)
    assert shown == {name: share(value) for name, value in leak.items()}
    assert list(shown)[-1] == "all"
    assert len(set(shown.values())) > 2  # of each diagnosis its own
    # Most synthetic lesions have several views, and some have one: neither none nor all leak.
    assert 0.2 < leak["all"] < 0.9


def test_the_page_says_how_often_its_test_set_was_used(
    layout: Layout, page: str, tmp_path: Path
) -> None:
    assert "recorded <strong>no</strong> candidates" in page
    splits, labels = read_table(layout.splits), read_table(layout.labels)
    test = labels[labels["image_id"].isin(splits.loc[splits["split"] == "test", "image_id"])]
    other = Layout(tmp_path)
    for path in (layout.splits, layout.labels):
        place = tmp_path / path.relative_to(layout.root)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    write_test_uses(other.test_uses, {id_of_test_set(test): 3, "another test set": 5})
    assert report.num_test_uses(other) == 3
    other.test_uses.write_text("[]")
    with pytest.raises(TableError, match="how often test sets"):
        report.num_test_uses(other)


def test_the_gates_stand_in_the_verdict(
    layout: Layout, params: Params, page: str, tmp_path: Path
) -> None:
    verdict = page[page.index('id="verdict"') : page.index('id="leaderboard"')]
    gates = dict(
        re.findall(r'<td class="mono">(\w+)</td>.*?<span class="tag \w*">([\w ]+)</span>', verdict)
    )
    assert list(gates) == [
        "min_balanced_accuracy",
        "min_melanoma_sensitivity",
        "max_ece",
        "max_subgroup_gap",
        "max_latency_ms",
        "max_worse_than_champion",
    ]
    assert gates["min_balanced_accuracy"] == "passed" and gates["max_ece"] == "off"
    assert gates["max_worse_than_champion"] == "decided at promotion"
    assert "It passes the gate that looks at it alone" in verdict
    for name in ("data", "runs", "evaluations"):
        (tmp_path / name).symlink_to(layout.root / name)
    gates_of = params.gates.model_copy(update={"max_latency_ms": 1.0})
    strict = params.model_copy(update={"gates": gates_of})
    board = json.loads(layout.leaderboard.read_text())
    section = report.winner_section(strict, Layout(tmp_path), board)
    assert section["gates"]["not_passed"] == ["max_latency_ms"]


def test_a_bound_makes_the_report_stale(repo: Path) -> None:
    stage = read_yaml(repo / "dvc.yaml")["stages"]["report"]
    assert "gates" in stage["params"]


def test_what_was_computed_is_shown(layout: Layout, page: str) -> None:
    board = json.loads(layout.leaderboard.read_text())
    comparison = board["comparisons"][0]
    part = page[page.index("Paired comparisons") : page.index('id="winner"')]
    mcnemar = comparison["mcnemar"]
    assert f"<td>{mcnemar['only_first']} : {mcnemar['only_second']}</td>" in part
    assert f"<td>{escape(p_value(mcnemar['p_value']))}</td>" in part
    for name in SKILL:
        own = json.loads((layout.evaluation(name, 0) / "metrics.json").read_text())
        assert f"<td>{own['uncalibrated']['log_loss']:.3f}</td>" in page
        reached = own["operating_points"][0]
        both = f"{reached['sensitivity']:.3f} / {reached['specificity']:.3f}"
        assert both in page and "malignant: sensitivity ≥ 0.90" in page
        assert f"{own['subgroups']['sex'][0]['ece']:.3f}" in page


def test_a_small_p_value_is_never_shown_as_nothing() -> None:
    assert [p_value(value) for value in (0.2, 0.0005, 0.0004, 0.0, None)] == [
        *("0.200", "0.001", "< 0.001", "< 0.001", "–"),
    ]


def test_ensembles_stand_below_the_leaderboard(layout: Layout, tmp_path: Path) -> None:
    board = json.loads(layout.leaderboard.read_text())
    members = [{"backbone": name, "seed": 0, "weight": 1.0} for name in SKILL]
    ensemble = board["candidate"] | {"kind": "greedy_ensemble", "members": members}
    section = report.leaderboard_section(Layout(tmp_path), board | {"ensembles": [ensemble]})
    assert [row["members"] for row in section["candidates"]] == [
        f"{board['candidate']['members'][0]['backbone']}-0",
        " + ".join(f"{name}-0" for name in SKILL),
    ]


def test_every_backbone_has_its_row_and_its_section(page: str) -> None:
    for name in SKILL:
        assert page.count(f'<td class="left">{name}</td>') >= 1
        assert f'alt="Learning curves of {name}"' in page


def test_mistakes_are_real_mistakes_with_missed_cancers_first(page: str) -> None:
    cards = re.findall(
        r"<strong>(\w+)</strong> taken for <strong>(\w+)</strong>( <span class=\"tag alert\">)?",
        page,
    )
    assert 1 <= len(cards) <= 8
    assert all(truth != predicted for truth, predicted, _ in cards)
    missed = [bool(tag) for _, _, tag in cards]
    assert missed == sorted(missed, reverse=True)


def test_what_was_left_out_or_joined_is_named(layout: Layout, page: str) -> None:
    quarantined = read_table(layout.quarantine)["image_id"]
    assert len(quarantined)
    assert all(name in page for name in quarantined.head(12))
    joined = read_table(layout.pairs).iloc[1]
    assert f"{joined['image_id_a']} · {joined['image_id_b']}" in page
    assert "25 matching points" in page
    assert "8 of them join images" in page
    assert "Some of those, evenly spread from the surest to the least sure:" in page


def test_every_joined_pair_is_in_a_table_with_its_lesions_and_the_reason(
    layout: Layout, page: str
) -> None:
    start = page.index("<summary>Which pairs were joined")
    part = page[start : page.index("</details>", start)]
    rows = re.findall(r"<tr><td class=\"mono\">(.*?)</td></tr>", part)
    cells = [re.sub(r"</td><td[^>]*>", "|", row) for row in rows]
    lesion_of = read_table(layout.labels).set_index("image_id")["lesion_id"]
    expected = [
        f"{first} · {second}|{lesion_of[first]} · {lesion_of[second]}|same spot|{inliers}|0.93"
        for first, second, _, _, inliers in read_table(layout.pairs)
        .iloc[1:]
        .itertuples(index=False)
    ]
    assert len(expected) == 8
    assert cells == expected


def test_a_picture_without_a_lesion_id_is_in_the_table_too() -> None:
    labels = pd.DataFrame({"image_id": ["a", "b"], "lesion_id": [None, "L2"]})
    joined = pd.DataFrame([("a", "b", "same bytes", 1.0, 0)], columns=list(PAIR_COLUMNS))
    (row,) = joined_rows(joined, labels)
    assert row["lesions"] == ("no lesion id", "L2")


def test_the_tables_for_dvc_plots_are_there(layout: Layout) -> None:
    confusion = pd.read_csv(layout.plots / "confusion.csv")
    board = json.loads(layout.leaderboard.read_text())
    member = board["candidate"]["members"][0]
    metrics = layout.evaluation(member["backbone"], member["seed"]) / "metrics.json"
    accuracy = (confusion["diagnosis"] == confusion["predicted"]).mean()
    assert accuracy == pytest.approx(json.loads(metrics.read_text())["accuracy"])
    assert (layout.plots / "learning" / "resnet18-0.csv").is_file()
    assert (layout.plots / "confusion.png").is_file()


def test_an_ensemble_is_described_by_its_averaged_predictions(
    layout: Layout, params: Params, tmp_path: Path
) -> None:
    for name in ("data", "runs", "evaluations"):
        (tmp_path / name).symlink_to(layout.root / name)
    board = json.loads(layout.leaderboard.read_text())
    members = [{"backbone": name, "seed": 0, "weight": 1.0} for name in SKILL]
    board["candidate"] |= {"kind": "greedy_ensemble", "members": members}
    winner = report.winner_section(params, Layout(tmp_path), board)
    tables = [read_table(layout.evaluation(name, 0) / "test.parquet") for name in SKILL]
    columns = probability_columns(params.diagnoses.classes)
    mean = sum(table[columns].to_numpy() for table in tables)
    truth = pd.Index(params.diagnoses.classes).get_indexer(pd.Index(tables[0]["diagnosis"]))
    num_wrong = int((mean.argmax(axis=1) != truth).sum())
    assert winner["num_mistakes"] == num_wrong
    accuracy = next(row["value"] for row in winner["headline"] if row["name"] == "Accuracy")
    assert accuracy == f"{1 - num_wrong / len(truth):.3f}"


def test_dvc_yaml_plots_columns_that_the_report_writes(layout: Layout, repo: Path) -> None:
    confusion, learning = read_yaml(repo / "dvc.yaml")["plots"]
    (own,) = confusion.values()
    ((table, column),) = own["y"].items()
    assert {own["x"], column} <= set(pd.read_csv(layout.root / table).columns)
    ((folder, own),) = learning.items()
    files = sorted((layout.root / folder).iterdir())
    assert [path.stem for path in files] == sorted(f"{name}-0" for name in SKILL)
    assert {own["x"], own["y"]} <= set(pd.read_csv(files[0]).columns)


def test_hostile_ids_are_text(layout: Layout, params: Params) -> None:
    context = {
        "recipe": "<script>alert(1)</script>",
        "winner": report.winner_section(params, layout, json.loads(layout.leaderboard.read_text())),
        "leaderboard": {
            "rows": [],
            "num_first": 0,
            "num_runs": 0,
            "has_gpu": False,
            "candidates": [],
            "comparisons": [],
            "figures": {},
        },
        "models": [],
        "run_titles": [],
        "data": report.data_section(layout, 0),
        "num_test_uses": 1,
        "leaking_split": {"measured": False, "backbone": "<script>", "reason": "<script>"},
        "provenance": [],
    }
    assert "<script>" not in report.render(context)
