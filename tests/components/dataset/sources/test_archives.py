"""Archives are read like folders, and refused whole when they could do harm."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from components.dataset.sources import archives
from components.dataset.sources.config import FileOptions
from components.dataset.sources.files import Files
from components.dataset.sources.place import open_files
from components.errors import SourceError

Open = Callable[[Path], Files]


@pytest.fixture
def open_at(tmp_path: Path) -> Open:
    def run(path: Path) -> Files:
        return open_files(str(path), FileOptions(), root=tmp_path, cache=tmp_path / "cache")

    return run


def zip_of(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def tar_of(members: list[tarfile.TarInfo], data: bytes = b"data", mode: str = "w:gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for member in members:
            member.size = len(data) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tgz"])
def test_a_lone_archive_is_its_members(tmp_path: Path, open_at: Open, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "zip":
        path.write_bytes(zip_of({"b/1.jpg": b"data", "__MACOSX/b/._1.jpg": b"x"}))
    else:
        mode = "w" if suffix == "tar" else "w:gz"
        path.write_bytes(tar_of([member("./b/1.jpg"), member("b/.hidden")], mode=mode))
    for _ in range(2):  # the second time from the cache
        files = open_at(path)
        assert list(files.names()) == ["b/1.jpg"]
        assert files.read("b/1.jpg") == b"data"


def test_archives_among_files_keep_their_name_before_the_members(
    tmp_path: Path, open_at: Open
) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "labels.csv").write_bytes(b"x")
    inner = zip_of({"2.jpg": b"two"})
    (folder / "a.zip").write_bytes(zip_of({"1.jpg": b"one", "more/b.zip": inner}))
    files = open_at(folder)
    assert list(files.names()) == ["a.zip/1.jpg", "a.zip/more/b.zip/2.jpg", "labels.csv"]
    assert files.read("a.zip/more/b.zip/2.jpg") == b"two"


def test_archives_in_archives_end_somewhere(tmp_path: Path, open_at: Open) -> None:
    data = zip_of({"1.jpg": b"one"})
    for name in ("c.zip", "b.zip"):
        data = zip_of({name: data, "x.txt": b""})
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(SourceError, match="more than 2 deep"):
        open_at(tmp_path / "a.zip").names()


@pytest.mark.parametrize("name", ["../x.jpg", "/etc/x.jpg", "a/../../x.jpg", "C:/x.jpg", "..\\x"])
def test_a_member_that_leads_out_is_refused(tmp_path: Path, open_at: Open, name: str) -> None:
    (tmp_path / "a.zip").write_bytes(zip_of({"ok.jpg": b"", name: b"x"}))
    with pytest.raises(SourceError, match="not safe to open: a member's name leads out"):
        open_at(tmp_path / "a.zip").names()
    if "\\" not in name and ":" not in name:
        (tmp_path / "a.tgz").write_bytes(tar_of([member("ok.jpg"), member(name)]))
        with pytest.raises(SourceError, match="leads out of the archive"):
            open_at(tmp_path / "a.tgz").names()
        assert not (tmp_path.parent / "x.jpg").exists()
        assert not list((tmp_path / "cache").rglob("ok.jpg"))


def test_links_and_devices_are_refused(tmp_path: Path, open_at: Open) -> None:
    info = zipfile.ZipInfo("link.jpg")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(SourceError, match="a member is a link"):
        open_at(tmp_path / "a.zip").names()
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        path = tmp_path / f"{kind.decode()}.tar.gz"
        path.write_bytes(tar_of([member("x.jpg", kind, "/etc/passwd")]))
        with pytest.raises(SourceError, match="a link or a device"):
            open_at(path).names()


def test_a_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, open_at: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "FREE_BYTES", 1 << 20)
    bomb = bytes(4 << 20)
    (tmp_path / "a.zip").write_bytes(zip_of({"1.jpg": bomb}))
    (tmp_path / "a.tgz").write_bytes(tar_of([member("1.jpg")], bomb))
    (tmp_path / "b.zip").write_bytes(zip_of({"x.txt": b"", "inner.zip": zip_of({"1.jpg": bomb})}))
    for name in ("a.zip", "a.tgz", "b.zip"):
        with pytest.raises(SourceError, match="times its size"):
            open_at(tmp_path / name).names()
    assert not list((tmp_path / "cache").rglob("1.jpg"))


def nest(kind: str, number: int, size: int) -> bytes:
    """Return a zip with `number` archives in it, each of which unpacks to `size` bytes."""
    inner = {
        f"{i:02d}.{kind}": zip_of({f"{i}.jpg": bytes(size)})
        if kind == "zip"
        else tar_of([member(f"{i}.jpg")], bytes(size - 1) + bytes([i]))
        for i in range(number)
    }
    return zip_of(inner | {"x.txt": b""})


@pytest.mark.parametrize("kind", ["zip", "tgz"])
def test_many_small_bombs_in_one_archive_are_one_bomb(
    tmp_path: Path, open_at: Open, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Each is below what an archive may unpack to in any case; together they are not."""
    monkeypatch.setattr(archives, "FREE_BYTES", 1 << 20)
    (tmp_path / "few.zip").write_bytes(nest(kind, 3, 300_000))
    assert len(open_at(tmp_path / "few.zip").names()) == 4
    (tmp_path / "many.zip").write_bytes(nest(kind, 20, 300_000))
    for _ in range(10):  # what an earlier attempt has unpacked counts, too
        with pytest.raises(SourceError, match="times its size") as error:
            open_at(tmp_path / "many.zip").names()
        assert error.value.where.startswith("many.zip in ")
    unpacked = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.jpg"))
    assert unpacked < 2 << 20


def test_a_download_of_zips_in_a_zip_has_room(
    tmp_path: Path, open_at: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures hardly shrink: stored zips of them unpack to about twice the outer one."""
    monkeypatch.setattr(archives, "FREE_BYTES", 0)
    parts = {
        f"part_{n}.zip": zip_of({f"{n}_{i}.jpg": os.urandom(4000) for i in range(20)})
        for n in range(5)
    }
    (tmp_path / "a.zip").write_bytes(zip_of(parts))
    assert len(open_at(tmp_path / "a.zip").names()) == 100


@pytest.mark.parametrize("name", ["a.zip", "a.tgz", "nested.zip"])
def test_too_many_members_are_refused(
    tmp_path: Path, open_at: Open, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    files = [f"{n}.jpg" for n in range(6)]
    content = {
        "a.zip": zip_of(dict.fromkeys(files, b"x")),
        "a.tgz": tar_of([member(file) for file in files]),
        "nested.zip": zip_of(
            {"1.zip": zip_of(dict.fromkeys(files[:2], b"x")), "2.zip": zip_of({"3.jpg": b"x"})}
            | {"4.jpg": b"x"}
        ),
    }
    (tmp_path / name).write_bytes(content[name])
    monkeypatch.setattr(archives, "MAX_MEMBERS", 6)
    assert len(open_at(tmp_path / name).names()) == (4 if name == "nested.zip" else 6)
    monkeypatch.setattr(archives, "MAX_MEMBERS", 5)
    with pytest.raises(SourceError) as error:
        open_at(tmp_path / name).names()
    assert error.value.what == (
        "the archive is not safe to open: there are more than 5 files in it"
    )
    assert error.value.where.startswith(f"{name} in ")


def test_an_encrypted_archive_says_so(tmp_path: Path, open_at: Open) -> None:
    data = bytearray(zip_of({"1.jpg": b"one"}))
    for header, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # where the flags are
        data[data.index(header) + offset] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(SourceError) as error:
        open_at(tmp_path / "a.zip").names()
    assert error.value.what == "the archive is encrypted"
    assert error.value.where.startswith("1.jpg in a.zip")
    assert "unpack it by hand" in error.value.fix


def test_a_huge_member_is_not_read_into_memory(
    tmp_path: Path, open_at: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_IMAGE_BYTES", 1 << 20)
    (tmp_path / "a.zip").write_bytes(zip_of({"1.jpg": bytes((1 << 20) + 1)}))
    files = open_at(tmp_path / "a.zip")
    with pytest.raises(SourceError, match="larger than 1 MiB"):
        files.read("1.jpg")


def test_a_damaged_archive_says_so(tmp_path: Path, open_at: Open) -> None:
    whole = zip_of({"1.jpg": bytes(range(256)) * 40})
    (tmp_path / "a.zip").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "a.tgz").write_bytes(tar_of([member("1.jpg")], bytes(range(256)) * 99)[:60])
    for name in ("a.zip", "a.tgz"):
        with pytest.raises(SourceError, match="the archive is damaged"):
            open_at(tmp_path / name).names()
    broken = bytearray(whole)
    broken[60] ^= 0xFF
    (tmp_path / "b.zip").write_bytes(broken)
    with pytest.raises(SourceError) as error:
        open_at(tmp_path / "b.zip").read("1.jpg")
    assert error.value.where.startswith("1.jpg in b.zip")


def test_two_members_of_one_name_are_refused(tmp_path: Path, open_at: Open) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("1.jpg", b"one")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("1.jpg", b"two")
    with pytest.raises(SourceError, match="the same name"):
        open_at(tmp_path / "a.zip").names()
