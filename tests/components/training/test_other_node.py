"""A cluster whose second node shares neither our disk nor our code: all goes through S3.

The node is real (a raylet of its own); its mount namespace hides the workspace and the checkout.
"""

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

import boto3
import pytest
from moto.server import ThreadedMotoServer

from components.layout import Layout

pytestmark = pytest.mark.slow
BACKBONE = "mobilenet_v3_large"
START = f"{sys.executable} -m ray.scripts.scripts start --block --disable-usage-stats"


def own_address() -> str | None:
    """Return an address of this machine that is not the loopback, without any traffic."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address = str(probe.getsockname()[0])
    return None if address.startswith("127.") else address


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="lesions")
    yield "s3://lesions/storage"
    server.stop()


def wait_for(log: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while "Ray runtime started" not in log.read_text(errors="replace"):
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def hide(*folders: Path, aside: Path) -> Iterator[str]:
    """Yield the shell commands that empty `folders`, but for an environment that lies in one."""
    environment = Path(sys.prefix)
    kept = aside / "environment"
    yield f"mkdir {kept} && mount --rbind {environment} {kept}"
    for path in folders:
        yield f"mount -t tmpfs none {path}"
        if environment.is_relative_to(path):
            yield f"mkdir -p {environment} && mount --rbind {kept} {environment}"


@pytest.fixture
def cluster(stage: Callable[..., Layout], repo: Path, s3: str) -> Iterator[tuple[Layout, Path]]:
    """Yield a workspace that stores on S3 and the second node's cache; set `RAY_ADDRESS`."""
    address = own_address()
    if address is None or os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root, unshare and an address that is not the loopback")
    layout = stage()
    text = layout.params.read_text()
    layout.params.write_text(text.replace("storage: .lesionflow/storage", f"storage: {s3}"))
    folder = Path(tempfile.mkdtemp(prefix="lf-nodes-", dir="/tmp"))
    (folder / "token").write_text(secrets.token_hex(32))
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(folder / "token"))
    # Nodes know what opens S3, but not where it is: that travels with the training.
    known = {name: value for name, value in os.environ.items() if name != "AWS_ENDPOINT_URL"}
    head_address = f"{address}:{free_port()}"
    mounts = " && ".join(hide(repo, layout.root, layout.packed.resolve().parent, aside=folder))
    commands = {
        "head": f"exec {START} --head --port={head_address.rpartition(':')[2]} --num-cpus=0 "
        "--include-dashboard=false",
        "node": f"{mounts} && cd / && exec {START} --address={head_address} --num-cpus=2",
    }
    started = []
    try:
        for name, command in commands.items():
            log = folder / f"{name}.log"
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [
                        "unshare",
                        "-m",
                        "sh",
                        "-c",
                        f"{command} --node-ip-address={address} --temp-dir={folder}/{name[0]}",
                    ],
                    env=known | {"XDG_CACHE_HOME": str(folder / "cache"), "HOME": str(folder)},
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd="/",
                )
            started.append(process)
            wait_for(log, process)
        os.environ["RAY_ADDRESS"] = head_address
        yield layout, folder / "cache" / "lesionflow" / "content"
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait()
        for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
            os.environ.pop(name, None)
        shutil.rmtree(folder, ignore_errors=True)


def test_node_without_our_disk_and_code_trains(cluster: tuple[Layout, Path]) -> None:
    layout, cache = cluster
    command = [sys.executable, "-m", "components.training.train"]
    done = subprocess.run(
        [*command, "--backbone", BACKBONE, "--seed", "0"],
        cwd=layout.root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    address = os.environ["RAY_ADDRESS"].partition(":")[0]
    assert f"{BACKBONE}-0: trains on {address}" in done.stdout.splitlines()
    assert (layout.run(BACKBONE, 0) / "model.safetensors").is_file()
    (fetched,) = cache.glob("packed-*/")
    assert sorted(path.name for path in fetched.iterdir()) == [
        "images.npy",
        "index.parquet",
        "spec.json",
    ]
    listed = boto3.client("s3").list_objects_v2(Bucket="lesions")["Contents"]
    left = [item["Key"] for item in listed if "/epoch-" in item["Key"] and item["Size"]]
    assert not left, "checkpoints are left on S3"
