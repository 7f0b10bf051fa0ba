"""Archives behind https and data sets behind a DOI, against servers on loopback."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from components.dataset.config import SourceParams
from components.dataset.sources import downloads
from components.dataset.sources.catalog import fingerprint_source, read_source
from components.errors import SourceError


class Server(ThreadingHTTPServer):
    """Serves `files`; `requests` keeps what was asked.

    `cut_after` breaks the next answers off, `trouble` are the statuses of the next ones.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cut_after: list[int] = []
        self.trouble: list[int] = []
        self.requests: list[tuple[str, str, str | None]] = []
        self.no_version = False
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        wanted = self.headers.get("Range")
        self.server.requests.append((self.command, self.path, wanted))
        if self.server.trouble:
            self.send_error(self.server.trouble.pop(0))
            return
        data = self.server.files.get(self.path)
        if data is None:
            self.send_error(404)
            return
        etag = f'"{hashlib.md5(data).hexdigest()}"'
        start = 0
        if wanted and self.headers.get("If-Range") == etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        if not self.server.no_version:
            self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if body:
            end = start + self.server.cut_after.pop(0) if self.server.cut_after else len(data)
            self.wfile.write(data[start:end])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(downloads, "_PAUSE_S", 0.01)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def archive(jpeg) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for number in range(20):
            file.writestr(f"nv/{number}.jpg", jpeg(number) + bytes(40_000))
    return out.getvalue()


def gets(server: Server) -> list[tuple[str, str | None]]:
    return [(path, wanted) for method, path, wanted in server.requests if method == "GET"]


def test_an_archive_is_downloaded_once(server, archive, read, jpeg) -> None:
    server.files["/sets/skin.zip"] = archive
    for _ in range(2):
        images = read("class_folders", f"{server.url}/sets/skin.zip")
        assert images.read(images.files["nv__3"]).startswith(jpeg(3))
    assert gets(server) == [("/sets/skin.zip", None)]


def test_a_download_that_breaks_off_goes_on_where_it_was(server, archive, read) -> None:
    server.files["/skin.zip"] = archive
    server.cut_after = [100_000, 100_000]
    assert len(read("class_folders", f"{server.url}/skin.zip").files) == 20
    assert gets(server) == [
        ("/skin.zip", None), ("/skin.zip", "bytes=65536-"), ("/skin.zip", "bytes=131072-")
    ]  # fmt: skip


def test_a_download_may_break_off_often_as_long_as_it_comes_on(server, jpeg, read) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("nv/0.jpg", jpeg(0) + bytes(1_000_000))
    server.files["/skin.zip"] = out.getvalue()
    server.cut_after = [100_000] * 10
    assert len(read("class_folders", f"{server.url}/skin.zip").files) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_in_trouble_is_asked_again(server, archive, read, status) -> None:
    server.files["/skin.zip"] = archive
    server.trouble = [status, status]  # of the look at its version
    assert len(read("class_folders", f"{server.url}/skin.zip").files) == 20
    assert [method for method, *_ in server.requests] == ["HEAD", "HEAD", "HEAD", "GET"]


def test_a_server_that_says_no_is_asked_once(server, read) -> None:
    for status in (403, 404):
        server.requests.clear()
        server.trouble = [status]
        with pytest.raises(SourceError, match=str(status)):
            read("class_folders", f"{server.url}/skin.zip")
        assert len(server.requests) == 1


def test_a_server_that_stays_in_trouble_is_named(server, read) -> None:
    server.trouble = [503] * 50
    with pytest.raises(SourceError, match="503"):
        read("class_folders", f"{server.url}/skin.zip")


def test_an_interrupted_run_is_gone_on_with_by_the_next(server, archive, read) -> None:
    server.files["/skin.zip"] = archive
    server.cut_after = [100_000, 1, 1, 1, 1]
    with pytest.raises(SourceError, match="the download failed"):
        read("class_folders", f"{server.url}/skin.zip")
    server.requests.clear()
    assert len(read("class_folders", f"{server.url}/skin.zip").files) == 20
    assert gets(server) == [("/skin.zip", "bytes=65536-")]


def test_a_file_that_changed_meanwhile_is_not_patched_together(server, archive, read, jpeg) -> None:
    sha256 = hashlib.sha256(archive).hexdigest()
    server.files["/skin.zip"] = bytes(len(archive))
    server.cut_after = [100_000, 1, 1, 1, 1]
    with pytest.raises(SourceError):
        read("class_folders", f"{server.url}/skin.zip", sha256=sha256)
    server.files["/skin.zip"] = archive
    images = read("class_folders", f"{server.url}/skin.zip", sha256=sha256)
    assert images.read(images.files["nv__0"]).startswith(jpeg(0))


def test_another_hash_than_the_known_one_is_refused(server, archive, read) -> None:
    server.files["/skin.zip"] = archive
    with pytest.raises(SourceError) as error:
        read("class_folders", f"{server.url}/skin.zip", sha256="0" * 64)
    assert "SHA256" in error.value.what.upper()


def test_the_fingerprint_is_the_known_hash_or_the_servers_version(
    server, archive, tmp_path
) -> None:
    def look(**options: object) -> str:
        uri = f"{server.url}/skin.zip"
        source = SourceParams(kind="class_folders", uri=uri, options=options)
        return fingerprint_source(source, tmp_path, tmp_path / "cache")

    server.files["/skin.zip"] = archive
    first, known = look(), look(sha256="1" * 64)
    assert [method for method, *_ in server.requests] == ["HEAD"]
    server.files["/skin.zip"] = archive + b"more"
    assert look() != first
    assert look(sha256="1" * 64) == known
    server.no_version = True
    with pytest.raises(SourceError, match="which version of the file"):
        look()


@pytest.mark.parametrize(
    ("path", "what", "fix"),
    [
        ("/gone.zip", "the download failed: 404", "check the address"),
        ("/page", "this is not the address of an archive", "give one that ends in .zip, .tar"),
    ],
)
def test_a_wrong_address_says_so(server, read, path, what, fix) -> None:
    with pytest.raises(SourceError) as error:
        read("class_folders", server.url + path)
    assert error.value.what.startswith(what)
    assert server.url + path in str(error.value)
    assert fix in error.value.fix
    assert len(server.requests) == (path == "/gone.zip")


def test_an_unknown_kind_of_address_says_so(read) -> None:
    with pytest.raises(SourceError) as error:
        read("class_folders", "gs://bucket/skin")
    assert error.value.what == "unknown kind of address: gs://bucket/skin"
    assert error.value.where == "sources in params.yaml"
    assert "file://, s3://, https:// or doi:" in error.value.fix


class Dataverse:
    """A data set as a Dataverse lists it; tables have a form of its own besides the original."""

    def __init__(self, server: Server, files: dict[str, bytes]) -> None:
        listed = []
        for number, (name, data) in enumerate(files.items()):
            entry = {"id": number, "filename": name, "md5": hashlib.md5(data).hexdigest()}
            path = f"/api/access/datafile/{number}"
            if name.endswith(".tab"):
                entry["originalFileFormat"] = "text/csv"
                server.files[path] = data.replace(b",", b"\t")
                path += "?format=original"
            server.files[path] = data
            listed.append({"dataFile": entry})
        document = {"data": {"latestVersion": {"files": listed}}}
        query = "/api/datasets/:persistentId?persistentId=doi:10.7910/DVN/DBW86T"
        server.files[query] = json.dumps(document).encode()


def ham_files(jpeg) -> dict[str, bytes]:
    parts = {}
    for number in (1, 2):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as file:
            file.writestr(f"A{number}.jpg", jpeg(number))
        parts[f"HAM10000_images_part_{number}.zip"] = out.getvalue()
    table = (
        b"lesion_id,image_id,dx,dx_type,age,sex,localization\n"
        b"L1,A1,nv,histo,80.0,male,back\nL2,A2,mel,histo,60.0,female,face\n"
    )
    return {**parts, "HAM10000_metadata.tab": table, "ISIC2018_Task3_Test_Images.zip": b"not asked"}


def test_ham10000_comes_by_its_doi(server, jpeg, tmp_path) -> None:
    Dataverse(server, ham_files(jpeg))
    source = SourceParams(
        kind="ham10000", uri="doi:10.7910/DVN/DBW86T", options={"server": server.url}
    )
    cache = tmp_path / "cache"
    first = fingerprint_source(source, tmp_path, cache)
    assert not any("/access/" in path for _, path, _ in server.requests)
    for _ in range(2):
        images = read_source(source, tmp_path, cache)
        assert list(images.labels["diagnosis"]) == ["nv", "mel"]
        assert images.read(images.files["A2"]) == jpeg(2)
    fetched = sorted(path for path, _ in gets(server) if "/access/" in path)
    assert fetched == [f"/api/access/datafile/{n}" for n in ("0", "1", "2?format=original")]
    Dataverse(server, ham_files(jpeg) | {"HAM10000_images_part_2.zip": b"other"})
    assert fingerprint_source(source, tmp_path, cache) != first


def test_a_dataverse_in_trouble_is_not_one_without_the_data_set(server, jpeg, read) -> None:
    Dataverse(server, ham_files(jpeg))
    server.trouble = [503, 503]
    assert len(read("ham10000", "doi:10.7910/DVN/DBW86T", server=server.url).labels) == 2
    server.requests.clear()
    with pytest.raises(SourceError, match=r"no data set 10\.7910/DVN/GONE"):
        read("ham10000", "doi:10.7910/DVN/GONE", server=server.url)
    assert len(server.requests) == 1


def test_a_file_with_another_md5_than_listed_is_refused(server, jpeg, read) -> None:
    Dataverse(server, ham_files(jpeg))
    server.files["/api/access/datafile/2?format=original"] += b"L3,A3,nv,histo,1.0,male,back\n"
    with pytest.raises(SourceError, match="the download failed"):
        read("ham10000", "doi:10.7910/DVN/DBW86T", server=server.url)


def test_a_data_set_without_the_wanted_files_says_so(server, read) -> None:
    Dataverse(server, {"paper.pdf": b"text"})
    with pytest.raises(SourceError) as error:
        read("ham10000", "doi:10.7910/DVN/DBW86T", server=server.url)
    assert error.value.what == (
        "the data set has no file called like HAM10000_images_part*, HAM10000_metadata*"
    )
    assert error.value.where == "doi:10.7910/DVN/DBW86T"
    assert "check the DOI" in error.value.fix


def test_an_unknown_doi_says_so(server, read) -> None:
    with pytest.raises(SourceError, match=r"no data set 10\.1/x"):
        read("ham10000", "doi:10.1/x", server=server.url)
