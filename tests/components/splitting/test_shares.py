"""How near the shares come when groups have several images, of one diagnosis or of more.

What is dealt are groups, each for the rarest of its diagnoses. So shares hold for groups, as far
as a number of groups can; of images nothing is promised: a group is never cut to fit.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from components.splitting.assign import assign
from components.splitting.config import SplitParams
from components.splitting.ledger import Ledger, append, read_ledger
from components.tables import LABEL_COLUMNS, PAIR_COLUMNS, PARTS, QUARANTINE_COLUMNS

CLASSES = ("mel", "nv", "vasc")
COMMON = settings(deadline=None, max_examples=30)
Group = tuple[tuple[str, bool], ...]
"""Of each image its diagnosis and whether it is usable."""


@dataclass(frozen=True)
class Snapshot:
    """Groups of images, each held together by lesions and pairs in turns."""

    groups: tuple[Group, ...]

    def split(self, params: SplitParams, ledger: Ledger | None = None, seed: int = 0) -> pd.Series:
        """Return image id -> part; None for an image that is left out."""
        splits = assign(
            self.labels(),
            pd.DataFrame(self._pairs(), columns=list(PAIR_COLUMNS)),
            pd.DataFrame(
                [(name, "too dark") for name, _, usable in self._images() if not usable],
                columns=list(QUARANTINE_COLUMNS),
            ),
            ledger or Ledger.empty(),
            params,
            seed=seed,
        )
        return splits.set_index("image_id")["split"]

    def labels(self) -> pd.DataFrame:
        rows = [
            {"image_id": name, "diagnosis": diagnosis, "lesion_id": self._lesion(name)}
            | {"source": "some", "sha256": f"bytes of {name}"}
            for name, diagnosis, _ in self._images()
        ]
        return pd.DataFrame(rows, columns=list(LABEL_COLUMNS)).astype(object)

    def _images(self) -> list[tuple[str, str, bool]]:
        return [
            (f"g{number:02d}-{image}", diagnosis, usable)
            for number, group in enumerate(self.groups)
            for image, (diagnosis, usable) in enumerate(group)
        ]

    def _lesion(self, name: str) -> str:
        """Two images have one lesion; the next two are tied to them by a pair."""
        group, image = name.split("-")
        return f"L{group}-{int(image) // 2}"

    def _pairs(self) -> list[tuple[str, str, str, float, int]]:
        return [
            (f"g{number:02d}-{image - 1}", f"g{number:02d}-{image}", "same spot", 0.9, 40)
            for number, group in enumerate(self.groups)
            for image in range(2, len(group), 2)
        ]

    def strata(self) -> dict[int, str]:
        """Return the diagnosis that each group counts for, by the words of docs/splits.md."""
        found = {
            number: {diagnosis for diagnosis, usable in group if usable}
            for number, group in enumerate(self.groups)
        }
        num_groups = Counter(name for names in found.values() for name in names)
        return {
            number: min(names, key=lambda name: (num_groups[name], name))
            for number, names in found.items()
            if names
        }


@st.composite
def snapshots(draw: st.DrawFn, max_groups: int = 30) -> Snapshot:
    image = st.tuples(st.sampled_from(CLASSES), st.sampled_from((True,) * 7 + (False,)))
    group = st.lists(image, min_size=1, max_size=7).map(tuple)
    pure = st.tuples(image, st.integers(1, 7)).map(lambda drawn: (drawn[0],) * drawn[1])
    groups = st.lists(st.one_of(pure, pure, group), min_size=1, max_size=max_groups)
    return Snapshot(tuple(draw(groups)))


@st.composite
def shares(draw: st.DrawFn) -> SplitParams:
    """Any shares of which the smallest is no dust."""
    weights = draw(st.tuples(*[st.integers(1, 20)] * 3))
    train, validation, _ = (weight / sum(weights) for weight in weights)
    return SplitParams(train=train, validation=validation, test=1 - train - validation)


def part_of_groups(parts: pd.Series) -> dict[int, str]:
    """Return group -> its part; no group is in two."""
    placed = parts.dropna()
    numbers = placed.index.str.slice(1, 3).astype(int)
    assert (placed.groupby(numbers).nunique() == 1).all()
    return placed.groupby(numbers).first().to_dict()


def counted(part_of: dict[int, str], strata: dict[int, str], diagnosis: str) -> dict[str, int]:
    found = Counter(part_of[number] for number, own in strata.items() if own == diagnosis)
    return {part: found[part] for part in PARTS}


@COMMON
@given(snapshots(), st.one_of(st.just(SplitParams()), shares()), st.integers(0, 5))
def test_of_each_diagnosis_the_groups_that_count_for_it_are_within_one_of_the_shares(
    snapshot, params, seed
) -> None:
    """Unless a part would stay empty: then it has one group, and each other part its share less
    what the empty ones took."""
    part_of, strata = part_of_groups(snapshot.split(params, seed=seed)), snapshot.strata()
    assert set(part_of) == set(strata)
    for diagnosis in set(strata.values()):
        counts = counted(part_of, strata, diagnosis)
        total = sum(counts.values())
        wanted = {part: share * total for part, share in params.shares().items()}
        if total >= len(PARTS):
            assert min(counts.values()) >= 1
        if total < len(PARTS) or min(wanted.values()) >= 1:
            assert all(abs(counts[part] - wanted[part]) <= 1 + 1e-9 for part in PARTS)
        assert all(counts[part] <= max(1, wanted[part] + 1) + 1e-9 for part in PARTS)


@COMMON
@given(snapshots(), st.data())
def test_how_many_images_a_group_has_moves_no_group(snapshot, data) -> None:
    """A lesion that was photographed again is no reason to deal anew."""
    usable = Snapshot(tuple(tuple((own, True) for own, _ in group) for group in snapshot.groups))
    count = len(usable.groups)
    again = data.draw(st.lists(st.integers(0, 5), min_size=count, max_size=count))
    larger = replace(
        usable,
        groups=tuple(
            group + (group[-1],) * more for group, more in zip(usable.groups, again, strict=True)
        ),
    )
    params = SplitParams()
    assert part_of_groups(larger.split(params)) == part_of_groups(usable.split(params))


@COMMON
@given(snapshots(), st.one_of(st.just(SplitParams()), shares()), st.data())
def test_growth_gives_no_part_more_than_its_share_of_what_is_new(snapshot, params, data) -> None:
    """A part that had too many groups keeps them, and is dealt no other one."""
    assume(len(snapshot.groups) > 1)
    old = Snapshot(snapshot.groups[: data.draw(st.integers(1, len(snapshot.groups) - 1))])
    first = old.split(params)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.csv"
        append(path, first.rename("split").reset_index(), old.labels())
        second = snapshot.split(params, read_ledger(path), seed=1)
    before, part_of, strata = part_of_groups(first), part_of_groups(second), snapshot.strata()
    assert before == {number: part_of[number] for number in before}
    for diagnosis in set(strata.values()):
        counts = counted(part_of, strata, diagnosis)
        total = sum(counts.values())
        known = Counter(before.get(number) for number, own in strata.items() if own == diagnosis)
        for part, share in params.shares().items():
            if counts[part] > known[part] + 1:  # the first one may be there to fill an empty part
                assert counts[part] <= share * total + 1 + 1e-9
        if total - sum(known[part] for part in PARTS) >= len(PARTS):
            assert min(counts.values()) >= 1
