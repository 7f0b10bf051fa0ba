"""The packed set: the pixels of `predict`, the same bytes however it came about."""

from __future__ import annotations

import hashlib
import io
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from components.dataset.decode import PackSpec, decode_to_square
from components.dataset.pack import PackedImages, pack_images
from components.errors import SourceError, TableError
from components.tables import write_table
from tests.originals import write_originals

SPEC = PackSpec(16, "crop")


def jpeg(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2)).save(buffer, "JPEG")
    return buffer.getvalue()


JPEGS = [jpeg(seed) for seed in range(12)]


def quality_of(folder: Path, files: dict[str, bytes]) -> pd.DataFrame:
    write_originals(folder, {f"{image_id}.jpg": data for image_id, data in files.items()})
    return pd.DataFrame(
        {
            "image_id": list(files),
            "sha256": [hashlib.sha256(data).hexdigest() for data in files.values()],
            "decodes": True,
        }
    )


def pack(folder: Path, files: dict[str, bytes], spec: PackSpec = SPEC) -> Path:
    quality = quality_of(folder / "images", files)
    shutil.rmtree(folder / "packed", ignore_errors=True)  # as DVC does before a stage
    pack_images(quality, folder / "images", spec, folder / "packed", folder / "cache")
    return folder / "packed"


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_rows_hold_what_predict_sees(tmp_path: Path) -> None:
    files = {f"i{n}": JPEGS[n] for n in (3, 1, 2)}
    packed = PackedImages.open(pack(tmp_path, files))
    assert packed.images.shape == (3, 16, 16, 3)
    assert packed.images.dtype == np.uint8
    assert isinstance(packed.images, np.memmap)
    assert not packed.images.flags.writeable
    assert packed.image_ids == ("i1", "i2", "i3")
    assert packed.spec == SPEC
    rows = packed.rows(["i3", "i1"])
    assert rows.dtype == np.int64
    assert list(rows) == [2, 0]
    for image_id, row in zip(["i3", "i1"], rows, strict=True):
        assert (packed.images[row] == decode_to_square(files[image_id], SPEC)).all()


def test_unknown_images_are_named(tmp_path: Path) -> None:
    packed = PackedImages.open(pack(tmp_path, {"a": JPEGS[0]}))
    with pytest.raises(TableError, match="not among the packed images: b, c"):
        packed.rows(["a", "b", "c"])
    with pytest.raises(TableError, match="n4 and 5 more"):
        packed.rows([f"n{n}" for n in range(10)])
    assert len(packed.rows([])) == 0


def test_what_does_not_decode_is_left_out(tmp_path: Path) -> None:
    quality = quality_of(tmp_path / "images", {"good": JPEGS[0], "bad": b""})
    quality["decodes"] = [True, False]
    pack_images(quality, tmp_path / "images", SPEC, tmp_path / "packed", tmp_path / "cache")
    assert PackedImages.open(tmp_path / "packed").image_ids == ("good",)


def test_no_image_at_all_is_a_packed_set_too(tmp_path: Path) -> None:
    quality = quality_of(tmp_path / "images", {"bad": b""})
    quality["decodes"] = [False]
    pack_images(quality, tmp_path / "images", SPEC, tmp_path / "packed", tmp_path / "cache")
    assert PackedImages.open(tmp_path / "packed").images.shape == (0, 16, 16, 3)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sets(st.integers(0, 11), min_size=1), min_size=2, max_size=4))
def test_bytes_do_not_depend_on_what_was_packed_before(
    tmp_path_factory: pytest.TempPathFactory, history: list[set[int]]
) -> None:
    grown, fresh = tmp_path_factory.mktemp("grown"), tmp_path_factory.mktemp("fresh")
    for numbers in history:
        files = {f"i{n:02}": JPEGS[n % 9] for n in numbers}  # some images have the same bytes
        packed = pack(grown, files)
    assert content(packed) == content(pack(fresh, files))


def test_known_rows_are_copied_and_only_the_new_ones_decoded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack(tmp_path, {f"i{n}": JPEGS[n] for n in range(5)})
    capsys.readouterr()
    pack(tmp_path, {f"i{n}": JPEGS[n] for n in range(1, 7)})
    printed = capsys.readouterr().out
    assert "6 images, 4 rows known" in printed
    assert "progress pack: 2/2 images" in printed


def test_another_spec_decodes_anew_and_old_ones_are_cleared(tmp_path: Path) -> None:
    files = {"a": JPEGS[0]}
    for spec in (PackSpec(16, "pad"), PackSpec(16, "stretch"), PackSpec(24, "crop")):
        packed = PackedImages.open(pack(tmp_path, files, spec))
        assert (packed.images[0] == decode_to_square(JPEGS[0], spec)).all()
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_damaged_cache_is_not_used(tmp_path: Path) -> None:
    files = {"a": JPEGS[0], "b": JPEGS[1]}
    expected = content(pack(tmp_path, files))
    shelf = next((tmp_path / "cache").iterdir())
    for name, damage in (("spec.json", b"{}"), ("index.parquet", b"x"), ("images.npy", b"x")):
        (shelf / name).unlink()  # the link, not the packed file
        (shelf / name).write_bytes(damage)
        assert content(pack(tmp_path, files)) == expected


KILLED = """
import os, signal, sys
from pathlib import Path
import pandas as pd
from components.dataset.decode import PackSpec
from components.dataset.pack import pack_images
folder, step = Path(sys.argv[1]), int(sys.argv[2])
seen = 0
def kill_at_a_step(event, arguments):
    global seen
    if event in ("os.link", "os.remove") and any(f"{folder}/cache/" in str(a) for a in arguments):
        seen += 1
        if seen == step:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(kill_at_a_step)
quality = pd.read_parquet(folder / "quality.parquet")
spec = PackSpec(16, "crop")
pack_images(quality, folder / "images", spec, folder / "again", folder / "cache")
"""


@pytest.mark.parametrize("step", range(1, 7))  # three files go, three come
def test_a_kill_leaves_no_pixels_without_an_index(tmp_path: Path, step: int) -> None:
    pack(tmp_path, {"a": JPEGS[0]})
    quality = quality_of(tmp_path / "images", {"b": JPEGS[1]})
    write_table(quality, tmp_path / "quality.parquet")
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(step)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    (shelf,) = (tmp_path / "cache").iterdir()
    names = {path.name for path in shelf.iterdir()}
    assert "images.npy" not in names or "index.parquet" in names
    files = {"a": JPEGS[0], "b": JPEGS[1]}
    assert content(pack(tmp_path, files)) == content(pack(tmp_path / "fresh", files))


def test_half_made_shelves_and_half_written_files_go_with_the_next_set(tmp_path: Path) -> None:
    files = {"a": JPEGS[0]}
    pack(tmp_path, files)
    (shelf,) = (tmp_path / "cache").iterdir()
    (shelf / ".images.npy.1-a.npy").write_bytes(b"half")
    other = tmp_path / "cache" / "other"
    other.mkdir()
    (other / "images.npy").write_bytes(b"pixels")
    pack(tmp_path, files)
    assert list((tmp_path / "cache").iterdir()) == [shelf]
    assert set(content(shelf)) == {"images.npy", "index.parquet", "spec.json"}


def test_content_id_follows_images_and_spec(tmp_path: Path) -> None:
    one = {"a": JPEGS[0], "b": JPEGS[1]}
    ids = [
        PackedImages.open(pack(tmp_path / str(number), files, spec)).content_id
        for number, (files, spec) in enumerate(
            [
                (one, SPEC),
                (dict(reversed(one.items())), SPEC),
                (one, PackSpec(16, "pad")),
                ({"a": JPEGS[1], "b": JPEGS[0]}, SPEC),
                ({"a": JPEGS[0], "c": JPEGS[1]}, SPEC),
            ]
        )
    ]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 4


@pytest.mark.parametrize(
    ("data", "message"), [(JPEGS[1], "it changed since"), (b"", "it changed since")]
)
def test_a_file_that_changed_since_it_was_measured_is_refused(
    tmp_path: Path, data: bytes, message: str
) -> None:
    quality = quality_of(tmp_path / "images", {"a": JPEGS[0]})
    write_originals(tmp_path / "images", {"a.jpg": data})
    with pytest.raises(SourceError, match=message) as caught:
        pack_images(quality, tmp_path / "images", SPEC, tmp_path / "packed", tmp_path / "cache")
    assert "a.jpg" in str(caught.value)
    assert not (tmp_path / "packed" / "images.npy").exists()


def test_a_file_that_no_longer_decodes_is_refused(tmp_path: Path) -> None:
    quality = quality_of(tmp_path / "images", {"a": JPEGS[0][:300]})
    with pytest.raises(SourceError, match="cannot be decoded: truncated"):
        pack_images(quality, tmp_path / "images", SPEC, tmp_path / "packed", tmp_path / "cache")


@pytest.mark.parametrize("name", ["images.npy", "index.parquet", "spec.json"])
def test_a_packed_set_that_lacks_a_part_is_refused(tmp_path: Path, name: str) -> None:
    packed = pack(tmp_path, {"a": JPEGS[0]})
    (packed / name).unlink()
    with pytest.raises(TableError):
        PackedImages.open(packed)


def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    one = pack(tmp_path / "one", {"a": JPEGS[0], "b": JPEGS[1]})
    other = pack(tmp_path / "other", {"a": JPEGS[0], "c": JPEGS[1]})
    shutil.copyfile(other / "index.parquet", one / "index.parquet")
    with pytest.raises(TableError, match="missing or damaged"):
        PackedImages.open(one)
