"""`data/weights.json` follows the content of own weights, and a training checks it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from components.backbones.config import BACKBONE_NAMES
from components.backbones.preprocess import Preprocessing
from components.backbones.saved import Member, ModelFile, save_model
from components.backbones.zoo import create_backbone
from components.errors import RegistryError, WeightsError
from components.layout import Layout
from components.params import Params, parse_params, read_yaml
from components.training.own_weights import (
    changed_own_weights,
    check_own_weights,
    refresh_own_weights,
)

NAME = "mobilenet_v2"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "work" / "data").mkdir(parents=True)
    return Layout(tmp_path / "work")


def params_for(repo: Path, model_name: str = "skin", **weights: str) -> Params:
    """Return parameters in which each of these backbones starts from these weights."""
    document = read_yaml(repo / "params" / "quickstart.yaml")
    document["backbones"] = {name: {"weights": spec} for name, spec in weights.items()}
    document["registry"] = {"uri": "registry", "model_name": model_name}
    return parse_params(document, where="test")


def noted(layout: Layout, name: str = NAME) -> Any:
    return json.loads(layout.own_weights.read_text(encoding="utf-8"))["backbones"][name]


def test_the_file_in_git_has_every_backbone_and_a_look_without_own_weights_leaves_it(
    repo: Path, layout: Layout
) -> None:
    params = params_for(repo, mobilenet_v2="none", resnet18="imagenet")
    tracked = (repo / "data" / "weights.json").read_bytes()
    layout.own_weights.write_bytes(tracked)
    assert refresh_own_weights(params, layout) == {}
    assert layout.own_weights.read_bytes() == tracked
    layout.own_weights.unlink()
    refresh_own_weights(params, layout)
    assert layout.own_weights.read_bytes() == tracked
    assert {name: noted(layout, name) for name in BACKBONE_NAMES} == dict.fromkeys(BACKBONE_NAMES)


def test_a_file_that_is_replaced_under_its_name_changes_its_backbones_entry_only(
    repo: Path, layout: Layout
) -> None:
    for name in ("own.pth", "other.pth"):
        (layout.root / name).write_bytes(b"first")
    params = params_for(repo, mobilenet_v2="own.pth", resnet18="other.pth")
    refresh_own_weights(params, layout)
    first = noted(layout, "resnet18")
    sha256 = hashlib.sha256(b"first").hexdigest()
    assert noted(layout) == {"weights": "own.pth", "content": f"sha256:{sha256}"}
    assert changed_own_weights(params, layout) == ([], {})

    (layout.root / "own.pth").write_bytes(b"other")
    assert changed_own_weights(params, layout) == ([NAME], {})
    assert noted(layout)["content"] == f"sha256:{sha256}"  # who only asks writes nothing
    refresh_own_weights(params, layout)
    assert noted(layout)["content"] != f"sha256:{sha256}"
    assert noted(layout, "resnet18") == first


def test_a_file_of_the_home_folder(
    repo: Path, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.pth").write_bytes(b"first")
    refresh_own_weights(params_for(repo, mobilenet_v2="~/own.pth"), layout)
    assert noted(layout)["content"] == f"sha256:{hashlib.sha256(b'first').hexdigest()}"


# --- models of ours -----------------------------------------------------------------------------


def save_version(folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    preprocessing = Preprocessing.of(NAME, pack_size=32, fit="crop", image_size=32)
    members = (Member(file="model.safetensors", backbone=NAME, preprocessing=preprocessing),)
    model_file = ModelFile(classes=("bkl", "mel"), malignant=("mel",), members=members)
    save_model(folder, [create_backbone(NAME, 2).state_dict()], model_file)


def test_a_run_that_is_trained_anew_and_a_registry_of_another_name_are_other_weights(
    repo: Path, layout: Layout
) -> None:
    found = []
    for seed, name in ((0, "skin"), (1, "moles")):
        save_version(layout.root / "registry" / name / "versions" / "v0001", seed)
        save_version(layout.root / "runs" / "x-0", seed)
        refresh_own_weights(params_for(repo, name, mobilenet_v2="registry:v0001"), layout)
        found.append(noted(layout)["content"])
        refresh_own_weights(params_for(repo, name, mobilenet_v2="runs/x-0"), layout)
        assert noted(layout) == {"weights": "runs/x-0", "content": found[-1]}
    assert len(set(found)) == 2


def test_weights_swapped_below_their_model_json_are_an_error(repo: Path, layout: Layout) -> None:
    save_version(layout.root / "runs" / "x-0", 0)
    params = params_for(repo, mobilenet_v2="runs/x-0")
    refresh_own_weights(params, layout)
    (layout.root / "runs" / "x-0" / "model.safetensors").write_bytes(b"others")
    assert "missing or damaged" in str(refresh_own_weights(params, layout)[NAME])


# --- not to be had ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("gone.pth", r"no weights file 'gone\.pth'(.|\n)*to do: correct `weights`"),
        ("/proc/self/mem", r"cannot be read(.|\n)*where: /proc/[0-9]+/mem(.|\n)*permissions"),
        ("registry:v0007", r"no version v0007(.|\n)*lesionflow models"),
        ("registry:champion", "names no version"),
    ],
)
def test_what_is_not_to_be_had_and_was_never_looked_at_is_one_clear_error(
    repo: Path, layout: Layout, spec: str, problem: str
) -> None:
    with pytest.raises(WeightsError, match=problem):
        refresh_own_weights(params_for(repo, mobilenet_v2=spec), layout)
    assert not layout.own_weights.exists()


def test_a_damaged_model_json_is_one_clear_error(repo: Path, layout: Layout) -> None:
    (layout.root / "model.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RegistryError, match="schema_version"):
        refresh_own_weights(params_for(repo, mobilenet_v2="."), layout)


def test_what_is_gone_keeps_its_entry_and_is_told(repo: Path, layout: Layout) -> None:
    (layout.root / "own.pth").write_bytes(b"first")
    params = params_for(repo, mobilenet_v2="own.pth")
    refresh_own_weights(params, layout)
    before = layout.own_weights.read_bytes()
    (layout.root / "own.pth").unlink()
    trouble = refresh_own_weights(params, layout)
    assert "no weights file" in str(trouble[NAME])
    assert layout.own_weights.read_bytes() == before
    assert changed_own_weights(params, layout)[0] == []
    with pytest.raises(WeightsError, match=r"'new\.pth'"):  # the entry is of another file
        refresh_own_weights(params_for(repo, mobilenet_v2="new.pth"), layout)


def test_a_list_that_is_none_says_what_to_do(repo: Path, layout: Layout) -> None:
    params = params_for(repo, mobilenet_v2="none")
    for text in ("<<<<<<< HEAD", "[]", '{"backbones": {"mobilenet_v2": "own.pth"}}'):
        layout.own_weights.write_text(text, encoding="utf-8")
        with pytest.raises(WeightsError, match="delete the file and run"):
            refresh_own_weights(params, layout)


# --- S3 -----------------------------------------------------------------------------------------


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Return a client of an S3 server with an empty bucket called `weights`."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.session.Session().client("s3")
    client.create_bucket(Bucket="weights")
    yield client
    server.stop()


def test_an_object_is_told_from_another_without_being_fetched(
    repo: Path, layout: Layout, s3: Any, tmp_path: Path
) -> None:
    params = params_for(repo, mobilenet_v2="s3://weights/own.pth")
    with pytest.raises(WeightsError, match="no weights file 's3://weights/own"):
        refresh_own_weights(params, layout)
    found = []
    for body in (b"first", b"other", b"first"):
        s3.put_object(Bucket="weights", Key="own.pth", Body=body)
        assert changed_own_weights(params, layout) == ([NAME], {})
        refresh_own_weights(params, layout)
        found.append(noted(layout)["content"])
    assert found[0] == found[2] != found[1]
    assert found[0].startswith("etag:")
    assert not (tmp_path / "cache").exists()


def test_a_model_on_s3_is_known_by_its_model_json(
    repo: Path, layout: Layout, s3: Any, tmp_path: Path
) -> None:
    save_version(tmp_path / "model", 0)
    for file in (tmp_path / "model").iterdir():
        s3.upload_file(str(file), "weights", f"model/{file.name}")
    refresh_own_weights(params_for(repo, mobilenet_v2="s3://weights/model"), layout)
    sha256 = hashlib.sha256((tmp_path / "model" / "model.safetensors").read_bytes()).hexdigest()
    assert noted(layout)["content"] == f"sha256:{sha256}"
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


# --- what a training checks ---------------------------------------------------------------------


def test_a_training_refuses_weights_that_are_not_those_that_were_looked_at(
    repo: Path, layout: Layout
) -> None:
    params = params_for(repo, mobilenet_v2="own.pth", resnet18="imagenet")
    (layout.root / "own.pth").write_bytes(b"first")
    with pytest.raises(WeightsError, match=r"nobody has looked at(.|\n)*`lesionflow retrain`"):
        check_own_weights(params, layout, NAME)
    check_own_weights(params, layout, "resnet18")
    refresh_own_weights(params, layout)
    check_own_weights(params, layout, NAME)
    (layout.root / "own.pth").write_bytes(b"other")
    with pytest.raises(WeightsError, match="are others than when they were looked at"):
        check_own_weights(params, layout, NAME)
    # What is none any more needs no look.
    check_own_weights(params_for(repo, mobilenet_v2="none"), layout, NAME)
