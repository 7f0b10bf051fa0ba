"""In which form a snapshot is versioned best: files, one archive, shards, or archives that stay.

Usage: python -m benchmarks.versioning [files] [archive] [shards] [originals]

Takes HAM10000 and then its increment (`LESIONFLOW_REAL_DATA`), versions both with DVC in each form,
pushes to a folder and to an S3 server on loopback, and pulls into a new clone. Writes
`benchmarks/results/versioning.csv` (rows of other forms stay); `docs/data-versioning.md` says what
follows from it. The server runs in Python on the same cores: what it takes for an object is more
than S3 takes on a good line.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.machine import read_results, write_results
from components.dataset.originals import OriginalsWriter

_REPO = Path(__file__).resolve().parents[1]
_REAL = Path(os.environ.get("LESIONFLOW_REAL_DATA", _REPO.parent / "shared" / "data"))
_SHARDS = 64
_WHO = ("-c", "user.name=benchmark", "-c", "user.email=benchmark@example.org")


def as_files(images: list[Path], target: Path) -> None:
    """Copy the images as they are."""
    for path in images:
        shutil.copyfile(path, target / path.name)


def as_archive(images: list[Path], target: Path) -> None:
    """Put all images into one archive."""
    _zip(images, target / "images.zip")


def as_shards(images: list[Path], target: Path) -> None:
    """Put the images into archives by a hash of their name: the same image, the same shard."""
    shards: dict[int, list[Path]] = {}
    for path in images:
        number = int.from_bytes(path.stem.encode()[-4:], "big") % _SHARDS
        shards.setdefault(number, []).append(path)
    for number, paths in shards.items():
        _zip(paths, target / f"{number:03d}.zip")


def as_originals(images: list[Path], target: Path) -> None:
    """Do what the stage `ingest` does: what a source adds makes archives of its own."""
    increment = _REAL / "ham10000-increment"
    for source, is_new in (("ham10000", False), ("ham10000-increment", True)):
        with OriginalsWriter(target, source) as writer:
            for path in images:
                if path.is_relative_to(increment) == is_new:
                    writer.add(path.stem, path.suffix, path.read_bytes())


FORMS: dict[str, Callable[[list[Path], Path], None]] = {
    "files": as_files,
    "archive": as_archive,
    "shards": as_shards,
    "originals": as_originals,
}


def measure(form: str, folder: Path) -> list[dict[str, object]]:
    """Return one row per step for one form."""
    work = folder / "work"
    work.mkdir(parents=True)
    _run(work, "git", "init", "-q")
    _dvc(work, "init", "-q")
    _dvc(work, "remote", "add", "disk", str(folder / "remote"))
    _dvc(work, "remote", "add", "s3", f"s3://versions/{form}")
    rows: list[dict[str, object]] = []

    def step(snapshot: str, name: str, remote: str | None, act: Callable[[], None]) -> None:
        before = _bytes_in(folder / "remote")
        started = time.monotonic()
        act()
        seconds = time.monotonic() - started
        sent = (_bytes_in(folder / "remote") - before) / 2**20
        rows.append(
            {
                "form": form, "snapshot": snapshot, "step": name, "remote": remote,
                "seconds": round(seconds, 1),
                "mebibytes_sent": None if remote == "s3" else round(sent, 1),  # seen in the folder
            }
        )  # fmt: skip
        print(rows[-1], flush=True)

    images = sorted((_REAL / "ham10000").rglob("*.jpg"))
    more = sorted((_REAL / "ham10000-increment").rglob("*.jpg"))
    for snapshot, listed in (("10,015 images", images), ("193 more", images + more)):
        shutil.rmtree(work / "raw", ignore_errors=True)
        (work / "raw").mkdir()
        FORMS[form](listed, work / "raw")
        step(snapshot, "add", None, partial(_dvc, work, "add", "raw"))
        _run(work, "git", "add", "-A")
        _run(work, "git", *_WHO, "commit", "-qm", snapshot)
        for remote in ("disk", "s3"):
            for name in ("push", "push again"):
                step(snapshot, name, remote, partial(_dvc, work, "push", "-r", remote))
    for remote in ("disk", "s3"):
        clone = folder / f"clone-{remote}"
        _run(folder, "git", "clone", "-q", str(work), str(clone))
        step("all", "pull", remote, partial(_dvc, clone, "pull", "-r", remote))
    return rows


def main(forms: list[str]) -> None:
    """Measure each of `forms` and write the results."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        empty = Path(name) / "aws-config"
        empty.touch()
        os.environ.update(
            AWS_ENDPOINT_URL=f"http://{host}:{port}",
            AWS_ACCESS_KEY_ID="test",
            AWS_SECRET_ACCESS_KEY="test",
            AWS_DEFAULT_REGION="us-east-1",
            AWS_CONFIG_FILE=str(empty),
            AWS_SHARED_CREDENTIALS_FILE=str(empty),
        )
        import boto3

        boto3.client("s3").create_bucket(Bucket="versions")
        for form in forms or list(FORMS):
            rows += measure(form, Path(name) / form)
    server.stop()
    others = [row for row in read_results("versioning") if row["form"] not in (forms or FORMS)]
    print(write_results("versioning", [*others, *rows]))


def _zip(paths: list[Path], target: Path) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(paths):  # a fixed time: the same images, the same bytes
            archive.writestr(zipfile.ZipInfo(path.name), path.read_bytes())


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _dvc(folder: Path, *arguments: str) -> None:
    _run(folder, sys.executable, "-m", "dvc", *arguments)


def _run(folder: Path, *command: str) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


if __name__ == "__main__":
    main(sys.argv[1:])
