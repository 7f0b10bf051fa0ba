"""The section `split` of params.yaml: what cannot be meant is refused by its key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.errors import ParamsError
from components.params import parse_params, read_yaml


def _document(repo: Path, **changes: Any) -> dict[str, Any]:
    document = read_yaml(repo / "params" / "quickstart.yaml")
    return document | {"split": document["split"] | changes}


@pytest.mark.parametrize(
    ("changes", "named", "said"),
    [
        ({"folds": 1}, "split", "folds must be 0 (off) or at least 2"),
        ({"folds": -2}, "split.folds", "greater than or equal to 0"),
        ({"folds": 21}, "split.folds", "less than or equal to 20"),
        ({"test": 0.0, "train": 0.85}, "split.test", "greater than 0"),
        ({"max_left_out_share": 10}, "split.max_left_out_share", "less than or equal to 1"),
    ],
)
def test_a_split_that_cannot_be_meant_is_refused(
    repo: Path, changes: dict[str, Any], named: str, said: str
) -> None:
    with pytest.raises(ParamsError) as caught:
        parse_params(_document(repo, **changes), where="params.yaml")
    assert named in caught.value.what
    assert said in caught.value.what
    assert caught.value.where == "params.yaml"
    assert caught.value.fix


def test_two_folds_are_folds(repo: Path) -> None:
    """One fold has nothing to train on; two are the fewest that mean something."""
    document = _document(repo, folds=2) | {"seeds": [0, 1]}
    document["ranking"] |= {"candidate": "seed_ensemble"}
    assert parse_params(document, where="params.yaml").split.folds == 2
