"""`status`, `ui`, `schedule` and `doctor`: running it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Annotated

import typer

from components.atomic import write_json
from components.errors import ResourceError
from components.layout import Layout
from components.params import load_params
from flows.interrupts import terminal_signals_as_sigterm
from flows.server import (
    answers,
    flush_logs,
    port_claimed,
    running_server,
    server_file,
    settle_server,
    wait_for_server,
)

_SECONDS_TO_END = 20


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command()(status)
    app.command()(ui)
    app.command()(schedule)
    app.command()(doctor)


def status(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Tell the champion, what is out of date and why, the last runs and the next ones."""
    from flows.status import read_status, status_text

    document = read_status(Layout.find())
    print(json.dumps(document, indent=2) if as_json else status_text(document))


def ui(
    port: Annotated[int, typer.Option(min=1, max=65535)] = 4200,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve the Prefect UI with this workspace's runs, past and under way, until Ctrl-C."""
    layout = Layout.find()
    running = running_server(layout)
    if running is not None:
        print(f"already served at {running}")
        return
    with serving(layout, host, port) as server:
        server.wait()
    sys.exit(server.returncode)


def schedule(
    port: Annotated[int, typer.Option(min=1, max=65535)] = 4200,
) -> None:
    """Serve the scheduled flows (params.yaml: schedule) from this process until Ctrl-C."""
    layout = Layout.find()
    load_params(layout.params)
    settle_server(layout)
    server: subprocess.Popen[bytes] | None = None
    with terminal_signals_as_sigterm(), ExitStack() as stack:
        if "PREFECT_API_URL" not in os.environ:
            url = f"http://127.0.0.1:{port}"
            server = stack.enter_context(serving(layout, "127.0.0.1", port))
            os.environ["PREFECT_API_URL"] = f"{url}/api"
            print(f"runs are shown at {url}", flush=True)
        from flows.deployments import serve_deployments
        from flows.serving import ended_with

        if server is not None:
            stack.enter_context(ended_with(server))
        serve_deployments(layout, own_server=server is not None)


@contextmanager
def serving(layout: Layout, host: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Prefect server over this workspace's database; it answers when the block begins."""
    url = f"http://{host}:{port}"
    if answers(url):
        raise ResourceError(
            f"another Prefect server answers at {url}",
            where=f"port {port}",
            fix="stop it, or choose another --port",
        )
    settle_server(layout)
    command = ["prefect", "server", "start", "--host", host, "--port", str(port)]
    with port_claimed(layout, url) as claim:
        server = subprocess.Popen(
            [sys.executable, "-m", *command],
            env={**os.environ, "PREFECT_UI_API_URL": f"{url}/api"},
            pass_fds=(claim,),
            start_new_session=True,  # Ctrl-C goes to us; the last states must still be written
        )
    try:
        wait_for_server(url, server)
        write_json(server_file(layout), {"url": url})
        yield server
    finally:
        try:
            flush_logs()
        finally:
            _end(server, layout)


def _end(server: subprocess.Popen[bytes], layout: Layout) -> None:
    server_file(layout).unlink(missing_ok=True)
    server.terminate()
    try:
        server.wait(timeout=_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def doctor() -> None:
    """Check this machine and workspace; exit 1 if something would fail."""
    from flows.doctor import findings

    bad = False
    for finding in findings(Layout.find()):
        print(f"{'ok  ' if finding.ok else 'BAD '} {finding.what}")
        if not finding.ok:
            bad = True
            print(f"     to do: {finding.fix}")
    sys.exit(1 if bad else 0)
