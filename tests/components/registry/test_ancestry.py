"""Whatever way a warm start names a model of ours, what that one has seen comes along."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import boto3
import pandas as pd
import pytest

from components.backbones.preprocess import Preprocessing
from components.backbones.saved import MODEL_JSON, Member, ModelFile, save_model
from components.backbones.weights import resolve_weights
from components.backbones.zoo import create_backbone
from components.errors import RegistryError
from components.layout import Layout
from components.registry.ancestry import (
    EXPOSURE,
    EXPOSURE_COLUMNS,
    INHERITED,
    inherited_exposure,
    seen_by_start,
)
from components.registry.config import RegistryParams
from components.registry.store import MARKER
from components.registry.versions import Registry, open_registry

from .conftest import BACKBONE

WEIGHTS = "model.safetensors"
FORMS = (
    "registry:1",
    "{folder}",
    "{folder}/",
    "{folder}/model.safetensors",
    "registry/skin/versions/v0001",
    "registry/skin/versions/v0001/model.safetensors",
    "~/registry/skin/versions/v0001",
    "~/registry/skin/versions/v0001/model.safetensors",
)
S3_FORMS = (
    "registry:v0001",
    "{folder}",
    "{folder}/",
    "{folder}/model.safetensors",
)


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Return a workspace that is the user's home, too."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "home").mkdir()
    return Layout(tmp_path / "home")


def table(**parts: str) -> bytes:
    """Return an exposure of these images."""
    rows = [{"image_id": name, "sha256": f"bytes {name}", "split": p} for name, p in parts.items()]
    out = io.BytesIO()
    pd.DataFrame(rows, columns=list(EXPOSURE_COLUMNS)).to_parquet(out, index=False)
    return out.getvalue()


def publish(uri: str, layout: Layout) -> tuple[RegistryParams, Registry]:
    """Put a model into a new registry that was trained on a, and whose ancestor was on b."""
    params = RegistryParams(uri=uri, model_name="skin")
    preprocessing = Preprocessing.of(BACKBONE, pack_size=32, fit="crop", image_size=32)
    member = Member(file=WEIGHTS, backbone=BACKBONE, preprocessing=preprocessing)
    model = ModelFile(classes=("mel", "nv"), malignant=("mel",), members=(member,))
    folder = layout.root / "draft"
    save_model(folder, [create_backbone(BACKBONE, 2).state_dict()], model)
    registry = open_registry(params, layout)
    files: dict[str, Any] = {name: folder / name for name in (WEIGHTS, MODEL_JSON)}
    files |= {EXPOSURE: table(a="train", c="test"), INHERITED: table(b="validation")}
    assert registry.publish(files, "one") == "v0001"
    shutil.rmtree(folder)
    return params, registry


def started(spec: str, params: RegistryParams, layout: Layout) -> dict[str, Any]:
    """Return what a training records that is told to start from `spec`."""
    registry = f"{params.uri}/{params.model_name}"
    weights = resolve_weights(spec, BACKBONE, base=layout.root, registry=registry)
    assert weights.classes == ("mel", "nv")
    return weights.provenance()


@pytest.mark.parametrize(
    ("place", "form"),
    [*(("folder", form) for form in FORMS), *(("s3", form) for form in S3_FORMS)],
)
def test_every_way_to_name_a_version_brings_what_it_and_its_ancestors_have_seen(
    layout: Layout, place: str, form: str, request: pytest.FixtureRequest
) -> None:
    bucket = request.getfixturevalue("s3_bucket") if place == "s3" else None
    params, registry = publish(f"s3://{bucket}/here" if bucket else "registry", layout)
    start = started(form.format(folder=registry.place("v0001")), params, layout)
    seen, unknown = inherited_exposure([start], params, layout)
    assert list(seen["image_id"]) == ["a", "b"]
    assert unknown == ()


def test_a_file_beside_the_two_tables_is_enough(layout: Layout) -> None:
    params, registry = publish("registry", layout)
    folder = layout.root / "copied"
    folder.mkdir()
    for name in (WEIGHTS, EXPOSURE, INHERITED):
        shutil.copy(Path(registry.place("v0001")) / name, folder / name)
    start = resolve_weights(f"copied/{WEIGHTS}", BACKBONE, base=layout.root).provenance()
    assert len(seen_by_start(start, params, layout)) == 2


@pytest.mark.parametrize(
    ("gone", "problem"),
    [
        ([EXPOSURE], "without exposure.parquet"),
        ([EXPOSURE, INHERITED, MODEL_JSON, MARKER], "without exposure.parquet"),
        ([INHERITED], "inherited.parquet is missing"),
        ([WEIGHTS, EXPOSURE, INHERITED, MODEL_JSON, MARKER], "without exposure.parquet"),
    ],
)
@pytest.mark.parametrize("form", ["copied", f"copied/{WEIGHTS}"])
def test_what_cannot_be_found_any_more_is_never_passed_over(
    layout: Layout, form: str, gone: list[str], problem: str
) -> None:
    params, registry = publish("registry", layout)
    shutil.copytree(registry.place("v0001"), layout.root / "copied")
    start = started(form, params, layout)
    for name in gone:
        (layout.root / "copied" / name).unlink()
    with pytest.raises(RegistryError, match=problem):
        seen_by_start(start, params, layout)
    seen, (why,) = inherited_exposure([start], params, layout)
    assert seen.empty
    assert f"started from {form}" in why


def test_other_content_under_the_same_name_is_refused(layout: Layout) -> None:
    params, registry = publish("registry", layout)
    folder = layout.root / "copied"
    shutil.copytree(registry.place("v0001"), folder)
    start = started("copied", params, layout)
    with pytest.raises(RegistryError, match="another one than the training started from"):
        seen_by_start(start | {"sha256": "0" * 64}, params, layout)
    (folder / EXPOSURE).unlink()
    (folder / EXPOSURE).write_bytes(table(c="test"))
    with pytest.raises(RegistryError, match="other bytes than were published"):
        seen_by_start(start, params, layout)


def test_an_object_that_is_gone_from_s3_is_never_passed_over(
    layout: Layout, s3_bucket: str
) -> None:
    params, registry = publish(f"s3://{s3_bucket}/here", layout)
    start = started(registry.place("v0001"), params, layout)
    key = f"here/skin/versions/v0001/{EXPOSURE}"
    boto3.client("s3").delete_object(Bucket=s3_bucket, Key=key)
    with pytest.raises(RegistryError, match="without exposure"):
        seen_by_start(start, params, layout)


def test_published_weights_and_a_random_start_have_seen_nothing(layout: Layout) -> None:
    params = RegistryParams(uri="registry", model_name="skin")
    for start in (
        {"origin": "none (random start)", "sha256": "", "our_model": False},
        {"origin": "https://example.org/net.pth", "sha256": "0" * 64, "our_model": False},
    ):
        assert seen_by_start(start, params, layout) == []
