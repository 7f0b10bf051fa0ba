"""Small sources that the tests of readers, ingest and withdrawal share."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.dataset.config import DiagnosesParams, SourceParams
from components.dataset.sources.catalog import read_source
from components.dataset.sources.source import SourceImages

HAM_COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
Make = Callable[..., Path]
Read = Callable[..., SourceImages]


@pytest.fixture(scope="session")
def jpeg() -> Callable[[int], bytes]:
    """Return a function: number -> bytes of a small picture, others for other numbers."""

    def make(number: int) -> bytes:
        pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3), np.uint8)
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "JPEG")
        return out.getvalue()

    return make


@pytest.fixture
def ham(tmp_path: Path, jpeg: Callable[[int], bytes]) -> Make:
    """Return a function that writes a HAM10000 download with rows `(image, lesion, dx, …)`."""

    def make(
        rows: Sequence[Sequence[Any]],
        name: str = "ham",
        *,
        columns: Sequence[str] = HAM_COLUMNS,
        metadata: str = "HAM10000_metadata.csv",
        delimiter: str = ",",
        pictures: Mapping[str, int] | None = None,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        defaults = {"dx_type": "histo", "age": "50.0", "sex": "male", "localization": "back"}
        with (folder / metadata).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(
                file, columns, delimiter=delimiter, extrasaction="ignore", lineterminator="\r\n"
            )
            writer.writeheader()
            for image, lesion, dx, *more in rows:
                row = {"image_id": image, "lesion_id": lesion, "dx": dx}
                writer.writerow(defaults | row | (dict(*more) if more else {}))
        if pictures is None:
            pictures = {row[0]: number for number, row in enumerate(rows)}
        for number, (image, content) in enumerate(pictures.items()):
            part = folder / f"HAM10000_images_part_{1 + number % 2}"
            part.mkdir(exist_ok=True)
            (part / f"{image}.jpg").write_bytes(jpeg(content))
        return folder

    return make


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Return a function that reads a source: kind, URI, options."""

    def run(kind: str, uri: object, **options: Any) -> SourceImages:
        source = SourceParams(kind=kind, uri=str(uri), options=options)  # type: ignore[arg-type]
        return read_source(source, tmp_path, tmp_path / "cache")

    return run


@pytest.fixture(scope="session")
def _s3_server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(_s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run the test with an S3 server on loopback behind AWS's environment variables."""
    empty = tmp_path / "aws-config"
    empty.touch()
    for name, value in {
        "AWS_ENDPOINT_URL": _s3_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(empty),
        "AWS_SHARED_CREDENTIALS_FILE": str(empty),
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def seven() -> DiagnosesParams:
    """Return the diagnoses of HAM10000."""
    return DiagnosesParams(
        classes=("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"), malignant=("mel",)
    )
