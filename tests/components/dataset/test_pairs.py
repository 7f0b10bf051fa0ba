"""Near-duplicates: the same spot is found however it was photographed, look-alikes stay apart."""

from __future__ import annotations

import hashlib
import io
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from components.dataset.cells import make_cells, nearest_cells
from components.dataset.config import PairsParams
from components.dataset.geometry import Alignment, align
from components.dataset.keypoints import Keypoints, find_keypoints, grey_picture
from components.dataset.likeness import likeness
from components.dataset.measure import measure_images
from components.dataset.pairs import find_pairs
from components.dataset.spots import Verdict
from components.errors import SourceError
from components.tables import PAIR_COLUMNS, write_table
from tests.originals import write_originals

PARAMS = PairsParams()


def skin(seed: int, width: int = 240, height: int = 180) -> Image.Image:
    """A picture with texture on all scales, and a dark spot in the middle as any lesion has."""
    rng = np.random.default_rng(seed)
    texture = np.zeros((height, width))
    for size in (2, 4, 8, 16, 32):
        coarse = rng.standard_normal((height // size + 3, width // size + 3))
        smooth = Image.fromarray(coarse.astype(np.float32)).resize(
            (width + 2 * size, height + 2 * size), Image.Resampling.BICUBIC
        )
        texture += np.asarray(smooth)[:height, :width] * size**0.5
    y, x = np.mgrid[:height, :width]
    spot = np.hypot((x - width / 2) / width, (y - height / 2) / height) < 0.22
    light = 170 + 7 * texture - 60 * spot
    colours = np.stack([light + 20, light - 20, light - 30], axis=2)
    return Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8))


def seen_again(
    image: Image.Image, turn: float = 25.0, zoom: float = 1.2, shift: float = 12.0
) -> Image.Image:
    """The same spot, shifted, zoomed, turned, in other light."""
    angle = np.deg2rad(turn)
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    x, y = image.width / 2, image.height / 2
    moved = image.transform(
        image.size,
        Image.Transform.AFFINE,
        (cos, sin, x - cos * x - sin * y + shift, -sin, cos, y + sin * x - cos * y + shift / 2),
        Image.Resampling.BICUBIC,
        fillcolor=(10, 10, 10),
    )
    return ImageEnhance.Brightness(ImageEnhance.Color(moved).enhance(0.6)).enhance(0.85)


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def png(image: Image.Image, level: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


# --- one pair ----------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 5),
    turn=st.floats(-180, 180),
    zoom=st.floats(0.6, 1.7),
    shift=st.floats(-20, 20),
)
def test_the_movement_between_two_pictures_is_found(
    seed: int, turn: float, zoom: float, shift: float
) -> None:
    first, second = jpeg(skin(seed)), jpeg(seen_again(skin(seed), turn, zoom, shift))
    found = align(find_keypoints(first), find_keypoints(second))
    assert found.inliers >= 15
    assert abs(found.factor) == pytest.approx(zoom, rel=0.03)
    difference = np.angle(found.factor) - np.deg2rad(turn)
    assert abs(np.angle(np.exp(1j * difference))) < 0.05
    assert likeness(grey_picture(first), grey_picture(second), found) > 0.3


def test_comparing_is_symmetric() -> None:
    first, second = find_keypoints(jpeg(skin(1))), find_keypoints(jpeg(seen_again(skin(1))))
    there, back = align(first, second), align(second, first)
    assert there.inliers == pytest.approx(back.inliers, rel=0.1)
    assert there.factor * back.factor == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_different_skin_with_the_same_kind_of_spot_is_not_alike(seed: int) -> None:
    first, second = jpeg(skin(seed)), jpeg(skin(seed + 100))
    assert align(find_keypoints(first), find_keypoints(second)).inliers <= 5
    assert abs(likeness(grey_picture(first), grey_picture(second), Alignment(9))) < 0.15


def test_agreeing_marks_do_not_make_different_skin_alike() -> None:
    """What a camera writes on every picture gives many inliers, and no likeness of the skin."""
    marks = Image.fromarray(np.random.default_rng(0).integers(0, 255, (3, 24), dtype=np.uint8))
    pictures = []
    for seed in (1, 2):
        picture = skin(seed)
        picture.paste(marks.resize((96, 12), Image.Resampling.BICUBIC), (20, 160))
        pictures.append(jpeg(picture))
    found = align(*(find_keypoints(data) for data in pictures))
    alike = likeness(*(grey_picture(data) for data in pictures), found)
    assert found.inliers >= 8
    assert Verdict(found.inliers, alike).evidence < PARAMS.min_evidence


def test_pictures_that_hardly_overlap_have_no_likeness() -> None:
    grey = grey_picture(jpeg(skin(1)))
    assert likeness(grey, grey, Alignment(9, 1 + 0j, 239 + 0j)) == 0
    assert likeness(grey, grey, Alignment(9)) == pytest.approx(1)


def test_a_blank_picture_has_no_keypoints_and_matches_nothing() -> None:
    blank = find_keypoints(jpeg(Image.new("RGB", (100, 80), "pink")))
    assert len(blank.points) == 0
    assert align(blank, find_keypoints(jpeg(skin(1)))) == Alignment(0)
    assert align(blank, blank) == Alignment(0)


def test_keypoints_survive_the_cache() -> None:
    found = find_keypoints(jpeg(skin(3)))
    again = Keypoints.from_bytes(found.to_bytes())
    assert (again.points == found.points).all()
    assert (again.descriptors == found.descriptors).all()
    assert Keypoints.count_in(len(found.to_bytes())) == len(found.points)


# --- cells -------------------------------------------------------------------------------------


def test_the_first_probe_is_the_nearest_cell_of_the_coarse_ones_looked_through() -> None:
    descriptors = np.concatenate([find_keypoints(jpeg(skin(n))).descriptors for n in range(12)])
    cells = make_cells(descriptors, len(descriptors))
    probes = nearest_cells(descriptors, cells)
    assert probes.shape == (len(descriptors), 3)
    centres = np.concatenate(cells.fine)
    distance = ((descriptors[:, None, :].astype(float) - centres) ** 2).sum(axis=2)
    assert (distance.argmin(axis=1) == probes[:, 0]).mean() > 0.9
    chosen = np.take_along_axis(distance, probes, axis=1)
    assert (np.diff(chosen, axis=1) >= 0).all()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_descriptors_make_few_cells(count: int) -> None:
    descriptors = find_keypoints(jpeg(skin(1))).descriptors[:count]
    probes = nearest_cells(descriptors, make_cells(descriptors, count))
    assert (probes[:, 0] == 0).all()
    assert (probes[:, 1:] == -1).all()


# --- the stage ---------------------------------------------------------------------------------


class Snapshot:
    """A folder of images with its tables."""

    def __init__(
        self, folder: Path, files: dict[str, bytes], lesions: dict[str, str], late: str = ""
    ) -> None:
        self.images, self.cache = folder / "images", folder / "cache"
        write_originals(self.images, files)
        ids = [Path(name).stem for name in files]
        hashes = [hashlib.sha256(data).hexdigest() for data in files.values()]
        lesion_ids = [lesions.get(image_id) for image_id in ids]
        columns = {"image_id": ids, "lesion_id": lesion_ids, "sha256": hashes}
        sources = ["second" if image_id == late else "first" for image_id in ids]
        self.labels = pd.DataFrame(columns | {"source": sources})
        self.quality = measure_images(self.labels, self.images, self.cache)

    def pairs(self, params: PairsParams = PARAMS) -> pd.DataFrame:
        return find_pairs(self.labels, self.quality, self.images, params, self.cache)


def evidence_of(pairs: pd.DataFrame) -> dict[tuple[str, str], str]:
    return {(row.image_id_a, row.image_id_b): row.evidence for row in pairs.itertuples(index=False)}


def mixed_files() -> dict[str, bytes]:
    """Twenty different spots, and four pictures of one of them each."""
    files = {f"s{number:02}.jpg": jpeg(skin(number)) for number in range(20)}
    return files | {
        "again.jpg": jpeg(seen_again(skin(3))),
        "copy.jpg": files["s05.jpg"],
        "pixels1.png": png(skin(40), 1),
        "pixels9.png": png(skin(40), 9),
        "broken.jpg": files["s07.jpg"][:4000],
        "blank.jpg": jpeg(Image.new("RGB", (64, 64), "pink")),
        "blank_too.jpg": jpeg(Image.new("RGB", (64, 64), "pink")),
        "blank1.png": png(Image.new("RGB", (64, 64), "pink"), 1),
        "blank9.png": png(Image.new("RGB", (64, 64), "pink"), 9),
        "small.jpg": jpeg(seen_again(skin(11), 170, 0.8).resize((120, 90))),
    }


EXPECTED = {
    ("again", "s03"): "same spot",
    ("copy", "s05"): "same bytes",
    ("pixels1", "pixels9"): "same pixels",
    ("s11", "small"): "same spot",
}


def test_every_kind_of_evidence_is_found_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    snapshot = Snapshot(tmp_path, mixed_files(), {"s03": "L1", "again": "L2"})
    pairs = snapshot.pairs()
    assert evidence_of(pairs) == EXPECTED
    assert tuple(pairs.columns) == PAIR_COLUMNS
    spots = pairs[pairs["evidence"] == "same spot"]
    assert ((spots["inliers"] - 3) * spots["similarity"] >= PARAMS.min_evidence).all()
    exact = pairs[pairs["evidence"] != "same spot"]
    assert (exact["similarity"] == 1).all()
    assert (exact["inliers"] == 0).all()
    capsys.readouterr()

    # Again, with another threshold and other row order: nothing is computed anew.
    snapshot.labels, snapshot.quality = snapshot.labels[::-1], snapshot.quality[::-1]
    write_table(pairs, tmp_path / "pairs.parquet")
    write_table(snapshot.pairs(), tmp_path / "again.parquet")
    assert (tmp_path / "pairs.parquet").read_bytes() == (tmp_path / "again.parquet").read_bytes()
    strict = snapshot.pairs(PairsParams(min_evidence=1000.0))
    assert set(strict["evidence"]) == {"same bytes", "same pixels"}
    printed = capsys.readouterr().out
    assert "24 pictures, 0 new" in printed
    assert "candidates, 0 new" in printed
    assert "progress keypoints" not in printed

    # One more picture: it alone is looked at, and the others' pairs stay.
    files = mixed_files() | {"late.jpg": jpeg(seen_again(skin(9)))}
    more = Snapshot(tmp_path, files, {}, late="late")
    capsys.readouterr()
    grown = evidence_of(more.pairs())
    assert grown == EXPECTED | {("late", "s09"): "same spot"}
    printed = capsys.readouterr().out
    assert "25 pictures, 1 new" in printed
    assert "24 of 25 pictures searched before" in printed


def test_pictures_of_one_lesion_are_not_compared(tmp_path: Path) -> None:
    files = {"a.jpg": jpeg(skin(1)), "b.jpg": jpeg(seen_again(skin(1))), "c.jpg": jpeg(skin(2))}
    together = Snapshot(tmp_path / "one", files, {"a": "L", "b": "L", "c": "M"})
    assert evidence_of(together.pairs()) == {}
    apart = Snapshot(tmp_path / "two", files, {"a": "L", "b": "M"})
    assert evidence_of(apart.pairs()) == {("a", "b"): "same spot"}


@pytest.mark.parametrize("count", [0, 1, 2])
def test_hardly_any_pictures(tmp_path: Path, count: int) -> None:
    files = {f"i{number}.jpg": jpeg(skin(number)) for number in range(count)}
    pairs = Snapshot(tmp_path, files, {}).pairs()
    assert len(pairs) == 0
    assert tuple(pairs.columns) == PAIR_COLUMNS


def test_turned_off_it_finds_nothing_and_keeps_the_columns(tmp_path: Path) -> None:
    files = {"a.jpg": jpeg(skin(1)), "b.jpg": jpeg(skin(1))}
    snapshot = Snapshot(tmp_path, files, {})
    none, some = snapshot.pairs(PairsParams(enabled=False)), snapshot.pairs()
    assert (len(none), len(some)) == (0, 1)
    assert dict(none.dtypes) == dict(some.dtypes)


def test_three_copies_are_chained(tmp_path: Path) -> None:
    files = {f"{name}.jpg": jpeg(skin(1)) for name in "cab"}
    assert list(evidence_of(Snapshot(tmp_path, files, {}).pairs())) == [("a", "b"), ("b", "c")]


SEARCH = """
import sys
from pathlib import Path
import pandas as pd
from components.dataset.config import PairsParams
from components.dataset.pairs import find_pairs
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    tables = [pd.read_parquet(folder / name) for name in ("labels.parquet", "quality.parquet")]
    find_pairs(*tables, folder / "images", PairsParams(), folder / "cache")
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_next_search_removes_what_a_killed_one_left(
    tmp_path: Path, how: signal.Signals
) -> None:
    snapshot = Snapshot(tmp_path, {f"i{n}.jpg": jpeg(skin(n)) for n in range(40)}, {})
    write_table(snapshot.labels, tmp_path / "labels.parquet")
    write_table(snapshot.quality, tmp_path / "quality.parquet")
    (tmp_path / "search.py").write_text(SEARCH)
    command = [sys.executable, str(tmp_path / "search.py"), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as search:
        assert search.stdout is not None
        assert any("40 new" in line for line in search.stdout)
        search.send_signal(how)
    assert [path for path in snapshot.cache.iterdir() if path.is_dir()], "it was too fast to kill"
    snapshot.pairs()
    assert [path for path in snapshot.cache.iterdir() if path.is_dir()] == []


@pytest.mark.parametrize(("data", "message"), [(None, "it is gone"), (b"x", "it changed since")])
def test_a_file_that_is_not_what_was_measured_is_refused(
    tmp_path: Path, data: bytes | None, message: str
) -> None:
    snapshot = Snapshot(tmp_path, {"a.jpg": jpeg(skin(1)), "b.jpg": jpeg(skin(2))}, {})
    files = {"a.jpg": jpeg(skin(1))} | ({} if data is None else {"b.jpg": data})
    write_originals(snapshot.images, files)
    with pytest.raises(SourceError, match=message):
        snapshot.pairs()
