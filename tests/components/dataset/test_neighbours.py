"""The search for neighbours: exact, and when pictures are added the same as from nothing."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.dataset.candidates import MIN_VOTES, find_candidates
from components.dataset.keypoints import UNIT, KeypointFiles, Keypoints
from components.dataset.last_search import NUM_NEIGHBOURS, Neighbours, forget_search, recall
from components.dataset.neighbours import find_neighbours, largest_sources, nearest_pictures
from components.dataset.workers import Workers
from components.errors import ResourceError

Pictures = dict[str, npt.NDArray[np.uint8]]


def name(number: int) -> str:
    return f"{number:064x}"


def random_pictures(count: int, seed: int = 0, *, alike: bool = False) -> Pictures:
    """Return descriptors by name; where they are `alike`, many products are equal."""
    rng = np.random.default_rng(seed)
    kinds = rng.random((6 if alike else 60, 128))
    found = {}
    for number in range(count):
        chosen = kinds[rng.integers(0, len(kinds), int(rng.integers(0, 12)))]
        values = chosen + rng.random(chosen.shape) * (0 if alike else 0.3)
        length = np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)
        found[name(number)] = np.rint(np.minimum(UNIT * values / length, 255)).astype(np.uint8)
    return found


class Searcher:
    """Searches with one set of processes; each search has its own folder, or goes on in one."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers

    def __call__(
        self, pictures: Pictures, memory: Path, sources: dict[str, str] | None = None
    ) -> Neighbours:
        with tempfile.TemporaryDirectory(dir=memory.parent) as folder:
            hashes, files = written(pictures, Path(folder))
            named = [(sources or {}).get(each, "first") for each in hashes]
            return find_neighbours(files, hashes, named, memory, self.workers)


def written(pictures: Pictures, folder: Path) -> tuple[list[str], KeypointFiles]:
    hashes = sorted(pictures)
    keypoints = [
        Keypoints(np.zeros((len(pictures[each]), 4), np.float32), pictures[each]) for each in hashes
    ]
    return hashes, KeypointFiles.write(folder, [len(each.points) for each in keypoints], keypoints)


@pytest.fixture(scope="module")
def search() -> Iterator[Searcher]:
    with Workers(2) as workers:
        yield Searcher(workers)


def equal(one: Neighbours, other: Neighbours) -> bool:
    return all(
        np.array_equal(getattr(one, part), getattr(other, part))
        for part in ("probes", "products", "pictures")
    )


def test_in_one_cell_the_nearest_pictures_are_those_of_a_full_search(
    search: Searcher, tmp_path: Path
) -> None:
    pictures = {each: rows for each, rows in random_pictures(20).items() if len(rows)}
    found = search(pictures, tmp_path / "memory.npz")
    assert found.probes.max() == 0  # so few keypoints are one cell
    rows = np.concatenate(list(pictures.values())).astype(int)
    owner = np.repeat(np.arange(len(pictures)), [len(each) for each in pictures.values()])
    products = rows @ rows.T
    counts = set()
    for number in range(len(rows)):
        best = sorted(
            (-products[number][owner == other].max(), other)
            for other in range(len(pictures))
            if other != owner[number]
        )[:NUM_NEIGHBOURS]
        near = [(-product, other) for product, other in best if -product >= 0.88 * UNIT**2]
        none = NUM_NEIGHBOURS - len(near)
        assert (
            found.products[number].tolist() == [product for product, _ in near] + [-np.inf] * none
        )
        assert found.pictures[number].tolist() == [other for _, other in near] + [-1] * none
        counts.add(none)
    assert counts == set(range(NUM_NEIGHBOURS + 1))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    alike=st.booleans(),
    late=st.sets(st.integers(0, 39), max_size=12),
    steps=st.integers(1, 3),
)
def test_pictures_that_are_added_change_what_a_search_from_nothing_would(
    search: Searcher, seed: int, alike: bool, late: set[int], steps: int
) -> None:
    """`alike`: equal products, where only the order of the pictures decides."""
    pictures = random_pictures(40, seed, alike=alike)
    sources = {name(number): "second" for number in late}
    sizes = {"first": 0, "second": 0}
    for each, rows in pictures.items():
        sizes[sources.get(each, "first")] += len(rows)
    order = [each for each in pictures if each not in sources] + [name(n) for n in sorted(late)]
    with tempfile.TemporaryDirectory() as folder:
        memory = Path(folder) / "memory.npz"
        for step in range(steps + 1):
            stop = len(order) - len(late) + len(late) * step // steps
            part = {each: pictures[each] for each in order[:stop]}
            if sum(map(len, part.values())):
                found = search(part, memory, sources)
        anew = search(pictures, Path(folder) / "anew.npz", sources)
    assert equal(found, anew)


def test_only_what_an_added_picture_can_change_is_searched(
    search: Searcher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = random_pictures(60)
    memory = tmp_path / "memory.npz"
    sources = {name(59): "second"}
    before = search({each: rows for each, rows in pictures.items() if each != name(59)}, memory)
    capsys.readouterr()
    after = search(pictures, memory, sources)
    assert "59 of 60 pictures searched before" in capsys.readouterr().out
    assert np.array_equal(after.probes[: len(before.probes)], before.probes)
    written_at = memory.stat().st_mtime_ns
    assert equal(search(pictures, memory, sources), after)
    assert memory.stat().st_mtime_ns == written_at


@pytest.mark.parametrize("gone", [name(3), name(59)], ids=["of the base", "of a later source"])
def test_when_a_picture_is_gone_all_is_searched_anew(
    search: Searcher, tmp_path: Path, capsys: pytest.CaptureFixture[str], gone: str
) -> None:
    pictures = random_pictures(60)
    sources = {name(59): "second"}
    search(pictures, tmp_path / "memory.npz", sources)
    left = {each: rows for each, rows in pictures.items() if each != gone}
    capsys.readouterr()
    found = search(left, tmp_path / "memory.npz", sources)
    assert "0 of 59 pictures searched before" in capsys.readouterr().out
    assert equal(found, search(left, tmp_path / "anew.npz", sources))


def test_the_largest_sources_stay_when_others_are_added() -> None:
    sources, sizes = ["b", "a", "a", "c"], [5, 3, 3, 2]
    assert largest_sources(sources, np.array(sizes)).tolist() == [True, True, True, False]
    assert largest_sources(["x"] * 3, np.array([1, 2, 3])).all()
    big = largest_sources(["big", "late", "late"], np.array([10, 4, 5]))
    assert big.tolist() == [True, False, False]
    # More was added than there was.
    assert largest_sources(["big", "late"], np.array([10, 11])).tolist() == [False, True]
    # Of equal ones the first name; a half is enough.
    assert largest_sources(["b", "a"], np.array([7, 7])).tolist() == [False, True]
    assert largest_sources(["a", "b", "c"], np.array([4, 4, 3])).tolist() == [True, True, False]


def test_of_equal_products_the_earlier_picture_counts_and_each_picture_once() -> None:
    products = np.array([[5, 9, 9, 9, 7], [-np.inf, 0, -np.inf, -np.inf, -np.inf]], np.float32)
    pictures = np.array([[1, 8, 4, 4, 2], [-1, 3, -1, -1, -1]], np.int32)
    best, chosen = nearest_pictures(products, pictures)
    assert chosen.tolist() == [[4, 8, 2], [3, -1, -1]]
    assert best.tolist() == [[9, 9, 7], [0, -np.inf, -np.inf]]


def test_pairs_with_enough_votes_are_candidates_however_many_processes_search(
    tmp_path: Path,
) -> None:
    pictures = random_pictures(30)
    pictures[name(7)] = np.concatenate(list(pictures.values()))[:MIN_VOTES]
    pictures[name(21)] = pictures[name(7)]
    pictures[name(12)] = pictures[name(12)][:0]
    found = []
    for processes in (1, 3):
        folder = tmp_path / str(processes)
        folder.mkdir()
        hashes, files = written(pictures, folder)
        with Workers(processes) as workers:
            neighbours = find_neighbours(
                files, hashes, ["first"] * 30, folder / "memory.npz", workers
            )
        found.append(find_candidates(files, neighbours, np.full(30, -1)))
    assert (found[0] == found[1]).all()
    assert [7, 21] in found[0].tolist()
    assert (found[0][:, 0] < found[0][:, 1]).all()
    assert 12 not in found[0]
    one_lesion = np.full(30, -1)
    one_lesion[[7, 21]] = 5
    assert [7, 21] not in find_candidates(files, neighbours, one_lesion).tolist()


def test_a_damaged_memory_is_one_clear_error(search: Searcher, tmp_path: Path) -> None:
    memory = tmp_path / "memory.npz"
    search(random_pictures(20), memory)
    memory.write_bytes(memory.read_bytes()[:-200])
    with pytest.raises(ResourceError, match="the cache cannot be used") as error:
        search(random_pictures(20), memory)
    assert "delete the file" in str(error.value)


KILLED = """
import os, signal, sys
from pathlib import Path
from components.atomic import atomic_path
with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"descriptors")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_goes_with_the_next_search(
    search: Searcher, tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "memory.npz")], check=False)
    assert list(tmp_path.glob(".memory.npz.*"))
    search(random_pictures(20), tmp_path / "memory.npz")
    assert list(tmp_path.iterdir()) == [tmp_path / "memory.npz"]


def test_a_search_of_another_version_is_not_seen(search: Searcher, tmp_path: Path) -> None:
    search(random_pictures(20), tmp_path / "memory.npz")
    assert recall(tmp_path / "memory.npz", "another") is None


def test_what_knows_a_withdrawn_picture_is_forgotten(search: Searcher, tmp_path: Path) -> None:
    memory = tmp_path / "memory.npz"
    assert not forget_search(memory, {name(4)})
    search(random_pictures(20), memory)
    assert not forget_search(memory, {name(20)})
    assert memory.exists()
    assert forget_search(memory, {name(4)})
    assert not memory.exists()
    memory.write_bytes(b"damaged")
    assert forget_search(memory, {name(4)})
    assert not memory.exists()
