"""Bad input gives one message (what, where, what to do) and the right code, through every layer."""

from __future__ import annotations

import io
import shutil
import sqlite3
import stat
import struct
import subprocess
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.graph import read_graph

Command = Callable[..., subprocess.CompletedProcess[str]]
HEADER = "lesion_id,image_id,dx,dx_type,age,sex,localization"
CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
ROWS = [f"L{number},P{number:02d},{CLASSES[number % 7]},histo,50,male,back" for number in range(21)]
ARCHIVE = "HAM10000_images_part_1.zip"
Members = Sequence[tuple[zipfile.ZipInfo, bytes]]


def _write_source(
    folder: Path, rows: Sequence[str] = ROWS, header: str = HEADER, members: Members = ()
) -> Path:
    """Write a small HAM10000 download: a table, and the pictures in a zip."""
    folder.mkdir(exist_ok=True)
    table = "\n".join([header, *rows]) + "\n"
    (folder / "HAM10000_metadata.csv").write_text(table, encoding="utf-8")
    pictures = [(zipfile.ZipInfo(f"P{number:02d}.jpg"), _picture(number)) for number in range(21)]
    with zipfile.ZipFile(folder / ARCHIVE, "w") as archive:
        for info, data in [*pictures, *members]:
            archive.writestr(info, data)
    return folder


def _picture(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 255, (48, 48, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG")
    return out.getvalue()


def _contents(*places: Path) -> dict[Path, bytes]:
    """Return the bytes of files, and of all files below folders."""
    paths = [path for place in places for path in (place, *place.rglob("*")) if path.is_file()]
    assert paths
    return {path: path.read_bytes() for path in paths}


def _last(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one message that ends a run."""
    assert "Traceback" not in done.stdout + done.stderr
    return done.stderr.split("lesionflow:")[-1]


def _said(done: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_source_that_does_not_exist_leaves_the_recipe_as_it_was(
    workspace: Path, lesionflow: Command
) -> None:
    before = (workspace / "params.yaml").read_bytes()
    done = lesionflow(workspace, "use", "ham10000", "--source", "/nowhere/at/all")
    assert done.returncode == 2
    assert "/nowhere/at/all" in _said(done)
    assert (workspace / "params.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("retrain", "-S", "training.epoch=3"), "training.epoch"),
        (("retrain", "-S", "pack.image_size=huge"), "pack.image_size"),
        (("use", "nothing"), "quickstart"),
        (("use", "quickstart", "--backbones", "resnet19"), "resnet19"),
        (("use", "quickstart", "--seeds", "one"), "whole numbers"),
        (("audit", "missing.csv", "--labels", "missing.csv"), "missing.csv"),
        (("score", "missing.csv"), "missing.csv"),
        (("score", "missing.csv", "--resamples", "0"), "--resamples"),
        (("score", "missing.csv", "--seed", "-1"), "--seed"),
        (("use", "quickstart", "--image-size", "-1"), "pack.image_size"),
        (("use", "quickstart", "--seeds", "-1"), "none below 0"),
        (("registry", "prune", "--keep", "0"), "--keep"),
        (("ui", "--port", "0"), "--port"),
        (("predict", "missing.jpg"), "no champion"),
        (("rollback",), "no earlier champion"),
        (("tune", "resnet19"), "unknown backbone 'resnet19'"),
        (("tune", "resnet50"), "add `resnet50: {}` there"),
    ],
)
def test_the_users_mistake_is_named_with_exit_code_2(
    workspace: Path, lesionflow: Command, arguments: tuple[str, ...], named: str
) -> None:
    done = lesionflow(workspace, *arguments)
    assert done.returncode == 2
    assert named in _said(done)
    assert done.stdout == ""


def test_outside_a_workspace_the_message_says_where_to_go(
    tmp_path: Path, lesionflow: Command
) -> None:
    done = lesionflow(tmp_path, "status")
    assert done.returncode == 2
    assert "dvc.yaml" in _said(done)


def _listed_twice(folder: Path) -> None:
    _write_source(folder, rows=[*ROWS, ROWS[3].replace("L3", "L4")])


def _leads_out(folder: Path) -> None:
    _write_source(folder, members=[(zipfile.ZipInfo("../out.jpg"), b"x")])


def _is_a_link(folder: Path) -> None:
    link = zipfile.ZipInfo("link.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    _write_source(folder, members=[(link, b"/etc/passwd")])


def _is_a_bomb(folder: Path) -> None:
    """Let the archive's directory say that its first picture has two gigabytes."""
    archive = _write_source(folder) / ARCHIVE
    data = bytearray(archive.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 2**31 - 1)
    archive.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (_listed_twice, "image P03 is listed 2 times with different values of lesion_id"),
        (_leads_out, "not safe to open: a member's name leads out"),
        (_is_a_link, "not safe to open: a member is a link"),
        (_is_a_bomb, "not safe to open: it unpacks to"),
    ],
)
def test_a_source_that_cannot_be_used_leaves_the_recipe_as_it_was(
    workspace: Path,
    tmp_path: Path,
    lesionflow: Command,
    spoil: Callable[[Path], None],
    named: str,
) -> None:
    spoil(tmp_path / "source")
    kept = (workspace / "params.yaml", workspace / "data" / "sources.json")
    before = _contents(*kept)
    done = lesionflow(workspace, "use", "ham10000", "--source", str(tmp_path / "source"))
    assert done.returncode == 2
    assert named in _said(done)
    assert "to do:" in done.stderr
    assert _contents(*kept) == before
    assert not list(tmp_path.rglob("out.jpg"))


@pytest.fixture(scope="module")
def _taken_once(
    tmp_path_factory: pytest.TempPathFactory, _blank_workspace: Path, lesionflow: Command
) -> Path:
    folder = tmp_path_factory.mktemp("taken")
    workspace = Path(shutil.copytree(_blank_workspace, folder / "workspace"))
    source = _write_source(folder / "source")
    used = lesionflow(workspace, "use", "ham10000", "--source", str(source))
    assert used.returncode == 0, used.stderr
    subprocess.run(["dvc", "repro", "-q", "ingest"], cwd=workspace, check=True)
    return folder


@pytest.fixture
def source(_taken_once: Path) -> Path:
    """Return the source of `taken`, as it was when its snapshot was taken."""
    return _write_source(_taken_once / "source")


@pytest.fixture
def taken(_taken_once: Path, tmp_path: Path) -> Path:
    """Return a workspace whose snapshot was taken from a good source; no other stage has run."""
    target = tmp_path / "workspace"
    subprocess.run(["cp", "-a", str(_taken_once / "workspace"), str(target)], check=True)
    return target


@pytest.mark.parametrize(
    ("spoiled", "named"),
    [
        ({"header": HEADER.replace("dx,", "diagnosed,")}, "missing column: dx"),
        ({"rows": [*ROWS[1:], ROWS[0].replace("akiec", "wart")]}, "'wart' (1 image, such as P00)"),
    ],
    ids=["missing column", "unknown diagnosis"],
)
def test_a_source_that_went_wrong_is_told_by_the_flow_and_leaves_the_last_snapshot(
    taken: Path,
    source: Path,
    lesionflow: Command,
    spoiled: dict[str, str | list[str]],
    named: str,
) -> None:
    _write_source(source, **spoiled)  # type: ignore[arg-type]
    kept = (taken / "data" / "raw", taken / "data" / "sources.json", taken / "params.yaml")
    before = _contents(*kept)
    done = lesionflow(taken, "retrain")
    assert done.returncode == 2
    assert named in _last(done)
    assert str(source) in _last(done)
    assert "to do:" in _last(done)
    assert _contents(*kept) == before


def test_a_damaged_archive_is_told_through_dvc_and_leaves_the_last_snapshot(
    taken: Path, source: Path, lesionflow: Command
) -> None:
    archive = source / ARCHIVE
    data = bytearray(archive.read_bytes())
    data[data.index(_picture(20)) + 300] ^= 0xFF  # only who reads the picture sees it
    archive.write_bytes(data)
    before = _contents(taken / "data" / "raw")
    done = lesionflow(taken, "retrain")
    assert done.returncode == 2
    assert "stage ingest failed: the archive is damaged" in _last(done)
    assert "P20.jpg" in _last(done)
    assert _contents(taken / "data" / "raw") == before
    assert "ingest" in read_graph(taken).stale


def test_an_empty_part_a_picture_listed_twice_and_one_not_listed_are_named_together(
    taken: Path, source: Path, lesionflow: Command, edit_params: Callable[..., None]
) -> None:
    rare = [row for row in ROWS if "vasc" not in row or "P06" in row]
    _write_source(source, rows=[*rare, ROWS[3]], members=[(zipfile.ZipInfo("x.jpg"), b"x")])
    errors = {name: {"severity": "error"} for name in ("listed", "listed_once")}
    edit_params(taken, validation__images=errors)
    done = lesionflow(taken, "retrain")
    assert done.returncode == 1
    last = _last(done)
    assert "stage validate failed" in last
    assert "vasc (1 groups, 1 images)" in last
    assert "P03" in last
    assert "x.jpg" in last
    assert not (taken / "reports" / "validation").exists()  # none was good so far


def test_more_cpus_than_the_machine_has_is_said_and_not_waited_for(
    finished_copy: Path, lesionflow: Command, edit_params: Callable[..., None]
) -> None:
    edit_params(finished_copy, backbones__resnet18={"cpus_per_worker": 4096.0})
    champion = finished_copy / "registry" / "quickstart-synthetic" / "aliases" / "champion.json"
    before = _contents(champion, finished_copy / "runs")
    done = lesionflow(finished_copy, "retrain")
    last = done.stderr.split("lesionflow:")[-1]
    assert done.returncode == 2
    assert "train@resnet18-0" in last
    assert "4096" in last
    assert _contents(champion, finished_copy / "runs") == before
    assert "train@mobilenet_v2-0" not in read_graph(finished_copy).stale


def test_a_failed_check_is_exit_code_1_and_names_the_images(
    finished_copy: Path, lesionflow: Command, edit_params: Callable[..., None]
) -> None:
    edit_params(finished_copy, validation__max_quarantined_share=0.0)
    places = ("data/raw", "data/quarantine.parquet", "reports/validation")
    before = _contents(*(finished_copy / place for place in places))
    done = lesionflow(finished_copy, "retrain")
    last = done.stderr.split("lesionflow:")[-1]
    assert done.returncode == 1
    assert "validate" in last
    assert "SYN_" in last
    assert "Traceback" not in done.stdout + done.stderr
    assert _contents(*(finished_copy / place for place in places)) == before
    failed = finished_copy / ".lesionflow" / "validation-failed" / "summary.json"
    assert '"success": false' in failed.read_text(encoding="utf-8")
    database = finished_copy / ".lesionflow" / "prefect" / "prefect.db"
    with sqlite3.connect(database) as connection:
        (shown,) = connection.execute(
            "select description from artifact where key = 'validation' order by created desc"
        ).fetchone()
    assert shown.startswith("This stopped the run.")
