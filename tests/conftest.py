"""What all tests share: isolation from the user's home and clusters, workspaces, real data."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.receiver import Receiver, listening

Command = Callable[..., subprocess.CompletedProcess[str]]
REPO = Path(__file__).resolve().parents[1]
_WORKSPACE_PARTS = (
    "components",
    "flows",
    "tasks",
    "params",
    "data",
    "dvc.yaml",
    "params.yaml",
    ".dvcignore",
    ".gitignore",
    "pyproject.toml",
)

# Set before any test module imports an engine.
os.environ.update(
    {
        "DO_NOT_TRACK": "1",
        "DVC_NO_ANALYTICS": "1",
        "GX_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
)
# `dvc`, `lesionflow` and the stages' `python` are those of the environment that runs the tests,
# activated or not.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
for name in ("RAY_ADDRESS", "PREFECT_API_URL", "PREFECT_HOME", "LESIONFLOW_WEIGHTS"):
    os.environ.pop(name, None)


@pytest.fixture(scope="session")
def repo() -> Path:
    """Return the root of this checkout."""
    return REPO


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder with real images and weights, or skip the test."""
    folder = Path(os.environ.get("LESIONFLOW_REAL_DATA", REPO.parent / "shared" / "data"))
    if not (folder / "ham10000-mini").is_dir():
        pytest.skip(f"no real data at {folder} (set LESIONFLOW_REAL_DATA)")
    return folder


@pytest.fixture(scope="session")
def copy_workspace() -> Callable[[Path], Path]:
    """Return a function that makes a fresh workspace: the tracked files, Git and DVC set up."""

    def make(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z", *_WORKSPACE_PARTS],
            cwd=REPO,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for name in filter(None, listed.split("\0")):
            if (REPO / name).is_file():
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(REPO / name, target)
        # These of the checkout may hold what somebody ran there.
        written = ("split_ledger.csv", "sources.json", "test_uses.json", "weights.json")
        for name in (f"data/{each}" for each in written):
            tracked = subprocess.run(
                ["git", "show", f"HEAD:{name}"], cwd=REPO, capture_output=True, check=False
            )
            if tracked.returncode == 0:
                (folder / name).write_bytes(tracked.stdout)
        for command in (["git", "init", "-q"], ["dvc", "init", "-q"]):
            subprocess.run(command, cwd=folder, check=True, capture_output=True)
        return folder

    return make


@pytest.fixture(scope="session")
def _blank_workspace(
    tmp_path_factory: pytest.TempPathFactory, copy_workspace: Callable[[Path], Path]
) -> Path:
    return copy_workspace(tmp_path_factory.mktemp("blank") / "workspace")


@pytest.fixture
def workspace(tmp_path: Path, _blank_workspace: Path) -> Path:
    """Return a fresh workspace with the quickstart recipe, nothing run in it yet."""
    return Path(shutil.copytree(_blank_workspace, tmp_path / "workspace"))


@pytest.fixture(scope="session")
def lesionflow() -> Command:
    """Return a function that runs `lesionflow …` in a workspace as a user would."""

    def run(
        workspace: Path, *arguments: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        # Prefect's database of the workspace itself: what `lesionflow ui` would show.
        kept = {name: value for name, value in os.environ.items() if name != "PREFECT_HOME"}
        return subprocess.run(
            ["lesionflow", *arguments],
            cwd=workspace,
            env={**kept, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=1200,
        )

    return run


@pytest.fixture(scope="session")
def edit_params() -> Callable[..., None]:
    """Return a function that sets dotted keys of a workspace's `params.yaml`."""

    def edit(workspace: Path, **changes: Any) -> None:
        yaml = YAML()
        path = workspace / "params.yaml"
        document = yaml.load(path.read_text(encoding="utf-8"))
        for key, value in changes.items():
            *parents, last = key.split("__")
            place = document
            for parent in parents:
                place = place[int(parent) if parent.isdigit() else parent]
            place[last] = value
        with path.open("w", encoding="utf-8") as file:
            yaml.dump(document, file)

    return edit


@pytest.fixture(scope="session")
def shrink(edit_params: Callable[..., None]) -> Callable[[Path], None]:
    """Return a function that makes the quickstart of a workspace as small as it can be."""

    def make_small(workspace: Path) -> None:
        edit_params(
            workspace,
            sources__0__options__lesions=150,
            sources__0__options__image_size=160,
            pack__image_size=32,
            training__image_size=32,
            training__epochs=2,
            evaluation__bootstrap_resamples=200,
            gates__min_balanced_accuracy=0.0,
        )

    return make_small


@pytest.fixture(scope="session")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
    copy_workspace: Callable[[Path], Path],
    shrink: Callable[[Path], None],
    lesionflow: Command,
) -> Path:
    """Return a workspace in which `lesionflow retrain` has run once. Do not change it."""
    workspace = copy_workspace(tmp_path_factory.mktemp("finished") / "workspace")
    shrink(workspace)
    done = lesionflow(workspace, "retrain")
    (workspace / "terminal.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return workspace


@pytest.fixture
def finished_copy(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished workspace that the test may change."""
    target = tmp_path / "copy"
    # With times kept: DVC knows a file by its time before it looks at its bytes.
    subprocess.run(["cp", "-a", str(finished), str(target)], check=True)
    return target


@pytest.fixture(scope="session", autouse=True)
def _prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep Prefect's database of this user out of the tests."""
    home = tmp_path_factory.mktemp("prefect")
    os.environ["PREFECT_HOME"] = str(home)
    yield
    os.environ.pop("PREFECT_HOME", None)


@pytest.fixture(scope="session")
def prefect_server(_prefect_home: None) -> Iterator[None]:
    """Run the session's flows against one temporary Prefect server."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Return a running webhook on loopback."""
    with listening() as received:
        yield received


@pytest.fixture(scope="session")
def job_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Run a Ray head with its job server, and S3; yield the variables of a client outside of it.

    The head knows what opens S3 and not where it is: that travels with the training.
    """
    import boto3
    from moto.server import ThreadedMotoServer

    s3 = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    s3.start()
    host, port = s3.get_host_and_port()
    token = tmp_path_factory.mktemp("ray") / "token"
    token.write_text(secrets.token_hex(32), encoding="utf-8")
    place = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    key = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "never-to-be-seen"}
    ray = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    boto3.client(
        "s3",
        endpoint_url=place["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    ).create_bucket(Bucket="lesions")
    folder = Path(tempfile.mkdtemp(prefix="lf-", dir="/tmp"))  # Ray's sockets want short paths
    gcs, dashboard, agent = (_free_port() for _ in range(3))
    log = folder / "start.log"
    with log.open("wb") as output:
        head = subprocess.Popen(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
                *(f"--node-ip-address={_own_address()}", f"--port={gcs}", "--num-cpus=2"),
                *(f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"),
                *(f"--temp-dir={folder}", "--disable-usage-stats"),
            ],
            cwd="/",
            env=os.environ | key | ray,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 300
        while "Ray runtime started" not in (said := log.read_text(errors="replace")):
            assert head.poll() is None and time.monotonic() < deadline, said
            time.sleep(0.2)
        yield place | key | ray | {"RAY_ADDRESS": f"http://127.0.0.1:{dashboard}"}
    finally:
        head.terminate()
        head.wait()
        s3.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _own_address() -> str:
    """Return an address of this machine that is not the loopback, if it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def without_champion(finished_copy: Path) -> Path:
    """Return a copy of the finished workspace that nothing is promoted in yet."""
    shutil.rmtree(finished_copy / "registry")
    return finished_copy
