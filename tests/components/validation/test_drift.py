"""The index, its bins and its bound, and the checks that use them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.validation.drift import bin_counts, chance_bound, decile_edges, stability_index

counts = st.lists(st.integers(0, 1000), min_size=5, max_size=5).map(np.array)


@given(before=counts, now=counts)
def test_the_index_is_symmetric_and_never_negative(before: Any, now: Any) -> None:
    index = stability_index(before, now)
    assert index >= -1e-12
    assert index == pytest.approx(stability_index(now, before))


@given(before=counts)
def test_the_same_shares_have_the_index_nought(before: Any) -> None:
    assert stability_index(before, before) == pytest.approx(0, abs=1e-12)


def test_the_index_by_hand() -> None:
    # Shares 0.25/0.75 and 0.75/0.25 (with the halves): 2 * 0.5 * ln 3.
    assert stability_index(np.array([2, 7]), np.array([7, 2])) == pytest.approx(np.log(3))


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200).map(np.array))
def test_every_value_is_counted_once_and_no_bin_of_the_deciles_is_crowded(values: Any) -> None:
    edges = decile_edges(values)
    assert (np.diff(edges) > 0).all()
    found = bin_counts(values, edges)
    assert found.sum() == len(values)
    _, times = np.unique(values, return_counts=True)
    # A bin holds a tenth, or one value that is there more often than that.
    assert found.max() <= max(np.ceil(len(values) / 10) + times.max(), 2)


def test_a_value_that_all_have_gets_a_bin_of_its_own() -> None:
    edges = decile_edges(np.full(50, 450.0))
    assert bin_counts(np.array([449.0, 450.0, 450.0, 451.0]), edges).tolist() == [1, 2, 1]


def test_two_samples_of_one_population_hardly_ever_exceed_the_bound() -> None:
    rng = np.random.default_rng(0)
    exceeded = 0
    for _ in range(1000):
        before, now = rng.normal(size=150), rng.normal(size=300)
        edges = decile_edges(before)
        index = stability_index(bin_counts(before, edges), bin_counts(now, edges))
        exceeded += index > chance_bound(150, 300, len(edges) + 1)
    assert exceeded <= 8


@pytest.fixture
def after_another(make_tables: Any, judge_tables: Any, no_reference: Path) -> Any:
    """Return `judge_tables` with the profile of an earlier snapshot in the reference file."""
    profile = judge_tables(make_tables((60, 60, 60), seed=7)).profile
    snapshots = [profile | {"content_id": "earlier"}]
    no_reference.write_text(json.dumps({"schema_version": 1, "snapshots": snapshots}))
    return judge_tables


def test_a_snapshot_like_the_last_one_passes(make_tables: Any, after_another: Any) -> None:
    judgement = after_another(make_tables((70, 70, 70)))
    assert [o.check.name for o in judgement.outcomes if not o.success] == []
    assert {o.note for o in judgement.outcomes} == {""}


def test_a_shifted_statistic_is_named_with_its_medians(
    make_tables: Any, after_another: Any
) -> None:
    tables = make_tables((70, 70, 70))
    tables.quality["brightness"] -= 0.15
    (failed,) = [o for o in after_another(tables).outcomes if not o.success]
    assert failed.check.name == "images.drift"
    assert failed.check.severity == "warning"
    (offender,) = failed.offenders
    assert offender.startswith("brightness (median 0.")


def test_shifted_classes_are_named_with_their_shares(make_tables: Any, after_another: Any) -> None:
    judgement = after_another(make_tables((30, 150, 30)))
    (failed,) = [o for o in judgement.outcomes if not o.success]
    assert failed.check.name == "labels.class_balance"
    assert failed.check.severity == "warning"
    assert "bcc 33.3% -> 14.3%, mel 33.3% -> 71.4%" in failed.offenders[0]


def test_few_images_are_not_said_to_differ(make_tables: Any, after_another: Any) -> None:
    judgement = after_another(make_tables((3, 6, 3)))
    assert [o.check.name for o in judgement.outcomes if not o.success] == []


def test_a_quarantined_image_is_not_in_the_profile(tables: Any, judge_tables: Any) -> None:
    tables.undecodable("IMG_00", "empty file")
    profile = judge_tables(tables).profile
    assert profile["num_images"] == 23
    assert profile["classes"] == {"bcc": 7, "mel": 8, "nv": 8}
    assert sum(profile["statistics"]["brightness"]["counts"]) == 23
