"""A command without `PREFECT_API_URL` has a server of its own; when that dies, it says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from pathlib import Path
import psutil
from components.errors import LesionflowError
from components.layout import Layout
from flows.server import workspace_server
try:
    with workspace_server(Layout(Path(sys.argv[1]))) as wait_until_it_answers:
        wait_until_it_answers()
        from prefect.client.orchestration import get_client
        with get_client(sync_client=True) as client:
            client.read_flows()
            (server,) = psutil.Process().children()
            server.kill()
            server.wait()
            client.read_flows()
except LesionflowError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_a_temporary_server_that_dies_is_told_by_its_log_and_not_by_a_variable_nobody_has_set(
    workspace: Path,
) -> None:
    ours = {"PREFECT_HOME", "PREFECT_API_URL"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(workspace)],
        env={name: value for name, value in os.environ.items() if name not in ours}
        | {"PREFECT_CLIENT_MAX_RETRIES": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    told = done.stdout[done.stdout.index("the Prefect server does not answer") :]
    log = workspace / ".lesionflow" / "prefect" / "temporary-server.log"
    assert str(log) in told
    assert log.is_file()
    assert "run the same command" in told
    assert "PREFECT_API_URL" not in told
