"""The section `validation` of params.yaml: short recipes, and wrong ones refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.errors import ParamsError
from components.params import parse_params, read_yaml
from components.validation.config import ValidationParams


def _parse(repo: Path, section: dict[str, Any]) -> ValidationParams:
    document = read_yaml(repo / "params" / "quickstart.yaml")
    return parse_params(document | {"validation": section}, where="params.yaml").validation


def test_a_recipe_names_only_what_it_changes(repo: Path) -> None:
    rules = _parse(
        repo, {"images": {"brightness": {"max": 0.9}}, "labels": {"sex": {"values": ["f"]}}}
    )
    default = ValidationParams()
    assert rules.images.brightness.model_dump() == {"severity": "warning", "min": 0.15, "max": 0.9}
    assert rules.labels.sex.values == ("f",)
    assert rules.labels.sex.severity == "warning"
    assert rules.images.sharpness == default.images.sharpness
    assert rules.between == default.between


def test_an_empty_section_has_the_defaults(repo: Path) -> None:
    assert _parse(repo, {}) == ValidationParams()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"images": {"sharpnes": {"min": 1}}}, "validation.images.sharpnes: unknown key"),
        ({"images": {"sharpness": {"max": 1}}}, "validation.images.sharpness.max: unknown key"),
        ({"images": {"sharpness": {"min": "3"}}}, "validation.images.sharpness.min"),
        ({"images": {"sharpness": {"severity": "fatal"}}}, "'error', 'quarantine', 'warning'"),
        ({"images": {"sharpness": {"severity": False}}}, "validation.images.sharpness.severity"),
        ({"images": {"decodable": {"severity": "off"}}}, "validation.images.decodable.severity"),
        ({"labels": {"missing": {"severity": "quarantine"}}}, "'error', 'warning' or 'off'"),
        ({"labels": {"missing": {"sex": 1.5}}}, "validation.labels.missing.sex"),
        ({"labels": {"age_years": {"min": 200}}}, "min (200) is above max (120)"),
        ({"labels": {"site": {"values": "back"}}}, "validation.labels.site.values"),
        ({"max_quarantined_share": 5}, "validation.max_quarantined_share"),
    ],
)
def test_a_wrong_value_is_refused_by_its_key(
    section: dict[str, Any], message: str, repo: Path
) -> None:
    with pytest.raises(ParamsError) as refused:
        _parse(repo, section)
    assert message in str(refused.value)
