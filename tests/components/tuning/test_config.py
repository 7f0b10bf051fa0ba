"""A search space that no recipe can have is refused with `params.yaml`, by the key's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.errors import ParamsError
from components.params import parse_params, read_yaml


def _document(repo: Path, tune: dict[str, Any]) -> dict[str, Any]:
    return read_yaml(repo / "params" / "quickstart.yaml") | {"tune": tune}


@pytest.mark.parametrize(
    ("tune", "named", "said"),
    [
        ({"num_samples": 1}, "tune.num_samples", "greater than or equal to 2"),
        ({"trials": 3}, "tune.trials", "unknown key"),
        ({"space": {}}, "tune.space", "at least 1"),
        ({"space": {"lr": [1.0]}}, "space.lr", "learning_rate"),
        ({"space": {"epochs": [1, 2]}}, "space.epochs", "cannot be searched"),
        ({"space": {"learning_rate": {"low": 1e-3}}}, "space.learning_rate", "missing"),
        ({"space": {"mixup": {"low": 1.0, "high": 0.5}}}, "space.mixup", "less than high"),
        ({"space": {"mixup": {"low": 0, "high": 1, "log": True}}}, "space.mixup", "logarithm"),
        ({"space": {"augmentation": {"low": 0, "high": 9}}}, "space.augmentation", "9"),
        ({"space": {"batch_size": {"low": 8, "high": 64}}}, "space.batch_size", "integer"),
        ({"space": {"batch_size": [16, 1]}}, "space.batch_size", "1"),
        ({"space": {"batch_size": []}}, "space.batch_size", "at least 1"),
        ({"space": {"unfreeze": ["all", "half"]}}, "space.unfreeze", "'half'"),
    ],
)
def test_a_wrong_search_is_refused_by_name(
    repo: Path, tune: dict[str, Any], named: str, said: str
) -> None:
    with pytest.raises(ParamsError) as caught:
        parse_params(_document(repo, tune), where="params.yaml")
    assert named in caught.value.what
    assert said in caught.value.what


def test_whole_numbers_and_words_keep_their_types(repo: Path) -> None:
    space = {"batch_size": [16, 32], "unfreeze": ["all"], "mixup": [0, 0.2]}
    params = parse_params(_document(repo, {"space": space}), where="params.yaml")
    assert params.tune.space == {"batch_size": (16, 32), "unfreeze": ("all",), "mixup": (0, 0.2)}
