"""Properties of the split that hold for every table, and the cases that were decided by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from components.errors import SplitError
from components.splitting.assign import apportion, assign, check_parts
from components.splitting.config import SplitParams
from components.splitting.groups import connect
from components.splitting.ledger import LEDGER_COLUMNS, Ledger, append, read_ledger
from components.tables import LABEL_COLUMNS, PAIR_COLUMNS, PARTS, QUARANTINE_COLUMNS

CLASSES = ("mel", "nv", "vasc")
SHARES = SplitParams()
COMMON = settings(deadline=None, max_examples=50)


@dataclass(frozen=True)
class Snapshot:
    labels: pd.DataFrame
    pairs: pd.DataFrame
    quarantine: pd.DataFrame

    def split(
        self, ledger: Ledger | None = None, params: SplitParams = SHARES, seed: int = 0
    ) -> pd.DataFrame:
        known = ledger or Ledger.empty()
        return assign(self.labels, self.pairs, self.quarantine, known, params, seed=seed)

    def before(self, num_images: int) -> Snapshot:
        """Return what this snapshot was when it had its first `num_images` images."""
        labels = self.labels.iloc[:num_images]
        kept = set(labels["image_id"])
        both = self.pairs["image_id_a"].isin(kept) & self.pairs["image_id_b"].isin(kept)
        return Snapshot(
            labels,
            self.pairs[both],
            self.quarantine[self.quarantine["image_id"].isin(kept)],
        )


def recorded(*runs: tuple[Snapshot, pd.DataFrame]) -> Ledger:
    """Return the ledger after `runs`, by way of the real file."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.csv"
        for snapshot, splits in runs:
            append(path, splits, snapshot.labels)
        return read_ledger(path)


@st.composite
def snapshots(draw: st.DrawFn, max_images: int = 40) -> Snapshot:
    """Any snapshot: lesions, patients, copies, pairs, missing ids, absent files, quarantine."""
    count = draw(st.integers(1, max_images))
    names = [f"i{number:02d}" for number in draw(st.permutations(range(count)))]
    lesion = st.one_of(st.none(), st.integers(0, count // 2).map("L{}".format))
    patient = st.one_of(st.none(), st.none(), st.integers(0, count // 3).map("P{}".format))
    rows = [
        {
            "image_id": name,
            "lesion_id": draw(lesion),
            "patient_id": draw(patient),
            "diagnosis": draw(st.sampled_from(CLASSES)),
            "source": "some",
            "sha256": draw(st.sampled_from((f"bytes of {name}",) * 8 + ("copied", None))),
        }
        for name in names
    ]
    indices = st.integers(0, count - 1)
    chosen = draw(st.lists(st.tuples(indices, indices), max_size=4))
    pairs = [(*sorted((names[a], names[b])), "same spot", 0.9, 30) for a, b in chosen if a != b]
    dark = draw(st.lists(st.sampled_from(names), max_size=5, unique=True))
    return Snapshot(
        pd.DataFrame(rows, columns=list(LABEL_COLUMNS)).astype(object),
        pd.DataFrame(pairs, columns=list(PAIR_COLUMNS)),
        pd.DataFrame([(name, "too dark") for name in dark], columns=list(QUARANTINE_COLUMNS)),
    )


def parts_per_component(snapshot: Snapshot, splits: pd.DataFrame) -> pd.Series:
    component = pd.Series(
        connect(snapshot.labels, snapshot.pairs), index=snapshot.labels["image_id"]
    )
    placed = splits.dropna(subset=["split"]).set_index("image_id")["split"]
    return placed.groupby(component.reindex(placed.index)).nunique()


@COMMON
@given(snapshots(), st.integers(0, 5))
def test_no_group_is_in_two_parts_and_every_image_has_one_row(snapshot, seed) -> None:
    splits = snapshot.split(seed=seed)
    assert splits["image_id"].tolist() == sorted(snapshot.labels["image_id"])
    assert (parts_per_component(snapshot, splits) <= 1).all()
    assert (splits["split"].isna() == splits["reason"].notna()).all()
    assert set(splits["split"].dropna()) <= set(PARTS)
    left_out = set(splits.loc[splits["split"].isna(), "image_id"])
    assert left_out == set(snapshot.quarantine["image_id"])


@COMMON
@given(snapshots(), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(snapshot, random) -> None:
    def shuffled(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.iloc[random.sample(range(len(frame)), len(frame))]

    mixed = Snapshot(*map(shuffled, (snapshot.labels, snapshot.pairs, snapshot.quarantine)))
    pd.testing.assert_frame_equal(mixed.split(), snapshot.split())


@COMMON
@given(snapshots())
def test_a_recorded_split_is_made_again_whatever_the_seed(snapshot) -> None:
    first = snapshot.split(seed=1)
    again = snapshot.split(recorded((snapshot, first)), seed=2)
    pd.testing.assert_frame_equal(again, first)


@COMMON
@given(snapshots(), st.data())
def test_growth_and_other_thresholds_move_nothing(snapshot, data) -> None:
    """Whatever comes later, an image keeps its part or is left out, by name."""
    old = snapshot.before(data.draw(st.integers(1, len(snapshot.labels))))
    first = old.split()
    ledger = recorded((old, first))
    dark = data.draw(st.lists(st.sampled_from(list(snapshot.labels["image_id"])), unique=True))
    later = replace(
        snapshot,
        pairs=snapshot.pairs.iloc[: data.draw(st.integers(0, len(snapshot.pairs)))],
        quarantine=pd.DataFrame([(n, "blurred") for n in dark], columns=list(QUARANTINE_COLUMNS)),
    )
    second = later.split(ledger)
    both = first.merge(second, on="image_id").dropna(subset=["split_x"])
    moved = both[both["split_y"].notna() & (both["split_x"] != both["split_y"])]
    assert moved.empty
    assert both.loc[both["split_y"].isna(), "reason_y"].notna().all()
    assert (parts_per_component(later, second) <= 1).all()
    third = later.split(recorded((old, first), (later, second)))
    pd.testing.assert_frame_equal(third, second)


@COMMON
@given(snapshots(), st.data())
def test_what_was_in_test_is_never_trained_on_through_lesion_or_pair(snapshot, data) -> None:
    old = snapshot.before(data.draw(st.integers(1, len(snapshot.labels))))
    first = old.split()
    second = snapshot.split(recorded((old, first)))
    component = pd.Series(
        connect(snapshot.labels, snapshot.pairs), index=snapshot.labels["image_id"]
    )
    in_test = first.loc[first["split"] == "test", "image_id"]
    seen = second.loc[second["split"].isin(("train", "validation")), "image_id"]
    assert not set(component[in_test]) & set(component[seen])


@COMMON
@given(snapshots(), st.data())
def test_a_given_test_set_is_the_test_part_whatever_touches_it(snapshot, data) -> None:
    chosen = data.draw(st.lists(st.booleans(), min_size=len(snapshot.labels)))[
        : len(snapshot.labels)
    ]
    assume(any(chosen))
    sources = ["folder:test" if official else "folder:train" for official in chosen]
    snapshot = replace(snapshot, labels=snapshot.labels.assign(source=sources))
    params = SplitParams(official_test=True)
    splits = snapshot.split(params=params)
    official = set(snapshot.labels["image_id"][chosen])
    in_test = set(splits.loc[splits["split"] == "test", "image_id"])
    assert in_test == official - set(snapshot.quarantine["image_id"])
    assert (parts_per_component(snapshot, splits) <= 1).all()
    again = snapshot.split(recorded((snapshot, splits)), params=params)
    pd.testing.assert_frame_equal(again, splits)


@COMMON
@given(snapshots())
def test_shares_are_kept_within_one_group_per_class(snapshot) -> None:
    """Exactly, where groups have one diagnosis and are enough for a part each."""
    labels = snapshot.labels.assign(lesion_id=None, patient_id=None)
    labels["sha256"] = labels["image_id"]
    plain = replace(snapshot, labels=labels, pairs=snapshot.pairs.iloc[:0])
    splits = plain.split().merge(labels[["image_id", "diagnosis"]], on="image_id")
    for _, rows in splits.dropna(subset=["split"]).groupby("diagnosis"):
        counts = rows["split"].value_counts().reindex(PARTS, fill_value=0)
        if len(rows) >= 3:
            assert counts.min() >= 1
        if len(rows) >= 7 or len(rows) < 3:
            for part, share in SHARES.shares().items():
                assert abs(counts[part] - share * len(rows)) <= 1


@COMMON
@given(
    st.fixed_dictionaries({part: st.integers(0, 30) for part in PARTS}),
    st.integers(0, 60),
    st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 20)),
)
def test_growth_restores_the_shares(before, num_new, weights) -> None:
    shares = {part: weight / sum(weights) for part, weight in zip(PARTS, weights, strict=True)}
    quotas = apportion(before, num_new, shares)
    assert sum(quotas.values()) == num_new
    assert min(quotas.values()) >= 0
    total = sum(before.values()) + num_new
    for part in PARTS:
        if quotas[part] > 1:  # the first one may be there to fill an empty part
            assert before[part] + quotas[part] <= shares[part] * total + 1
    if total >= 3 and num_new >= 3:
        assert min(before[part] + quotas[part] for part in PARTS) >= 1


@COMMON
@given(snapshots(), st.integers(2, 5))
def test_folds_divide_the_rest_and_leave_the_parts_alone(snapshot, num_folds) -> None:
    without = snapshot.split()
    splits = snapshot.split(params=SplitParams(folds=num_folds))
    assert without["fold"].isna().all()
    pd.testing.assert_frame_equal(splits.drop(columns="fold"), without.drop(columns="fold"))
    rest = splits["split"].isin(("train", "validation"))
    assert (splits["fold"].notna() == rest).all()
    folds = splits[rest].groupby("group_id")["fold"]
    assert (folds.nunique() == 1).all()
    sizes = folds.first().value_counts().reindex(range(num_folds), fill_value=0)
    assert sizes.max() - sizes.min() <= 1


def _many(labels_of, count: int = 40, **common: str) -> pd.DataFrame:
    return labels_of(*({"image_id": f"i{number:03d}", **common} for number in range(count)))


def test_a_quarantined_group_comes_back_where_it_was(labels_of, pairs_of, quarantine_of) -> None:
    labels = _many(labels_of)
    whole = Snapshot(labels, pairs_of(), quarantine_of())
    first = whole.split()
    ledger = recorded((whole, first))
    dark = replace(whole, quarantine=quarantine_of("i003"))
    row = dark.split(ledger).set_index("image_id").loc["i003"]
    assert pd.isna(row["split"])
    assert row["reason"] == "quarantined: too dark"
    pd.testing.assert_frame_equal(whole.split(ledger), first)


@pytest.mark.parametrize(
    ("known", "stays", "goes"),
    [
        ({"a": "train", "b": "test"}, "b", "a"),
        ({"a": "train", "b": "validation"}, "b", "a"),
        ({"a": "validation", "b": "test"}, "b", "a"),
    ],
)
def test_a_new_tie_keeps_the_stronger_part_and_names_what_is_left_out(
    labels_of, pairs_of, quarantine_of, known, stays, goes
) -> None:
    labels = labels_of({"image_id": "a"}, {"image_id": "b"}, {"image_id": "new"})
    rows = labels.assign(part=labels["image_id"].map(known)).dropna(subset=["part"])
    ledger = Ledger(rows[list(LEDGER_COLUMNS)])
    tied = Snapshot(labels, pairs_of(("a", "new"), ("b", "new")), quarantine_of())
    splits = tied.split(ledger).set_index("image_id")
    assert splits.loc[stays, "split"] == known[stays]
    assert splits.loc["new", "split"] == known[stays]
    assert pd.isna(splits.loc[goes, "split"])
    assert splits.loc[goes, "reason"] == (
        f"left out: group image:a ties it to {known[stays]}, it belongs to {known[goes]}"
    )


def test_a_new_image_of_a_known_lesion_follows_it(labels_of, pairs_of, quarantine_of) -> None:
    old = labels_of(*({"image_id": f"i{n:02d}", "lesion_id": f"L{n}"} for n in range(20)))
    first = Snapshot(old, pairs_of(), quarantine_of())
    splits = first.split()
    ledger = recorded((first, splits))
    later = labels_of(*({"image_id": f"a{n:02d}", "lesion_id": f"L{n}"} for n in range(20)))
    second = Snapshot(later, pairs_of(), quarantine_of()).split(ledger)
    assert second["split"].tolist() == splits["split"].tolist()
    assert second["group_id"].tolist() == splits["group_id"].tolist()


def test_a_group_with_two_diagnoses_counts_for_the_rarer_one(
    labels_of, pairs_of, quarantine_of
) -> None:
    """With the pairs below, nv has 20 groups of its own and mel five, three of them mixed."""
    nv = [{"image_id": f"n{number:02d}"} for number in range(23)]
    mel = [{"image_id": f"m{number}", "diagnosis": "mel"} for number in range(5)]
    pairs = pairs_of(*((f"n{number:02d}", f"m{number}") for number in range(3)))
    splits = Snapshot(labels_of(*nv, *mel), pairs, quarantine_of()).split()
    counts = splits.set_index("image_id").loc[[f"m{n}" for n in range(5)], "split"].value_counts()
    assert counts.to_dict() == {"train": 3, "validation": 1, "test": 1}
    own = splits.set_index("image_id").loc[[f"n{n:02d}" for n in range(3, 23)], "split"]
    assert own.value_counts().to_dict() == {"train": 14, "validation": 3, "test": 3}


def test_the_given_test_set_is_kept_and_what_touches_it_is_left_out(
    labels_of, pairs_of, quarantine_of
) -> None:
    given_test = [{"image_id": f"t{n}", "source": "folders:test"} for n in range(5)]
    rest = [{"image_id": f"i{n:02d}", "source": "folders:train"} for n in range(21)]
    params = SplitParams(official_test=True)
    snapshot = Snapshot(labels_of(*given_test, *rest), pairs_of(("i00", "t0")), quarantine_of())
    splits = snapshot.split(params=params)
    assert set(splits.loc[splits["split"] == "test", "image_id"]) == {f"t{n}" for n in range(5)}
    assert splits["split"].value_counts().to_dict() == {"train": 16, "test": 5, "validation": 4}
    left_out = splits.set_index("image_id").loc["i00"]
    assert (
        left_out["reason"]
        == "left out: group image:t0 ties it to test, it is not in the given test set"
    )
    again = snapshot.split(recorded((snapshot, splits)), params=params)
    pd.testing.assert_frame_equal(again, splits)


def test_a_given_test_set_takes_the_place_of_the_one_that_was_dealt(
    labels_of, pairs_of, quarantine_of
) -> None:
    """Else its numbers are of two test sets; and what was test before is not trained on."""
    dealt = Snapshot(_many(labels_of, 40), pairs_of(), quarantine_of())
    before = dealt.split()
    test_before = set(before.loc[before["split"] == "test", "image_id"])
    tied = min(test_before)
    given_test = labels_of(*({"image_id": f"t{n}", "source": "folders:test"} for n in range(5)))
    both = replace(
        dealt,
        labels=pd.concat([dealt.labels, given_test], ignore_index=True),
        pairs=pairs_of((tied, "t0")),
    )
    params = SplitParams(official_test=True)
    ledger = recorded((dealt, before))
    splits = both.split(ledger, params=params).set_index("image_id")
    assert set(splits.index[splits["split"] == "test"]) == {f"t{n}" for n in range(5)}
    kept_out = splits.loc[sorted(test_before - {tied})]
    assert kept_out["split"].isna().all()
    assert set(kept_out["reason"]) == {
        "kept out: it was test before the given test set was asked for, and is not in it"
    }
    assert splits.at[tied, "reason"].endswith("it is not in the given test set")
    others = splits.loc[sorted(set(before["image_id"]) - test_before), "split"]
    assert (others == before.set_index("image_id").loc[others.index, "split"]).all()
    later = recorded((dealt, before), (both, splits.reset_index()))
    without = both.split(later).set_index("image_id")["split"]
    assert (without[sorted(test_before)] == "test").all()


def test_what_one_copy_of_a_file_belongs_to_counts_for_all(
    labels_of, pairs_of, quarantine_of
) -> None:
    """Otherwise the copy without ids is recorded first and drags the other one in later."""
    old = labels_of({"image_id": "a", "lesion_id": "L"}, {"image_id": "b", "patient_id": "P"})
    ledger = Ledger(old.assign(part=["train", "test"])[list(LEDGER_COLUMNS)])
    copies = labels_of(
        {"image_id": "c", "sha256": "copied"},
        {"image_id": "d", "sha256": "copied", "lesion_id": "L", "patient_id": "P"},
    )
    labels = pd.concat([old, copies], ignore_index=True)
    splits = Snapshot(labels, pairs_of(), quarantine_of()).split(ledger)
    assert splits["split"].fillna("left out").tolist() == [*["left out", "test"], *["left out"] * 2]


@COMMON
@given(snapshots(), st.data())
def test_recording_a_split_changes_nothing_of_what_is_said_of_changed_files(snapshot, data) -> None:
    saved_anew = data.draw(st.sets(st.sampled_from(snapshot.labels["image_id"].tolist())))
    labels = snapshot.labels.copy()
    chosen = labels["image_id"].isin(saved_anew) & labels["sha256"].notna()
    labels.loc[chosen, "sha256"] = "saved anew: " + labels.loc[chosen, "sha256"]
    second = replace(snapshot, labels=labels)
    ledger = recorded((snapshot, snapshot.split()))
    found = ledger.dealt_anew(labels)
    assert set(found) <= set(labels["image_id"][chosen])
    after = recorded((snapshot, snapshot.split()), (second, second.split(ledger)))
    assert after.dealt_anew(labels) == found


def test_a_given_test_set_that_was_trained_on_is_refused(
    labels_of, pairs_of, quarantine_of
) -> None:
    labels = _many(labels_of, 20, source="folders:test")
    snapshot = Snapshot(labels, pairs_of(), quarantine_of())
    ledger = recorded((snapshot, snapshot.split()))
    with pytest.raises(SplitError, match="17 images of the given test set were trained"):
        snapshot.split(ledger, params=SplitParams(official_test=True))


def test_a_given_test_set_that_no_source_has_is_refused(labels_of, pairs_of, quarantine_of) -> None:
    snapshot = Snapshot(_many(labels_of, 5), pairs_of(), quarantine_of())
    with pytest.raises(SplitError, match="no source has a test set"):
        snapshot.split(params=SplitParams(official_test=True))


def test_a_part_without_images_is_refused_with_the_numbers(
    labels_of, pairs_of, quarantine_of
) -> None:
    labels = _many(labels_of, 2)
    splits = Snapshot(labels, pairs_of(), quarantine_of()).split()
    with pytest.raises(
        SplitError, match=r"validation and test part would be empty: nv has 2 train"
    ):
        check_parts(splits, labels, ["nv"], SHARES)


def test_a_class_that_is_too_small_is_refused_by_name(labels_of, pairs_of, quarantine_of) -> None:
    labels = pd.concat(
        [_many(labels_of, 20), labels_of({"image_id": "m", "diagnosis": "mel"})], ignore_index=True
    )
    splits = Snapshot(labels, pairs_of(), quarantine_of()).split()
    with pytest.raises(
        SplitError, match=r"too few groups.* of mel .*1 train, 0 validation, 0 test"
    ):
        check_parts(splits, labels, ["nv", "mel"], SHARES)


def test_more_folds_than_groups_are_refused(labels_of, pairs_of, quarantine_of) -> None:
    labels = _many(labels_of, 5)
    params = SplitParams(folds=5)
    splits = Snapshot(labels, pairs_of(), quarantine_of()).split(params=params)
    with pytest.raises(SplitError, match=r"nv has 4 groups outside test, fewer than the 5 folds"):
        check_parts(splits, labels, ["nv"], params)


def test_a_fold_without_a_class_is_refused(labels_of, pairs_of, quarantine_of) -> None:
    """Rarer diagnoses in the same groups may have decided where all of a class went."""
    labels = _many(labels_of, 20)
    params = SplitParams(folds=2)
    splits = Snapshot(labels, pairs_of(), quarantine_of()).split(params=params)
    check_parts(splits, labels, ["nv"], params)
    splits.loc[splits["fold"].notna(), "fold"] = 0
    with pytest.raises(SplitError, match=r"nv is in only 1 of the 2 folds"):
        check_parts(splits, labels, ["nv"], params)
