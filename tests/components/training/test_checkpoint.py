import os
from pathlib import Path

import pytest
import torch

from components.errors import TrainingError
from components.training.checkpoint import (
    FACTS,
    TENSORS,
    Checkpoint,
    Storage,
    check_writable,
    folder_name,
    forget_old,
    newest_whole,
    save,
)


def keep(folder: Path, epoch: int, attempt: str = "a") -> Path:
    target = folder / f"{folder_name(epoch)}-{attempt}"
    target.mkdir(parents=True)
    weights = torch.full((3, 2), float(epoch))
    tensors = {"weights": weights, "same": weights, "bf16": weights.bfloat16()}
    save(target, Checkpoint(tensors, {"epoch": epoch}))
    return target


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    for epoch in (1, 2, 10):
        keep(tmp_path, epoch)
    return Storage.open(str(tmp_path))


def test_newest_is_taken_with_all_that_it_held(storage: Storage) -> None:
    found = newest_whole(storage)
    assert found is not None and found.facts == {"epoch": 10}
    assert torch.equal(found.tensors["weights"], torch.full((3, 2), 10.0))
    assert torch.equal(found.tensors["same"], found.tensors["weights"])
    assert found.tensors["bf16"].dtype == torch.bfloat16


@pytest.mark.parametrize("damage", ["flipped bit", "cut off", "empty", "no facts", "no tensors"])
def test_damaged_checkpoint_falls_back_to_the_one_before(
    storage: Storage, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = Path(storage.path) / f"{folder_name(10)}-a"
    tensors = newest / TENSORS
    data = bytearray(tensors.read_bytes())
    if damage == "flipped bit":
        data[-1] ^= 1
        tensors.write_bytes(data)
    elif damage == "cut off":
        tensors.write_bytes(data[: len(data) // 2])
    elif damage == "empty":
        (newest / FACTS).write_bytes(b"")
    else:
        (newest / (FACTS if damage == "no facts" else TENSORS)).unlink()
    found = newest_whole(storage)
    assert found is not None and found.facts == {"epoch": 2}
    assert newest.name in capsys.readouterr().out


def test_of_two_attempts_at_an_epoch_the_whole_one_is_taken(storage: Storage) -> None:
    broken = keep(Path(storage.path), 10, "z")
    (broken / TENSORS).write_bytes(b"half")
    found = newest_whole(storage)
    assert found is not None and found.facts == {"epoch": 10}


def test_nothing_stored_is_a_fresh_start(tmp_path: Path) -> None:
    assert newest_whole(Storage.open(str(tmp_path / "none"))) is None
    (tmp_path / "final").mkdir()
    assert newest_whole(Storage.open(str(tmp_path))) is None


def test_removing_what_is_gone_is_no_error(storage: Storage) -> None:
    storage.remove()
    storage.remove()
    assert storage.names() == []


def test_trainings_that_never_went_on_are_forgotten(tmp_path: Path) -> None:
    for name in ("old", "new"):
        keep(tmp_path / name, 1)
    for path in (tmp_path / "old").rglob("*"):
        os.utime(path, (1e9, 1e9))
    forget_old(Storage.open(str(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    forget_old(Storage.open(str(tmp_path / "nothing here")))


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match="checkpoints cannot be stored"):
        check_writable(str(tmp_path / "file" / "below"))


def test_s3_storage_works_like_a_folder(bucket: str, storage: Storage) -> None:
    from pyarrow.fs import copy_files

    check_writable(bucket)
    remote = Storage.open(bucket)
    copy_files(storage.path, remote.path, destination_filesystem=remote.filesystem)
    found = newest_whole(remote)
    assert found is not None and found.facts == {"epoch": 10}
    remote.remove()
    assert newest_whole(Storage.open(bucket)) is None


@pytest.mark.usefixtures("bucket")
def test_bucket_that_does_not_exist_is_named() -> None:
    with pytest.raises(TrainingError, match="checkpoints cannot be stored"):
        check_writable("s3://no-such-bucket/prefix")
