"""A recipe is put in place with the user's values, comments kept, and nothing half-written."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.errors import ParamsError
from components.layout import Layout
from components.params import load_params
from components.recipes import compose_recipe, set_values


def test_the_values_of_the_user_are_in_the_text(workspace: Path) -> None:
    layout = Layout(workspace)
    text, _ = compose_recipe(
        layout,
        "ham10000",
        sources=["/data/a", "s3://bucket/b"],
        backbones=["vit_b_16", "mobilenet_v2"],
        image_size=96,
        seeds=[0, 1],
    )
    layout.params.write_text(text, encoding="utf-8")
    params = load_params(layout.params)
    assert [source.uri for source in params.sources] == ["/data/a", "s3://bucket/b"]
    assert {source.kind for source in params.sources} == {"ham10000"}
    assert list(params.backbones) == ["vit_b_16", "mobilenet_v2"]
    assert params.seeds == (0, 1)
    assert params.pack.image_size == 96
    assert {params.training_of(name).image_size for name in params.backbones} == {96}


def test_a_relative_source_is_taken_from_where_the_user_stands(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text, _ = compose_recipe(Layout(workspace), "ham10000", sources=["my images"])
    assert str(tmp_path / "my images") in text


def test_comments_are_kept(workspace: Path) -> None:
    text, _ = compose_recipe(Layout(workspace), "quickstart", seeds=[3])
    assert "# Quickstart: SYNTHETIC" in text


@pytest.mark.parametrize(
    ("cores", "runs", "workers", "threads", "share"),
    [(2, 1, 2, 1, 1.0), (8, 1, 2, 4, 4.0), (4, 2, 2, 1, 1.0), (4, 3, 1, 1, 1.0), (2, 3, 1, 1, 0.5)],
)
def test_trainings_side_by_side_share_the_cores(
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    runs: int,
    workers: int,
    threads: int,
    share: float,
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    layout = Layout(workspace)
    text, _ = compose_recipe(
        layout, "ham10000", backbones=["mobilenet_v2"], seeds=list(range(runs))
    )
    layout.params.write_text(text, encoding="utf-8")
    chosen = load_params(layout.params).training
    assert (chosen.num_workers, chosen.threads, chosen.cpus_per_worker) == (workers, threads, share)
    assert chosen.num_workers * chosen.cpus_per_worker * min(runs, cores / share) <= cores


def test_an_unknown_recipe_names_the_known_ones(workspace: Path) -> None:
    with pytest.raises(ParamsError) as caught:
        compose_recipe(Layout(workspace), "ham")
    assert "ham10000" in caught.value.fix


def test_an_unknown_backbone_is_refused(workspace: Path) -> None:
    with pytest.raises(ParamsError, match="resnet19"):
        compose_recipe(Layout(workspace), "ham10000", backbones=["resnet19"])


def test_set_values_writes_the_file_and_tells_old_and_new(workspace: Path) -> None:
    layout = Layout(workspace)
    old = load_params(layout.params).training.epochs
    (change,) = set_values(layout, ["training.epochs=9"])
    assert change == f"training.epochs: {old} -> 9"
    assert load_params(layout.params).training.epochs == 9


@pytest.mark.parametrize(
    "assignment",
    [
        "training.epochs",
        "training.epochs=many",
        "nope.epochs=1",
        "seed.x=1",
        "training.epoch=1",
        "=1",
    ],
)
def test_a_wrong_assignment_leaves_the_file_as_it_was(workspace: Path, assignment: str) -> None:
    layout = Layout(workspace)
    before = layout.params.read_bytes()
    with pytest.raises(ParamsError):
        set_values(layout, ["training.epochs=9", assignment])
    assert layout.params.read_bytes() == before
