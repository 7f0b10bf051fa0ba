"""A cluster of several nodes loses one of them, or its head, while it trains."""

from __future__ import annotations

import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from .measure import half_written
from .runs import Run, epochs_stored, results, went_on_after

StartRun = Callable[..., Run]

pytestmark = pytest.mark.drill


class Cluster:
    """Ray nodes of this test on 127.0.0.1, each with its own folder for temporary files."""

    def __init__(self, serve: StartRun, folder: Path) -> None:
        self._serve = serve
        self._folder = folder
        (folder / "token").write_text(secrets.token_hex(32), encoding="utf-8")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
            "RAY_TMPDIR": str(folder),
        }

    def head(self, num_cpus: int) -> Run:
        """Start the head."""
        port = self.address.rpartition(":")[2]
        return self._node("h", "--head", f"--port={port}", f"--num-cpus={num_cpus}")

    def worker(self, name: str) -> Run:
        """Start another node, with two CPUs."""
        return self._node(name, f"--address={self.address}", "--num-cpus=2")

    def _node(self, name: str, *options: str) -> Run:
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        node = self._serve(
            folder,
            *[sys.executable, "-m", "ray.scripts.scripts", "start", "--block"],
            *["--disable-usage-stats", "--node-ip-address=127.0.0.1"],
            *["--include-dashboard=false"] * ("--head" in options),
            f"--temp-dir={folder}/{secrets.token_hex(2)}",
            *options,
            **self.environment,
        )
        node.wait_until(lambda: "Ray runtime started" in node.said)
        return node


@pytest.fixture
def cluster(serve: StartRun) -> Iterator[Cluster]:
    """Return a cluster without nodes."""
    folder = Path(tempfile.mkdtemp(prefix="lf-", dir="/tmp"))  # sockets want short paths
    yield Cluster(serve, folder)
    shutil.rmtree(folder, ignore_errors=True)


def _trains_on(node: Run) -> bool:
    """Tell whether a training's worker runs on `node`."""
    for process in node.processes():
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()):
                return True
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return False


def test_a_lost_node_costs_an_epoch_and_nothing_else(
    untrained: Path, expected: dict[str, str], start: StartRun, cluster: Cluster
) -> None:
    head = cluster.head(num_cpus=0)
    nodes = [cluster.worker("a"), cluster.worker("b")]
    run = start(
        untrained, "lesionflow", "retrain", RAY_ADDRESS=cluster.address, **cluster.environment
    )
    run.wait_until(lambda: epochs_stored(untrained) >= 2)
    next(node for node in nodes if _trains_on(node)).kill_everything()
    stored = epochs_stored(untrained)
    assert run.wait() == 0, run.said
    assert went_on_after(run, stored), run.said
    assert results(untrained) == expected
    assert head.process.poll() is None


def test_a_lost_head_is_one_clear_message_and_the_same_command_goes_on(
    untrained: Path, expected: dict[str, str], start: StartRun, cluster: Cluster
) -> None:
    head = cluster.head(num_cpus=2)
    environment = {"RAY_ADDRESS": cluster.address, **cluster.environment}
    run = start(untrained, "lesionflow", "retrain", **environment)
    run.wait_until(lambda: epochs_stored(untrained) >= 2)
    head.kill_everything()
    lost = time.monotonic()
    assert run.wait() == 2, run.said
    assert time.monotonic() - lost < 120
    assert "the Ray cluster was lost" in run.said
    assert half_written(untrained) == []
    stored = epochs_stored(untrained)
    cluster.head(num_cpus=2)
    again = start(untrained, "lesionflow", "retrain", **environment)
    assert again.wait() == 0, again.said
    assert went_on_after(again, stored), again.said
    assert results(untrained) == expected


def test_the_private_cluster_is_lost(
    untrained: Path, expected: dict[str, str], start: StartRun
) -> None:
    run = start(untrained, "lesionflow", "retrain")
    run.wait_until(lambda: epochs_stored(untrained) >= 2)
    for process in run.processes():
        if process.name() in ("gcs_server", "raylet"):
            process.kill()
    assert run.wait() == 2, run.said
    assert "the Ray cluster was lost" in run.said
    stored = epochs_stored(untrained)
    again = start(untrained, "lesionflow", "retrain")
    assert again.wait() == 0, again.said
    assert went_on_after(again, stored), again.said
    assert results(untrained) == expected
