"""Saved models: what is written is read, damage is found, predictions are exact."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from components.backbones.inference import eight_views, exact_float32, softmax
from components.backbones.preprocess import Preprocessing
from components.backbones.saved import (
    LoadedModel,
    Member,
    ModelFile,
    load_model,
    read_model,
    save_model,
)
from components.backbones.zoo import create_backbone
from components.dataset.decode import PackSpec, UndecodableImage, decode_to_square
from components.errors import RegistryError

CLASSES = ("bkl", "mel", "nv")
BACKBONE = "mobilenet_v2"


def member(
    file: str = "model.safetensors", pack_size: int = 40, *, tta: bool = False, **changes: float
) -> Member:
    preprocessing = Preprocessing.of(BACKBONE, pack_size=pack_size, fit="crop", image_size=32)
    return Member(file=file, backbone=BACKBONE, preprocessing=preprocessing, tta=tta, **changes)


def network(seed: int = 0) -> dict[str, torch.Tensor]:
    """Return a state dict whose logits differ clearly from image to image."""
    torch.manual_seed(seed)
    model = create_backbone(BACKBONE, len(CLASSES))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the statistics are those of the pictures below
    inputs = member().preprocessing.to_input(torch.from_numpy(pictures(16, seed)))
    with torch.no_grad():
        model(inputs)
    model.head[1].weight.data.normal_(std=0.1)
    return model.state_dict()


def pictures(count: int, seed: int) -> np.ndarray:
    """Return squares of 40 pixels with 5 × 5 patches of colour."""
    patches = np.random.default_rng(seed).integers(0, 256, (count, 5, 5, 3), dtype=np.uint8)
    return patches.repeat(8, axis=1).repeat(8, axis=2)


def save(folder: Path, *members: Member) -> ModelFile:
    document = ModelFile(
        classes=CLASSES,
        malignant=("mel",),
        members=members,
        provenance={"data_id": "d1", "num_train_images": 5},
    )
    return save_model(folder, [network(seed) for seed in range(len(members))], document)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("single")
    save(path, member())
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> LoadedModel:
    return load_model(folder, device="cpu")


@pytest.fixture(scope="module")
def squares() -> np.ndarray:
    return pictures(13, seed=1)


def edit(folder: Path, copy: Path, **changes: object) -> Path:
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    document = json.loads((copy / "model.json").read_text()) | changes
    (copy / "model.json").write_text(json.dumps(document))
    return copy


def test_what_was_saved_is_read(folder: Path) -> None:
    document = read_model(folder)
    assert document.classes == CLASSES
    assert document.provenance == {"data_id": "d1", "num_train_images": 5}
    assert document.members[0].preprocessing == member().preprocessing
    assert len(document.members[0].sha256) == 64


def test_the_same_model_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    save(tmp_path, member())
    for name in ("model.json", "model.safetensors"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_no_model_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"no model here\n.*model\.json"):
        read_model(tmp_path)


def test_a_later_schema_is_refused_with_the_version_that_is_known(
    folder: Path, tmp_path: Path
) -> None:
    edit(folder, tmp_path, schema_version=2, something_new=[1])
    with pytest.raises(RegistryError, match=r"_version 2 is not known(.|\n)*schema_version 1"):
        read_model(tmp_path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"classes": ["nv"]}, "classes"),
        ({"classes": ["nv", "nv"], "malignant": []}, "twice"),
        ({"malignant": ["scc"]}, "malignant"),
        ({"members": []}, "members"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_contradictory_document_is_refused(
    folder: Path, tmp_path: Path, changes: dict[str, object], problem: str
) -> None:
    edit(folder, tmp_path, **changes)
    with pytest.raises(RegistryError, match=problem):
        read_model(tmp_path)


@pytest.mark.parametrize("file", ["../other.safetensors", "/etc/passwd", "weights.pth"])
def test_weights_lie_beside_the_document_as_safetensors(
    folder: Path, tmp_path: Path, file: str
) -> None:
    members = read_model(folder).model_dump(mode="json")["members"]
    edit(folder, tmp_path, members=[members[0] | {"file": file}])
    with pytest.raises(RegistryError, match=r"members\.0\.file"):
        load_model(tmp_path)


def test_a_changed_byte_is_found(folder: Path, tmp_path: Path) -> None:
    edit(folder, tmp_path)
    weights = tmp_path / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-100] ^= 1
    weights.write_bytes(data)
    with pytest.raises(RegistryError, match="checksum"):
        load_model(tmp_path)
    load_model(tmp_path, verify=False, device="cpu")


def test_missing_and_foreign_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    edit(folder, tmp_path, classes=["bkl", "nv"], malignant=[])
    with pytest.raises(RegistryError, match="size mismatch"):
        load_model(tmp_path, device="cpu")
    (tmp_path / "model.safetensors").write_bytes(b"no tensors at all")
    with pytest.raises(RegistryError, match=r"model\.safetensors"):
        load_model(tmp_path, verify=False, device="cpu")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(RegistryError, match="weights are missing"):
        load_model(tmp_path, device="cpu")


def test_a_wrapped_state_dict_is_not_saved(tmp_path: Path) -> None:
    wrapped = {f"module.{key}": value for key, value in network().items()}
    document = ModelFile(classes=CLASSES, malignant=(), members=(member(),))
    with pytest.raises(RuntimeError, match=r"module\.body"):
        save_model(tmp_path, [wrapped], document)
    assert list(tmp_path.iterdir()) == []


def test_probabilities_do_not_depend_on_the_batch(model: LoadedModel, squares: np.ndarray) -> None:
    whole = model.predict_proba(squares)
    assert whole.dtype == np.float64
    assert whole.std(axis=0).min() > 1e-3  # images differ: the comparison means something
    for batch_size in (1, 5, 64):
        np.testing.assert_allclose(
            model.predict_proba(squares, batch_size=batch_size), whole, atol=1e-5, rtol=0
        )
    np.testing.assert_array_equal(model.predict_proba(squares), whole)


def test_rows_of_a_memory_map_come_in_their_order(
    model: LoadedModel, squares: np.ndarray, tmp_path: Path
) -> None:
    np.save(tmp_path / "images.npy", squares)
    packed = np.load(tmp_path / "images.npy", mmap_mode="r")
    rows = np.array([7, 0, 12], dtype=np.int64)
    np.testing.assert_allclose(
        model.predict_proba(packed, rows=rows), model.predict_proba(squares)[rows], atol=1e-5
    )
    assert model.predict_proba(packed, rows=rows[:0]).shape == (0, 3)


def test_bytes_give_what_their_squares_give_however_many_there_are(model: LoadedModel) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    square = decode_to_square(buffer.getvalue(), PackSpec(40, "crop"))
    np.testing.assert_allclose(
        model.predict_bytes([buffer.getvalue()] * 70),
        np.repeat(model.predict_proba(square[None]), 70, axis=0),
        atol=1e-5,
    )
    with pytest.raises(UndecodableImage):
        model.predict_bytes([b"no image"])


def test_members_are_averaged_by_weight_after_their_temperature(
    tmp_path: Path, squares: np.ndarray
) -> None:
    first = member("a.safetensors", temperature=2.0, weight=3.0)
    second = member("b.safetensors", temperature=0.5)
    save(tmp_path, first, second)
    ensemble = load_model(tmp_path, device="cpu")
    one = softmax(ensemble.logits(0, squares) / 2)
    two = softmax(ensemble.logits(1, squares) / 0.5)
    assert abs(one - two).max() > 0.01
    np.testing.assert_allclose(
        ensemble.predict_proba(squares), (3 * one + two) / 4, rtol=0, atol=1e-12
    )


def test_members_may_want_different_squares(tmp_path: Path) -> None:
    save(tmp_path, member("a.safetensors", 40), member("b.safetensors", 48))
    ensemble = load_model(tmp_path, device="cpu")
    small, large = PackSpec(40, "crop"), PackSpec(48, "crop")
    assert ensemble.pack_specs == (small, large)
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (64, 64, 3), np.uint8)).save(
        buffer, "PNG"
    )
    data = buffer.getvalue()
    squares = {spec: decode_to_square(data, spec)[None] for spec in (small, large)}
    expected = sum(softmax(ensemble.logits(i, squares[s])) for i, s in enumerate((small, large)))
    np.testing.assert_allclose(ensemble.predict_bytes([data]), expected / 2, atol=1e-6)
    np.testing.assert_allclose(ensemble.predict_proba(squares), expected / 2, atol=1e-6)
    with pytest.raises(ValueError, match="different squares"):
        ensemble.predict_proba(squares[small])


def test_the_eight_views_are_all_flips_and_quarter_turns() -> None:
    image = torch.arange(9.0).reshape(1, 1, 3, 3)
    views = {tuple(view.flatten().tolist()) for view in eight_views(image)}
    assert len(views) == 8
    assert all(sorted(view) == list(range(9)) for view in views)


def test_with_tta_a_turned_or_flipped_picture_keeps_its_probabilities(
    folder: Path, tmp_path: Path, squares: np.ndarray
) -> None:
    save(tmp_path, member(tta=True))
    averaging, plain = load_model(tmp_path, device="cpu"), load_model(folder, device="cpu")
    upright = averaging.predict_proba(squares)
    np.testing.assert_allclose(plain.predict_proba(squares, tta=True), upright, atol=1e-12)
    assert abs(plain.predict_proba(squares) - upright).max() > 1e-3
    for turned in (np.rot90(squares, axes=(1, 2)), squares[:, :, ::-1]):
        again = averaging.predict_proba(np.ascontiguousarray(turned))
        np.testing.assert_allclose(again, upright, atol=1e-4)


def test_each_member_averages_over_the_views_or_not(tmp_path: Path, squares: np.ndarray) -> None:
    save(tmp_path, member("a.safetensors", tta=True), member("b.safetensors"))
    ensemble = load_model(tmp_path, device="cpu")
    one = softmax(ensemble.logits(0, squares, tta=True))
    two = softmax(ensemble.logits(1, squares, tta=False))
    np.testing.assert_allclose(ensemble.predict_proba(squares), (one + two) / 2, atol=1e-12)
    assert abs(ensemble.predict_proba(squares, tta=False) - (one + two) / 2).max() > 1e-3


@pytest.mark.parametrize("tta", [True, False])
def test_a_file_in_which_all_members_had_one_tta_is_read(
    folder: Path, tmp_path: Path, tta: bool
) -> None:
    members = read_model(folder).model_dump(mode="json", exclude={"members": {"__all__": {"tta"}}})
    edit(folder, tmp_path, members=members["members"], tta=tta)
    assert [member.tta for member in read_model(tmp_path).members] == [tta]
    edit(folder, tmp_path, members=[], tta=tta)
    with pytest.raises(RegistryError, match="members"):
        read_model(tmp_path)


def test_logits_that_are_not_finite_are_an_error(tmp_path: Path, squares: np.ndarray) -> None:
    state = network()
    state["head.1.bias"] = torch.full((3,), float("nan"))
    save_model(tmp_path, [state], ModelFile(classes=CLASSES, malignant=(), members=(member(),)))
    with pytest.raises(RegistryError, match="not finite"):
        load_model(tmp_path, device="cpu").predict_proba(squares)


def test_predicting_is_plain_float32_whatever_the_process_has_set(
    model: LoadedModel, squares: np.ndarray
) -> None:
    from torch.backends import mkldnn

    expected = model.logits(0, squares)
    before = (mkldnn.matmul.fp32_precision, mkldnn.conv.fp32_precision)
    try:
        mkldnn.matmul.fp32_precision = mkldnn.conv.fp32_precision = "bf16"
        with torch.autocast("cpu", dtype=torch.bfloat16):
            np.testing.assert_array_equal(model.logits(0, squares), expected)
        assert mkldnn.conv.fp32_precision == "bf16"
    finally:
        mkldnn.matmul.fp32_precision, mkldnn.conv.fp32_precision = before
    with exact_float32():
        assert mkldnn.conv.fp32_precision == "ieee"


def test_loading_and_predicting_leave_the_random_state_alone(
    folder: Path, squares: np.ndarray
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_model(folder, device="cpu").predict_proba(squares)
    assert torch.equal(torch.rand(3), expected)


def test_reading_a_model_file_does_not_import_torch(folder: Path) -> None:
    import subprocess
    import sys

    program = (
        "import sys, pathlib; from components.backbones.saved import read_model; "
        f"read_model(pathlib.Path({str(folder)!r})); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
