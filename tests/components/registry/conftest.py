"""A workspace whose stages have run: tiny coloured pictures, a real small network.

Everything is made by the real stages but the training: the network's body is random and its head
is fitted by least squares on the body's features, which takes no time and is as good as asked for.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.atomic import write_json, write_text
from components.dataset import pack
from components.dataset.measures import measure_bytes
from components.evaluation import evaluate, rank
from components.evaluation.ensembles import RunName
from components.layout import Layout
from components.params import Params, parse_params, read_yaml
from components.registry.store import open_store
from components.registry.versions import Registry, open_registry
from components.splitting import ledger
from components.tables import LABEL_COLUMNS, probability_columns, read_table, write_table
from tests.originals import read_originals, write_originals

BACKBONE = "mobilenet_v2"
CLASSES = ("bkl", "mel", "nv")
COLOURS = {"bkl": (200, 60, 60), "mel": (60, 200, 60), "nv": (60, 60, 200)}
SIDE = 32
RANDOM_START = {"origin": "none (random start)", "sha256": "", "our_model": False}
REPO = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Work:
    """A workspace with its parameters."""

    params: Params
    layout: Layout

    @property
    def registry(self) -> Registry:
        return open_registry(self.params.registry, self.layout)

    @property
    def pictures(self) -> Path:
        """Folder with the image files one by one, as those have them who ask for predictions."""
        return self.layout.root / "pictures"

    def gates(self, **bounds: Any) -> Work:
        """Return the same workspace with other gates."""
        gates = self.params.gates.model_copy(update=bounds)
        return replace(self, params=self.params.model_copy(update={"gates": gates}))


@pytest.fixture(scope="session")
def make_work() -> Callable[..., Work]:
    """Return a function that makes a workspace (see `_make_work`)."""
    return _make_work


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Work:
    work = _make_work(tmp_path_factory.mktemp("trained") / "workspace")
    train(work, skill=1.0)
    return work


@pytest.fixture
def work(tmp_path: Path, _trained: Work) -> Work:
    """Return a workspace with a good candidate and an empty registry."""

    folder = tmp_path / "workspace"
    shutil.copytree(_trained.layout.root, folder)
    return replace(_trained, layout=Layout(folder))


def _make_work(folder: Path, lesions: int = 24, classes: tuple[str, ...] = CLASSES) -> Work:
    """Make pictures, labels, a split, the packed set and the ledger in `folder`."""
    layout = Layout(folder)
    folder.mkdir(parents=True)
    work = Work(_params(classes), layout)
    labels, splits = make_snapshot(layout, lesions, classes)
    work.pictures.mkdir()
    for name, data in read_originals(layout.images).items():
        (work.pictures / name).write_bytes(data)
    write_table(labels, layout.labels)
    write_table(splits, layout.splits)
    write_json(layout.manifest, _manifest(labels))
    write_table(_quality(labels, layout), layout.quality)
    pack.run(work.params, layout)
    ledger.append(layout.split_ledger, splits, labels)
    write_text(layout.withdrawn, "column,value\n")
    return work


def _quality(labels: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    rows = []
    files = read_originals(layout.images)
    for image_id, sha256 in zip(labels["image_id"], labels["sha256"], strict=True):
        name = f"{image_id}.png"
        measured = asdict(measure_bytes(files[name]))
        rows.append({"image_id": image_id, "file_name": name, "sha256": sha256, **measured})
    return pd.DataFrame(rows)


def _params(classes: tuple[str, ...]) -> Params:
    document = read_yaml(REPO / "params" / "quickstart.yaml")
    document |= {
        "recipe": "tiny",
        "diagnoses": {"classes": list(classes), "malignant": ["mel"]},
        "pack": {"image_size": SIDE},
        "backbones": {BACKBONE: {}},
        "seeds": [0],
        "evaluation": {"bootstrap_resamples": 200},
        "gates": {"min_balanced_accuracy": 0.5},
        "registry": {"uri": "registry", "model_name": "tiny"},
    }
    document["training"] |= {"image_size": SIDE}
    return parse_params(document, where="the test")


def make_snapshot(
    layout: Layout, lesions: int, classes: tuple[str, ...]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write pictures, two per lesion; return labels and a split by lesion in thirds."""
    rows, parts = [], []
    files: dict[str, bytes] = {}
    rng = np.random.default_rng(0)
    for number in range(lesions):
        diagnosis = classes[number % len(classes)]
        part = ("train", "validation", "test")[(number // len(classes)) % 3]
        for shot in range(2):
            image_id = f"im_{number:03d}_{shot}"
            data = picture(COLOURS[diagnosis], rng)
            files[f"{image_id}.png"] = data
            rows.append(
                {
                    "image_id": image_id,
                    "lesion_id": f"lesion_{number:03d}",
                    "diagnosis": diagnosis,
                    "age_years": float(30 + number),
                    "sex": ("male", "female")[number % 2],
                    "source": "made",
                    "sha256": hashlib.sha256(data).hexdigest(),
                }
            )
            parts.append({"image_id": image_id, "group_id": f"lesion:{number:03d}", "split": part})
    write_originals(layout.images, files)
    labels = pd.DataFrame(rows, columns=list(LABEL_COLUMNS))
    text = [name for name in LABEL_COLUMNS if name != "age_years"]
    splits = pd.DataFrame(parts).assign(fold=pd.array([pd.NA] * len(parts), "Int64"), reason=None)
    return labels.astype(dict.fromkeys(text, "str")), splits


def picture(colour: tuple[int, int, int], rng: np.random.Generator) -> bytes:
    """Return a PNG, no square, of one colour with noise."""
    noise = rng.normal(0, 12, (40, 56, 3)) + rng.normal(0, 12, 3)
    pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def _manifest(labels: pd.DataFrame) -> dict[str, Any]:
    source = {"kind": "table", "name": "made", "licence": "CC0", "attribution": "made up"}
    return {
        "schema_version": 1,
        "content_id": hashlib.sha256(labels.to_csv().encode()).hexdigest(),
        "num_images": len(labels),
        "synthetic": False,
        "sources": [source],
    }


def train(
    work: Work,
    *,
    skill: float,
    seed: int = 0,
    seeds: tuple[int, ...] = (0,),
    start: Mapping[str, Any] = RANDOM_START,
) -> Work:
    """Write runs, evaluations and the leaderboard; return the work with these seeds.

    `skill`: the share of training images whose diagnosis the head is fitted to; of the rest it
    sees the next class' one. `start`: what the run says of the weights that it started from.
    """
    params, layout = work.params.model_copy(update={"seeds": seeds}), work.layout
    for backbone in params.backbones:
        for number in seeds:
            run = RunName(backbone, number)
            _fit_run(params, layout, run, skill, seed=seed + number, start=start)
            evaluate.run(params, layout, backbone, number)
        profile = {
            "backbone": backbone,
            "num_parameters": 1,
            "macs": 1,
            "size_bytes": 1,
            "latency_ms": {"cpu_batch1": {"median": 7.5, "p95": 9.0}},
            "machine": {},
        }
        write_json(layout.profile(backbone), profile)
    rank.run(params, layout)
    return replace(work, params=params)


def _fit_run(
    params: Params,
    layout: Layout,
    run: RunName,
    skill: float,
    *,
    seed: int,
    start: Mapping[str, Any],
) -> None:
    import torch

    from components.backbones.preprocess import Preprocessing
    from components.backbones.saved import Member, ModelFile, load_model, save_model
    from components.backbones.zoo import create_backbone, features

    classes = params.diagnoses.classes
    torch.manual_seed(seed)
    network = create_backbone(run.backbone, len(classes)).eval()
    spec = Preprocessing.of(run.backbone, pack_size=SIDE, fit="crop", image_size=SIDE)
    packed = pack.PackedImages.open(layout.packed)
    table = read_table(layout.splits).merge(read_table(layout.labels), on="image_id")
    train_rows = table[table["split"] == "train"]
    squares = torch.from_numpy(packed.images[packed.rows(list(train_rows["image_id"]))])
    truth = train_rows["diagnosis"].map({name: n for n, name in enumerate(classes)}).to_numpy()
    wrong = np.random.default_rng(seed).random(len(truth)) >= skill
    truth = np.where(wrong, (truth + 1) % len(classes), truth)
    with torch.no_grad():
        found = features(network, spec.to_input(squares)).double()
        scale = found.std(0).clamp_min(1e-30)
        inputs = torch.cat([(found - found.mean(0)) / scale, torch.ones(len(found), 1)], 1)
        wanted = 4 * torch.eye(len(classes), dtype=torch.float64)[torch.from_numpy(truth)]
        ridge = inputs.T @ inputs + 10 * torch.eye(inputs.shape[1], dtype=torch.float64)
        weights = torch.linalg.solve(ridge, inputs.T @ wanted)
        linear = next(m for m in network.head.modules() if isinstance(m, torch.nn.Linear))
        linear.weight.copy_((weights[:-1] / scale[:, None]).T)
        linear.bias.copy_(weights[-1] - (found.mean(0) / scale) @ weights[:-1])
    member = Member(
        file="model.safetensors",
        backbone=run.backbone,
        preprocessing=spec,
        tta=params.training_of(run.backbone).tta,
    )
    model = ModelFile(
        classes=classes,
        malignant=params.diagnoses.malignant,
        members=(member,),
        provenance={"weights": start},
    )
    folder = layout.run(run.backbone, run.seed)
    save_model(folder, [network.state_dict()], model)
    images = evaluate.part_table(layout, "validation")
    probabilities = load_model(folder).predict_proba(
        packed.images, rows=packed.rows(list(images["image_id"]))
    )
    columns = dict(zip(probability_columns(classes), probabilities.T, strict=True))
    write_table(images.assign(**columns), folder / "validation.parquet")


# --- registries --------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Run an S3 server on loopback; return its address."""
    from moto.s3.responses import S3Response
    from moto.server import ThreadedMotoServer

    put, one_at_a_time = S3Response.put_object, Lock()

    def put_in_one_step(response: S3Response) -> Any:
        """Compare and write as S3 does; moto's threads may write between the two."""
        with one_at_a_time:
            return put(response)

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(S3Response, "put_object", put_in_one_step)
        server.start()
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
        server.stop()


@pytest.fixture
def s3_bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a new bucket's name; the AWS variables of the process point to its server."""
    import boto3

    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    name = f"bucket-{uuid.uuid4().hex}"
    boto3.session.Session().client("s3").create_bucket(Bucket=name)
    return name


@pytest.fixture(params=["folder", "s3"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return where an empty registry lies: once a folder, once S3."""
    if request.param == "folder":
        return str(tmp_path / "registry")
    return f"s3://{request.getfixturevalue('s3_bucket')}/some/where"


@pytest.fixture
def registry(uri: str, tmp_path: Path) -> Registry:
    """Return an empty registry."""
    return Registry(open_store(uri, tmp_path), "tiny", tmp_path / "cache")


@pytest.fixture(scope="session")
def files_of() -> Callable[[str], dict[str, bytes]]:
    """Return a function that makes the files of a version out of a word."""
    return lambda word: {"model.json": f'"{word}"'.encode(), "predictions/test.parquet": b"rows"}
