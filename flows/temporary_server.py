"""A Prefect server for one command: it ends when the command does, however that comes about.

Usage: python -m flows.temporary_server PORT, with a pipe as standard input.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from flows.imports import no_collection


def main() -> None:
    """Serve on 127.0.0.1 until standard input closes."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with no_collection():
        import uvicorn
        from prefect.server.api.server import create_app

    uvicorn.run(
        create_app,
        factory=True,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="error",
        lifespan="on",
        timeout_graceful_shutdown=1,  # not until the client's open connections are closed
    )


def _end_with_parent() -> None:
    # The pipe closes when the parent closes it, and also when the parent is killed.
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
