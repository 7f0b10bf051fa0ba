"""Which Prefect server a command talks to; settled before Prefect is imported.

`PREFECT_API_URL` set: that server. Otherwise the one that `lesionflow ui` started in this
workspace, when it answers; else a temporary one over the same database, so that a later
`lesionflow ui` shows what ran without it.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from components.errors import ResourceError
from components.layout import Layout
from flows.imports import import_early
from flows.terminal import shorten_run_lines

_ANSWER_SECONDS = 10.0
"""A server that is there may be busy for seconds; one that is not refuses at once."""
_TASK_LINE = "%(asctime)s  %(task_run_name)s  %(message)s"
_FLOW_LINE = "%(asctime)s  %(flow_run_name)s  %(message)s"


def settle_server(layout: Layout) -> None:
    """Set Prefect's environment for this process and what it starts, and how its lines read."""
    shorten_run_lines()
    defaults = {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": _TASK_LINE,
        "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": _FLOW_LINE,
        "PREFECT_LOGGING_FORMATTERS_STANDARD_DATEFMT": "%H:%M:%S",
    }
    if "PREFECT_API_URL" not in os.environ:
        home = Path(os.environ.get("PREFECT_HOME", prefect_home(layout)))
        home.mkdir(parents=True, exist_ok=True)  # Prefect makes no parents, and then cannot start
        defaults["PREFECT_HOME"] = str(home)
        running = running_server(layout)
        if running is not None:
            defaults["PREFECT_API_URL"] = f"{running}/api"
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


@contextmanager
def workspace_server(layout: Layout) -> Iterator[Callable[[], None]]:
    """Settle which server to use; start a temporary one if there is none.

    Prefect would start one itself, but only when asked for the first time, and would import the
    whole server into this process for it. This one starts at once, beside the imports: call what
    is yielded before the first flow.

    Raises
    ------
    ResourceError
        The temporary server did not start (from the yielded function), or the server was away when
        the run had to begin or to end.
    """
    settle_server(layout)
    if "PREFECT_API_URL" in os.environ:
        where = f"PREFECT_API_URL, {host(os.environ['PREFECT_API_URL'])}"
        with _away_as_error(
            where, "start it again, or unset PREFECT_API_URL for one of the workspace's own, and "
        ):
            yield lambda: None
        return
    if not Path(os.environ["PREFECT_HOME"], "prefect.db").exists():
        print("Prefect makes its database: once per workspace, up to half a minute", flush=True)
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    log = prefect_home(layout) / "temporary-server.log"
    log.parent.mkdir(parents=True, exist_ok=True)  # with PREFECT_HOME set, nobody else makes it
    with log.open("wb") as lines:
        server = subprocess.Popen(
            [sys.executable, "-m", "flows.temporary_server", str(port)],
            env={**os.environ, "PREFECT_UI_API_URL": f"{url}/api"},
            stdin=subprocess.PIPE,
            stdout=lines,
            stderr=lines,
            start_new_session=True,  # Ctrl-C goes to us; the last states must still be written
        )
    os.environ["PREFECT_API_URL"] = f"{url}/api"

    def wait_until_it_answers() -> None:
        import_early()
        wait_for_server(url, server, log)

    try:
        with _away_as_error(f"the temporary one of this command; it wrote {log}", ""):
            yield wait_until_it_answers
    finally:
        flush_logs()
        del os.environ["PREFECT_API_URL"]
        assert server.stdin is not None
        server.stdin.close()
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@contextmanager
def _away_as_error(where: str, first: str) -> Iterator[None]:
    """Turn a server that does not answer, after Prefect has tried for a minute, into one error.

    `first` is what to do before the same command is run again.
    """
    import httpx

    try:
        yield
    except (httpx.TransportError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "Failed to reach API" not in str(error):
            raise
        raise ResourceError(
            "the Prefect server does not answer",
            where=where,
            fix=f"{first}run the same command: what was done is not done twice",
        ) from error


def wait_for_server(url: str, server: subprocess.Popen[bytes], log: Path | None = None) -> None:
    """Return when the server at `url` answers.

    Raises
    ------
    ResourceError
        It ended, or two minutes are over.
    """
    end = time.monotonic() + 120
    while not answers(url):
        if server.poll() is not None or time.monotonic() > end:
            raise ResourceError(
                "the Prefect server did not start",
                where=str(log or url),
                fix="read what it wrote there; `lesionflow doctor` knows the usual causes",
            )
        time.sleep(0.1)


def flush_logs() -> None:
    """Send what Prefect still holds back while there is somebody to take it."""
    if "prefect" not in sys.modules:
        return
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=10)
    EventsWorker.drain_all(timeout=10)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def prefect_home(layout: Layout) -> Path:
    """Folder of the workspace's own Prefect database."""
    return layout.state / "prefect"


def server_file(layout: Layout) -> Path:
    """Where `lesionflow ui` writes the address that it serves."""
    return prefect_home(layout) / "server.json"


def running_server(layout: Layout) -> str | None:
    """Return the address of the server that `lesionflow ui` started here, if it answers.

    The file may have outlived its server (a power failure), and another workspace's server have
    the port now: only a server that holds this workspace's lock of the port is meant.
    """
    try:
        url = str(json.loads(server_file(layout).read_text(encoding="utf-8"))["url"])
        held = _is_held(_port_lock(layout, url))
    except (OSError, ValueError, KeyError):
        return None
    return url if held and answers(url) else None


@contextmanager
def port_claimed(layout: Layout, url: str) -> Iterator[int]:
    """Yield a file descriptor that a server for `url` must inherit, and nobody else.

    It holds this workspace's lock of the port: that of the operating system, which goes with the
    last process that has the descriptor, however it ends. This one closes it after the block.

    Raises
    ------
    ResourceError
        A server of this workspace has the lock.
    """
    path = _port_lock(layout, url)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        end = time.monotonic() + 2  # who looks whether it is held has it for a moment
        while not _lock(file, fcntl.LOCK_EX):
            if time.monotonic() > end:
                raise ResourceError(
                    f"a server of this workspace has or is about to have {host(url)}",
                    where=str(path),
                    fix="wait until it answers, or end that `prefect server start`",
                )
            time.sleep(0.1)
        yield file.fileno()


def _port_lock(layout: Layout, url: str) -> Path:
    return prefect_home(layout) / f"server-{urlsplit(url).port}.lock"


def _is_held(path: Path) -> bool:
    with path.open("rb") as file:
        return not _lock(file, fcntl.LOCK_SH)


def _lock(file: BinaryIO, how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def answers(url: str) -> bool:
    """Whether a Prefect server answers at `url` (such as `http://127.0.0.1:4200`)."""
    parts = urlsplit(url)
    request = f"{parts._replace(netloc=host(url)).geturl()}/api/health"  # asks for no password
    try:
        with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as response:
            return bool(response.status == 200)
    except (OSError, ValueError, HTTPException):
        return False


def host(url: str) -> str:
    """Return host and port of `url`, without the password that may stand before them."""
    return urlsplit(url).netloc.rpartition("@")[2]
