"""The same spot photographed again: searched for among all pairs of pictures.

1. Keypoints of each picture. 2. Candidates: pairs whose keypoints vote for each other. 3. One
movement (shift, turn, zoom) that explains many of the keypoints. 4. Likeness of the skin where one
picture lies on the other.

What was found out about a picture (1) or a pair (3, 4) is kept by content. Candidates (2) depend
on the whole set, for any picture may be among another's nearest; when pictures are added, only
what they can change is searched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.dataset.candidates import find_candidates
from components.dataset.content_cache import ContentCache
from components.dataset.decode import UndecodableImage
from components.dataset.files import changed, read_measured
from components.dataset.geometry import GEOMETRY_VERSION, Alignment, align
from components.dataset.keypoints import (
    KeypointFiles,
    Keypoints,
    find_keypoints,
    grey_picture,
    keypoints_version,
)
from components.dataset.last_search import LAST_SEARCH, SHARED_KEYPOINTS
from components.dataset.likeness import LIKENESS_VERSION, likeness
from components.dataset.neighbours import find_neighbours
from components.dataset.originals import Original
from components.dataset.workers import ProgressPrinter, Workers
from components.left_behind import temporary_folder

KEYPOINT_CACHE, PAIR_CACHE = "keypoints.sqlite", "pairs.sqlite"

MIN_INLIERS = 5
"""Keypoints that must agree before likeness is looked at."""
_BATCH = 500
_CHUNK = 16


@dataclass(frozen=True)
class Picture:
    """One image file; pictures with the same `lesion` are not compared."""

    image_id: str
    file: Original
    sha256: str
    lesion: str | None
    source: str


@dataclass(frozen=True)
class Verdict:
    """What was found out about a pair.

    Attributes
    ----------
    inliers
        Keypoints that one movement explains.
    likeness
        Of the skin, from -1 to 1; 0 where there are too few inliers to look.
    """

    inliers: int
    likeness: float

    @property
    def evidence(self) -> float:
        """How much speaks for the same spot: any two matches agree, and a third one may."""
        return (self.inliers - 3) * self.likeness


def compare_all(pictures: Sequence[Picture], cache: Path) -> dict[tuple[str, str], Verdict]:
    """Compare all pairs of pictures that share keypoints.

    Parameters
    ----------
    pictures
        Different files that decode.
    cache
        Folder of caches.

    Returns
    -------
    dict
        Image ids, the smaller one first -> verdict. Pairs that share no keypoints are left out.

    Raises
    ------
    SourceError
        A file changed since it was measured.
    """
    # By content: neither names nor the order of the rows make a difference.
    ordered = sorted(pictures, key=lambda picture: picture.sha256)
    cache.mkdir(parents=True, exist_ok=True)
    with Workers() as workers, temporary_folder(SHARED_KEYPOINTS, cache) as folder:
        files = _collect_keypoints(ordered, cache, folder, workers)
        pairs = _candidates(files, ordered, cache, workers)
        verdicts = _judge(pairs, ordered, files, cache, workers)
    found = {}
    for (a, b), verdict in verdicts.items():
        low, high = sorted((ordered[a].image_id, ordered[b].image_id))
        found[low, high] = verdict
    return found


def _candidates(
    files: KeypointFiles, pictures: Sequence[Picture], cache: Path, workers: Workers
) -> list[tuple[int, int]]:
    if files.num_keypoints == 0:
        return []
    neighbours = find_neighbours(
        files,
        [picture.sha256 for picture in pictures],
        [picture.source for picture in pictures],
        cache / LAST_SEARCH,
        workers,
    )
    return [(int(a), int(b)) for a, b in find_candidates(files, neighbours, _lesions(pictures))]


def _lesions(pictures: Sequence[Picture]) -> npt.NDArray[np.int64]:
    numbers: dict[str, int] = {}
    return np.array(
        [
            -1 if picture.lesion is None else numbers.setdefault(picture.lesion, len(numbers))
            for picture in pictures
        ],
        dtype=np.int64,
    )


def _collect_keypoints(
    pictures: Sequence[Picture], cache: Path, folder: Path, workers: Workers
) -> KeypointFiles:
    """Find the keypoints that are not known yet, and bring all of them into shared files."""
    store = ContentCache(cache / KEYPOINT_CACHE, keypoints_version())
    sizes = store.sizes(picture.sha256 for picture in pictures)
    new = [picture for picture in pictures if picture.sha256 not in sizes]
    print(f"pairs: {len(pictures)} pictures, {len(new)} new", flush=True)
    progress = ProgressPrinter("keypoints", len(new), "images")
    unsaved: dict[str, bytes] = {}
    for picture, found in workers.map(picture_keypoints, new, chunk=_CHUNK):
        unsaved[picture.sha256] = found
        sizes[picture.sha256] = len(found)
        progress.add()
        if len(unsaved) >= _BATCH:
            store.put(unsaved)
            unsaved = {}
    if unsaved:
        store.put(unsaved)
    counts = [Keypoints.count_in(sizes[picture.sha256]) for picture in pictures]
    return KeypointFiles.write(folder, counts, _stored_keypoints(pictures, store))


def _stored_keypoints(pictures: Sequence[Picture], store: ContentCache) -> Iterator[Keypoints]:
    for start in range(0, len(pictures), _BATCH):
        batch = [picture.sha256 for picture in pictures[start : start + _BATCH]]
        values = store.get(batch)
        yield from (Keypoints.from_bytes(values[sha256]) for sha256 in batch)


def picture_keypoints(picture: Picture) -> bytes:
    """Return the packed keypoints of a picture (in a worker process)."""
    data = read_measured(picture.file, picture.sha256)
    try:
        return find_keypoints(data).to_bytes()
    except UndecodableImage as error:
        what = f"it was measured, and cannot be decoded: {error}"
        raise changed(picture.file, what) from error


def _judge(
    pairs: Sequence[tuple[int, int]],
    pictures: Sequence[Picture],
    files: KeypointFiles,
    cache: Path,
    workers: Workers,
) -> dict[tuple[int, int], Verdict]:
    version = f"{keypoints_version()}, geometry {GEOMETRY_VERSION}, likeness {LIKENESS_VERSION}"
    store = ContentCache(cache / PAIR_CACHE, version)
    keys = {pair: f"{pictures[pair[0]].sha256} {pictures[pair[1]].sha256}" for pair in pairs}
    known = store.get(keys.values())
    verdicts = {
        pair: Verdict(*json.loads(known[key])) for pair, key in keys.items() if key in known
    }
    new = [pair for pair in pairs if pair not in verdicts]
    print(f"pairs: {len(pairs)} candidates, {len(new)} new", flush=True)
    progress = ProgressPrinter("compare", len(new), "pairs")
    tasks = [
        (files, [(a, b, pictures[a], pictures[b]) for a, b in new[start : start + _BATCH]])
        for start in range(0, len(new), _BATCH)
    ]
    for (_, compared), found in workers.map(judge_pairs, tasks):
        judged = {(a, b): verdict for (a, b, *_), verdict in zip(compared, found, strict=True)}
        verdicts |= judged
        store.put(
            {
                keys[pair]: json.dumps([verdict.inliers, verdict.likeness]).encode()
                for pair, verdict in judged.items()
            }
        )
        progress.add(len(compared))
    return verdicts


def judge_pairs(
    task: tuple[KeypointFiles, list[tuple[int, int, Picture, Picture]]],
) -> list[Verdict]:
    """Compare some pairs (in a worker process)."""
    files, pairs = task
    return [_verdict(align(files.read(a), files.read(b)), one, other) for a, b, one, other in pairs]


def _verdict(found: Alignment, one: Picture, other: Picture) -> Verdict:
    if found.inliers < MIN_INLIERS:
        return Verdict(found.inliers, 0.0)
    grey = grey_picture(read_measured(one.file, one.sha256))
    other_grey = grey_picture(read_measured(other.file, other.sha256))
    return Verdict(found.inliers, round(likeness(grey, other_grey, found), 4))
