"""The Prefect server dies while a run is at work, and comes back: the run does not mind."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.server import answers

from .ports import port_to_come_back_to
from .runs import Run, epochs_stored, results

StartRun = Callable[..., Run]

pytestmark = pytest.mark.drill


class Server:
    """A Prefect server of this test, each time with the same address and database."""

    def __init__(self, serve: StartRun, folder: Path) -> None:
        self._serve = serve
        self._folder = folder
        self._port = str(port_to_come_back_to())
        self.address = f"http://127.0.0.1:{self._port}"

    def serve(self) -> Run:
        """Start it; return when it answers."""
        command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", self._port]
        run = self._serve(
            self._folder,
            *[sys.executable, "-m", *command],
            PREFECT_HOME=str(self._folder),
            PREFECT_API_URL=f"{self.address}/api",
        )
        run.wait_until(lambda: answers(self.address))
        return run


@pytest.fixture
def server(tmp_path: Path, serve: StartRun) -> Server:
    """Return a server that is not started yet."""
    (tmp_path / "server").mkdir()
    return Server(serve, tmp_path / "server")


def _states(address: str, what: str) -> dict[str, str]:
    request = urllib.request.Request(
        f"{address}/api/{what}/filter", data=b"{}", headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        rows: list[dict[str, Any]] = json.load(response)
    return {row["name"]: row["state_type"] for row in rows}


@pytest.mark.parametrize("comes_back_after", ["one more training", "the run"])
def test_the_server_is_killed_and_restarted_during_a_retrain(
    untrained: Path,
    expected: dict[str, str],
    start: StartRun,
    server: Server,
    comes_back_after: str,
) -> None:
    serving = server.serve()
    environment = {
        "PREFECT_API_URL": f"{server.address}/api",
        "PREFECT_HOME": str(untrained.parent / "home"),
    }
    run = start(untrained, "lesionflow", "retrain", **environment)
    run.wait_until(lambda: epochs_stored(untrained) >= 1)
    serving.kill_everything()
    if comes_back_after == "the run":
        assert run.wait() == 2, run.said
        assert "not shown in the UI, the Prefect server is away" in run.said
        assert "the Prefect server does not answer" in run.said
    else:
        run.wait_until(lambda: any(untrained.glob("runs/*/model.json")))
        server.serve()
        assert run.wait() == 0, run.said
        flows = _states(server.address, "flow_runs")
        assert set(flows.values()) == {"COMPLETED"}, flows
    assert results(untrained) == expected, run.said
    again = start(untrained, "lesionflow", "retrain")
    assert again.wait() == 0, again.said
    assert "nothing had changed" in again.said
