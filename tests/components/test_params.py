"""`params.yaml` is refused as a whole, with the key's name, before any work."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from components.errors import ParamsError
from components.params import load_params, parse_params, read_yaml

REPO = Path(__file__).resolve().parents[2]
RECIPES = sorted((REPO / "params").glob("*.yaml"))


def _document() -> dict[str, Any]:
    return copy.deepcopy(read_yaml(REPO / "params" / "quickstart.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_valid_and_named_after_its_file(path: Path) -> None:
    assert load_params(path).recipe == path.stem


def _with(key: str, value: Any) -> dict[str, Any]:
    document = _document()
    *parents, last = key.split(".")
    place = document
    for parent in parents:
        place = place[parent]
    place[last] = value
    return document


@pytest.mark.parametrize(
    ("key", "value", "named", "allowed"),
    [
        ("traning", {}, "traning", "unknown key"),
        ("pack.image_sise", 64, "pack.image_sise", "unknown key"),
        ("pack.image_size", "big", "pack.image_size", "integer"),
        ("pack.image_size", 4, "pack.image_size", "greater than or equal to 16"),
        ("training.epochs", 0, "training.epochs", "greater than or equal to 1"),
        ("split.train", 0.9, "split", "must be 1"),
        ("seeds", [0, 0], "seeds", "different numbers"),
        ("backbones", {"resnet19": {}}, "backbones.resnet19", "resnet18"),
        ("backbones", {"resnet18": {"lr": 1}}, "backbones.resnet18.lr", "unknown key"),
        ("backbones", {"resnet18": {"epochs": -1}}, "backbones.resnet18.epochs", "1"),
        ("sources", [], "sources", "at least 1"),
        ("diagnoses.classes", ["mel"], "diagnoses.classes", "at least 2"),
        ("diagnoses.classes", ["mel", "nv", "Mel"], "diagnoses.classes", "'Mel' is there twice"),
        ("diagnoses.classes", ["mel", " "], "diagnoses.classes", "give every class a name"),
        ("diagnoses.malignant", ["mel", "scc"], "diagnoses.malignant", "'scc' is none of"),
        ("diagnoses.malignant", ["melanoma"], "diagnoses.malignant", "akiec, bcc, bkl, df, mel"),
        ("diagnoses.malignant", ["mel", "mel"], "diagnoses.malignant", "'mel' is there twice"),
        ("diagnoses.names", {"MM": "melanoma"}, "diagnoses.names", "nv, vasc, or null"),
    ],
)
def test_a_wrong_value_is_refused_by_name_with_what_is_allowed(
    key: str, value: Any, named: str, allowed: str
) -> None:
    with pytest.raises(ParamsError) as caught:
        parse_params(_with(key, value), where="params.yaml")
    assert named in caught.value.what
    assert allowed in caught.value.what
    assert caught.value.exit_code == 2


def test_sources_may_spell_a_class_otherwise_and_a_recipe_may_have_no_malignant_one() -> None:
    document = _document()
    document["diagnoses"] |= {"malignant": [], "names": {"MM": "mel", "UNK": None, "": None}}
    diagnoses = parse_params(document, where="params.yaml").diagnoses
    assert diagnoses.names == {"MM": "mel", "UNK": None, "": None}


def test_every_wrong_key_is_named_at_once() -> None:
    document = _with("pack.image_size", 1)
    document["nonsense"] = 1
    with pytest.raises(ParamsError) as caught:
        parse_params(document, where="params.yaml")
    assert "pack.image_size" in caught.value.what
    assert "nonsense" in caught.value.what


@pytest.mark.parametrize("kind", ["best_seed", "greedy_ensemble"])
def test_seeds_of_different_folds_are_refused_before_they_are_trained_and_compared(
    kind: str,
) -> None:
    document = _with("split.folds", 3) | {"seeds": [0, 1], "ranking": {"candidate": kind}}
    with pytest.raises(ParamsError, match=rf"{kind}(.|\n)*seed_ensemble, or split.folds to 0"):
        parse_params(document, where="params.yaml")
    for allowed in ({"seeds": [0, 3]}, {"ranking": {"candidate": "seed_ensemble"}}):
        parse_params(document | allowed, where="params.yaml")


def test_a_missing_section_is_named() -> None:
    document = _document()
    del document["split"]
    with pytest.raises(ParamsError, match="split: missing"):
        parse_params(document, where="params.yaml")


def test_a_number_in_scientific_notation_is_a_number(tmp_path: Path) -> None:
    text = (REPO / "params" / "quickstart.yaml").read_text(encoding="utf-8")
    path = tmp_path / "params.yaml"
    path.write_text(text.replace("learning_rate: 2e-3", "learning_rate: 5e-4", 1), encoding="utf-8")
    assert load_params(path).training.learning_rate == 5e-4


def test_broken_yaml_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("seed: [1\nrecipe: x\n", encoding="utf-8")
    with pytest.raises(ParamsError) as caught:
        load_params(path)
    assert str(path) in caught.value.where
    assert "line" in caught.value.what


def test_a_backbone_overrides_the_training_section() -> None:
    document = _with("backbones", {"resnet18": {"epochs": 7}, "vgg11": {}})
    params = parse_params(document, where="params.yaml")
    assert params.training_of("resnet18").epochs == 7
    assert params.training_of("vgg11").epochs == params.training.epochs
