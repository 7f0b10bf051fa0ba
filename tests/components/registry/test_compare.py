"""`lesionflow compare`: two versions side by side."""

from __future__ import annotations

import json

import pytest
from ruamel.yaml import YAML

from components.errors import RegistryError
from components.registry.compare import compare_text, compare_versions
from components.registry.promote import promote_candidate

from .conftest import Work, train


def _write_params(work: Work) -> None:
    YAML().dump(json.loads(work.params.model_dump_json()), work.layout.params)


def test_two_versions_are_compared_on_what_neither_has_seen(work: Work) -> None:
    _write_params(work)
    promote_candidate(work.params, work.layout)
    train(work, skill=0.6, seed=7)
    off = work.gates(
        min_balanced_accuracy=None, min_images_per_class=1, max_worse_than_champion=1.0
    )
    assert promote_candidate(off.params, off.layout).promoted
    document = compare_versions(work.layout, "champion", "previous")
    assert (document["first"], document["second"]) == ("v0002", "v0001")
    assert document["num_images"] == 12
    found = document["differences"]["balanced_accuracy"]
    metrics = [work.registry.document(name, "metrics.json") for name in ("v0002", "v0001")]
    assert found["first"] == pytest.approx(metrics[0]["balanced_accuracy"])
    assert found["second"] == pytest.approx(metrics[1]["balanced_accuracy"])
    text = compare_text(document)
    assert "v0002 against v0001 on 12 test images" in text
    assert "McNemar" in text
    json.dumps(document, allow_nan=False)


def test_a_version_that_is_not_there_is_named(work: Work) -> None:
    _write_params(work)
    promote_candidate(work.params, work.layout)
    with pytest.raises(RegistryError, match="no version 'v0005'"):
        compare_versions(work.layout, "champion", "v0005")
