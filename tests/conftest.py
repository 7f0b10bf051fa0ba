"""What all tests share: isolation from the user's home and clusters, a workspace, real data."""

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

import pytest

from tests.receiver import Receiver, listening

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
