"""The split: a pure function of labels, pairs, quarantine, ledger, params and seed.

1. Groups are made of all images, quarantined ones too (`groups.py`).
2. A group that the ledger knows keeps its part. Where new data ties groups of different parts
   together, test wins over validation over training; what would have to move is left out.
   A given test set takes the place of one that was dealt: that one is kept out, too.
3. New groups are dealt per diagnosis, in the order of a keyed hash of their name, by systematic
   sampling, so that the shares (counted in groups) are as near as the known ones allow. From
   three groups of a diagnosis on, each part gets at least one.
4. Quarantined images have no part, but a reason. A group with nothing else in it is not dealt.

A group with several diagnoses counts for the rarest of them (fewest groups, then by name): rare
ones are those whose shares matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from components.errors import SplitError
from components.splitting.config import SplitParams
from components.splitting.groups import clean_ids, connect, name_groups
from components.splitting.ledger import PART_OF_STRENGTH, STRENGTH, Ledger
from components.tables import PARTS, SPLIT_COLUMNS

OFFICIAL_TEST_SUFFIX = ":test"
_LEFT_OUT = "left out: "
_REPLACED = "kept out: it was test before the given test set was asked for, and is not in it"


def assign(
    labels: pd.DataFrame,
    pairs: pd.DataFrame,
    quarantine: pd.DataFrame,
    ledger: Ledger,
    params: SplitParams,
    *,
    seed: int,
) -> pd.DataFrame:
    """Divide the images of `labels` into train, validation and test.

    Parameters
    ----------
    labels
        One row per image (`LABEL_COLUMNS`).
    pairs
        Near-duplicates; every row joins two groups.
    quarantine
        Images that take no part, with the reason (`image_id`, `reason`).
    ledger
        What earlier runs fixed.
    params
        Shares, number of folds, whether a given test set is kept.
    seed
        Key of the hash that orders new groups; it moves nothing that the ledger knows.

    Returns
    -------
    DataFrame with `SPLIT_COLUMNS`, one row per row of `labels`, sorted by `image_id`. `split` is
    null for what is left out, `reason` says why. With folds, `fold` (0 … k-1) is set for all of
    train and validation, and `split` is what it is without folds.

    Raises
    ------
    SplitError
        The given test set is wanted but no source has one, or it was trained on before.
    """
    images = labels.sort_values("image_id", ignore_index=True)
    component = pd.Series(connect(images, pairs))
    official = _official_test(images, params)
    claims = _claims(images, ledger, official)
    own, kept = claims["weakest"], claims["strongest"].groupby(component).transform("max")
    beside_official = ~official & official.groupby(component).transform("any")
    tied = (own.notna() & (own != kept)) | beside_official
    replaced = _test_before(kept, official, component)
    reasons = quarantine.set_index("image_id")["reason"].astype(object)
    quarantined = images["image_id"].map(reasons).astype(object)
    usable = quarantined.isna() & ~tied & ~replaced
    names = name_groups(images, component.to_numpy(), usable=usable, first_seen=ledger.first_seen())
    stratum = _strata(names[usable], images.loc[usable, "diagnosis"].astype(str))
    stays = usable & kept.notna()
    part_of = dict(zip(names[stays], kept[stays].map(PART_OF_STRENGTH), strict=True))
    part_of |= _deal(stratum, part_of, params.shares(), seed)
    fold_of = _folds(stratum, part_of, params.folds, seed)
    images["group_id"] = names
    images["split"] = [
        part_of[name] if use else None for name, use in zip(names, usable, strict=True)
    ]
    in_folds = images["split"].isin(("train", "validation"))
    images["fold"] = names.map(fold_of).where(in_folds).astype("Int64")
    images["reason"] = [
        _reason(*row) for row in zip(quarantined, replaced, tied, names, own, kept, strict=True)
    ]
    text = dict.fromkeys(("image_id", "group_id", "split", "reason"), "str")
    return images[list(SPLIT_COLUMNS)].astype(text)


def _official_test(images: pd.DataFrame, params: SplitParams) -> pd.Series:
    """Return which images are the given test set that params ask to keep."""
    if not params.official_test:
        return pd.Series(False, index=images.index)
    official = images["source"].astype(str).str.endswith(OFFICIAL_TEST_SUFFIX)
    if not official.any():
        raise SplitError(
            "no source has a test set of its own",
            where=f"split.official_test in params.yaml; sources: "
            f"{', '.join(sorted(images['source'].astype(str).unique()))}",
            fix="turn split.official_test off, or use a source that is marked as a test set",
        )
    return official


def _claims(images: pd.DataFrame, ledger: Ledger, official: pd.Series) -> pd.DataFrame:
    """Return the parts that each image belongs to: the ledger's, or the given test set.

    Copies of one file are one picture: what one of them belongs to counts for all.
    """
    claims = ledger.claims(images)
    same_bytes = claims.groupby(clean_ids(images["sha256"]))
    claims["weakest"] = same_bytes["weakest"].transform("min").fillna(claims["weakest"])
    claims["strongest"] = same_bytes["strongest"].transform("max").fillna(claims["strongest"])
    trained_on = images[official & (claims["weakest"] < STRENGTH["test"])]
    if len(trained_on):
        raise SplitError(
            f"{len(trained_on)} images of the given test set were trained or selected on before, "
            f"such as {trained_on['image_id'].iloc[0]}",
            where="data/split_ledger.csv and split.official_test in params.yaml",
            fix="turn split.official_test off; or start anew with an empty ledger and another "
            "registry.model_name",
        )
    return claims.where(~official, STRENGTH["test"])


def _test_before(kept: pd.Series, official: pd.Series, component: pd.Series) -> pd.Series:
    """Return what an earlier split dealt to test, where now a given test set is all of test.

    Nobody may train on it: a split without the given set would have it in test again.
    """
    if not official.any():
        return official
    return (kept == STRENGTH["test"]) & ~official.groupby(component).transform("any")


def _reason(
    quarantined: str | float | None,
    replaced: bool,
    tied: bool,
    group: str,
    own: float,
    kept: float,
) -> str | None:
    """Return why an image takes no part, or None."""
    reasons = [] if pd.isna(quarantined) else [f"quarantined: {quarantined}"]
    if replaced:
        reasons.append(_REPLACED)
    if tied:
        belongs = (
            "it is not in the given test set"
            if np.isnan(own) or own == kept
            else f"it belongs to {PART_OF_STRENGTH[own]}"
        )
        reasons.append(f"{_LEFT_OUT}group {group} ties it to {PART_OF_STRENGTH[kept]}, {belongs}")
    return "; ".join(reasons) or None


def _strata(names: pd.Series, diagnosis: pd.Series) -> pd.Series:
    """Return the diagnosis that each usable group counts for, indexed by group."""
    present = pd.DataFrame({"group_id": names, "diagnosis": diagnosis}).drop_duplicates()
    present["num_groups"] = present["diagnosis"].map(present["diagnosis"].value_counts())
    ordered = present.sort_values(["num_groups", "diagnosis", "group_id"])
    return ordered.drop_duplicates("group_id").set_index("group_id")["diagnosis"].sort_index()


def _in_hash_order(groups: Sequence[str], seed: int) -> list[str]:
    """Sort `groups` by a hash that `seed` keys: random, yet the same in any company."""
    key = str(seed).encode()
    return sorted(
        groups, key=lambda name: hashlib.blake2b(name.encode(), key=key, digest_size=16).digest()
    )


def _deal(
    stratum: pd.Series, known: Mapping[str, str], shares: Mapping[str, float], seed: int
) -> dict[str, str]:
    """Return a part for every group of `stratum` that is not `known`."""
    dealt: dict[str, str] = {}
    for _, groups in stratum.groupby(stratum):
        names = [str(name) for name in groups.index]
        new = _in_hash_order([name for name in names if name not in known], seed)
        before = {part: sum(known.get(name) == part for name in names) for part in shares}
        quotas = apportion(before, len(new), shares)
        dealt |= dict(zip(new, _spread(quotas, len(new)), strict=True))
    return dealt


def apportion(
    before: Mapping[str, int], num_new: int, shares: Mapping[str, float]
) -> dict[str, int]:
    """Return how many of `num_new` groups each part gets, given those that it has `before`.

    The next group always goes to the part that lacks most. Without groups from before, each part
    ends within one group of its share; with them, as near as can be without moving any. When
    there are at least as many groups as parts, no part stays empty if that can be helped.
    """
    total = sum(before.values()) + num_new
    count = dict(before)

    def lack(part: str) -> tuple[float, int]:
        return round(shares[part] * total - count[part], 9), STRENGTH[part]

    for _ in range(num_new):
        empty = [part for part in shares if count[part] == 0 and total >= len(shares)]
        num_left = total - sum(count.values())
        must_fill = empty and num_left <= len(empty)
        count[max(empty if must_fill else shares, key=lack)] += 1
    return {part: count[part] - before[part] for part in shares}


def _spread(quotas: Mapping[str, int], num_new: int) -> list[str]:
    """Return `num_new` parts in which each part stands at even distances (systematic sampling)."""
    given = dict.fromkeys(quotas, 0)
    sequence = []
    for position in range(1, num_new + 1):
        open_parts = [part for part in quotas if given[part] < quotas[part]]
        part = max(
            open_parts,
            key=lambda name: (quotas[name] * position - given[name] * num_new, STRENGTH[name]),
        )
        given[part] += 1
        sequence.append(part)
    return sequence


def _folds(
    stratum: pd.Series, part_of: Mapping[str, str], num_folds: int, seed: int
) -> dict[str, int]:
    """Return the fold of every group outside test; each diagnosis goes round the folds."""
    folds: dict[str, int] = {}
    if num_folds:
        for _, groups in stratum.groupby(stratum):
            rest = [str(name) for name in groups.index if part_of[str(name)] != "test"]
            for name in _in_hash_order(rest, seed):
                folds[name] = len(folds) % num_folds
    return folds


def check_left_out(splits: pd.DataFrame, params: SplitParams) -> None:
    """Make sure that ties leave out few images: else a wrong tie leaves a remnant to train on.

    Parameters
    ----------
    splits
        What `assign` returned; quarantined images do not count.

    Raises
    ------
    SplitError
        More than `max_left_out_share` are left out.
    """
    reasons = splits["reason"].fillna("").astype(str)
    tied = splits[reasons.str.startswith(_LEFT_OUT)]
    num_usable = len(tied) + int(splits["split"].notna().sum())
    if len(tied) > params.max_left_out_share * num_usable:
        first = tied.iloc[0]
        raise SplitError(
            f"{len(tied)} of {num_usable} images would be left out (at most "
            f"{params.max_left_out_share:.0%}), such as {first['image_id']}: {first['reason']}",
            where="split.max_left_out_share in params.yaml",
            fix="look for what ties so many groups together: lesion and patient ids in "
            "data/raw/labels.parquet, data/pairs.parquet (a higher pairs.min_evidence); if all "
            "is right, raise the share",
        )


def check_parts(
    splits: pd.DataFrame, labels: pd.DataFrame, classes: Sequence[str], params: SplitParams
) -> None:
    """Make sure that every part, and every fold, can be trained on or judged by.

    Raises
    ------
    SplitError
        A part is empty, or lacks a class of the recipe altogether (a given test set may lack
        one), or a class is not in every fold.
    """
    table = labels[["image_id", "diagnosis"]].merge(splits, on="image_id")
    table = table[table["split"].notna()].astype({"diagnosis": str})
    groups = table.groupby(["diagnosis", "split"])["group_id"].nunique()
    counts = groups.unstack(fill_value=0).reindex(index=list(classes), columns=PARTS, fill_value=0)
    empty = [part for part in PARTS if counts[part].sum() == 0]
    if empty:
        raise SplitError(
            f"the {' and '.join(empty)} part would be empty: {_counted(counts)}",
            where="the split of data/raw/labels.parquet",
            fix="add images of more lesions or patients, or look in data/quarantine.parquet for "
            "why so few are left",
        )
    dealt = counts[list(params.shares())]
    small = dealt[(dealt == 0).any(axis=1)]
    if len(small):
        raise SplitError(
            f"too few groups (lesions or patients) of {', '.join(small.index)} to have some in "
            f"every part: {_counted(counts.loc[small.index])}",
            where="the split of data/raw/labels.parquet",
            fix=f"a diagnosis needs at least {len(PARTS)} groups: add images, or take the class "
            "out of diagnoses.classes",
        )
    outside = counts[["train", "validation"]].sum(axis=1)
    if params.folds and outside.min() < params.folds:
        raise SplitError(
            f"{outside.idxmin()} has {outside.min()} groups outside test, fewer than the "
            f"{params.folds} folds",
            where="split.folds in params.yaml",
            fix=f"set split.folds to {outside.min()} or less",
        )
    in_fold = table.groupby("diagnosis")["fold"].nunique().reindex(list(classes), fill_value=0)
    if params.folds and in_fold.min() < params.folds:
        raise SplitError(
            f"{in_fold.idxmin()} is in only {in_fold.min()} of the {params.folds} folds: rarer "
            "diagnoses in the same groups decided where those go",
            where="split.folds in params.yaml",
            fix="set split.folds to a smaller number, or another seed",
        )


def _counted(counts: pd.DataFrame) -> str:
    return "; ".join(
        f"{name} has " + ", ".join(f"{row[part]} {part}" for part in PARTS)
        for name, row in counts.iterrows()
    )
