"""An S3 endpoint on loopback that can be told to fail, to be slow, and to be away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wsgi import get_input_stream

from .ports import port_to_come_back_to

_ERROR = b"<Error><Code>InternalError</Code><Message>try again</Message></Error>"


class _Quiet(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        pass


class FaultyS3:
    """What is stored stays through every fault.

    Attributes
    ----------
    fail_every
        Every so many requests one is answered with status 500; 0: none.
    delay
        Seconds before any answer.
    requests
        How many there were, those that failed too.
    """

    def __init__(self) -> None:
        self.fail_every = 0
        self.delay = 0.0
        self.requests = 0
        self._numbers = count(1)
        self._app = DomainDispatcherApplication(create_backend_app)
        self._port = port_to_come_back_to()
        self._server = self._serve()

    @property
    def url(self) -> str:
        """The endpoint's address."""
        return f"http://127.0.0.1:{self._port}"

    def go_away(self, seconds: float) -> threading.Thread:
        """Refuse connections for `seconds`; return the thread that then comes back."""
        self.stop()

        def come_back() -> None:
            time.sleep(seconds)
            self._server = self._serve()

        thread = threading.Thread(target=come_back)
        thread.start()
        return thread

    def stop(self) -> None:
        """Refuse connections."""
        self._server.shutdown()
        self._server.server_close()

    def _serve(self) -> BaseWSGIServer:
        server = make_server("127.0.0.1", self._port, self._answer, True, request_handler=_Quiet)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        self.requests = next(self._numbers)
        time.sleep(self.delay)
        if self.fail_every and self.requests % self.fail_every == 0:
            get_input_stream(environ).read()
            start("500 Internal Server Error", [("Content-Type", "application/xml")])
            return [_ERROR]
        return self._app(environ, start)  # type: ignore[no-any-return]
