"""Ray's job server: how a client outside of the cluster has work done there, and follows it.

The work belongs to the cluster: it goes on when the client is killed or loses the connection, and
whoever comes back finds it by its metadata. Only a client that is asked to end (Ctrl-C, SIGTERM)
ends it.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from components.cluster import check_address, unusable
from components.errors import ResourceError

_REQUEST_SECONDS = (10, 60)  # to connect, to answer
_MAX_NODES = 10_000  # that Ray tells at once
_SILENCE_SECONDS = 60  # without a line: the connection may be dead without anybody saying so
_PATIENCE_SECONDS = 300.0


class JobServer:
    """The job server at `address` (`http://…`, `https://…`).

    Raises
    ------
    ResourceError
        It does not answer, is no job server of Ray, or refuses our token. So do all methods.
    """

    def __init__(self, address: str) -> None:
        check_address(address)
        self.address = address
        with self._errors():
            self._client = _client(address)

    def nodes(self) -> list[Mapping[str, float]]:
        """Return the resources of every node; how far the cluster may grow is not known here."""
        from ray.util.state import list_nodes

        alive = [("state", "=", "ALIVE")]
        with self._errors():
            found = list_nodes(self.address, filters=alive, limit=_MAX_NODES, timeout=10)
        return [node.resources_total for node in found]

    def find(self, metadata: Mapping[str, str]) -> str | None:
        """Return the id of a job with this metadata that has not ended, if there is one."""
        with self._errors():
            jobs = self._client.list_jobs()
        for job in jobs:
            known = job.metadata or {}
            if not job.status.is_terminal() and metadata.items() <= known.items():
                return str(job.submission_id)
        return None

    def submit(self, job: str, entrypoint: str, folder: Path, metadata: Mapping[str, str]) -> None:
        """Start `entrypoint` as `job`, in a copy of `folder` on the cluster's head."""
        with self._errors():
            self._client.submit_job(
                submission_id=job,
                entrypoint=entrypoint,
                runtime_env={"working_dir": str(folder)},
                metadata=dict(metadata),
            )

    def stop(self, job: str) -> None:
        """End `job`, if it has not ended."""
        with self._errors():
            self._client.stop_job(job)

    def outcome(self, job: str) -> tuple[str, str]:
        """Return how `job` ended (`SUCCEEDED`, `FAILED`, `STOPPED`), and what Ray says of it."""
        with self._errors():
            info = self._client.get_job_info(job)
        return str(info.status.value), str(info.message or "")

    def lines(self, job: str) -> Iterator[str]:
        """Yield every line that `job` prints, once, until it has ended.

        A connection that is lost is made again for some minutes.
        """
        seen, rest = 0, ""
        lost: float | None = None
        while True:
            try:
                closed = False
                skipped = 0
                for piece in self._pieces(job):
                    if piece is None:
                        closed = True
                        break
                    fresh = piece[max(0, seen - skipped) :]
                    skipped += len(piece)
                    seen = max(seen, skipped)
                    *whole, rest = (rest + fresh).split("\n")
                    yield from whole
                ended = self._client.get_job_info(job).status.is_terminal()
            except _lost_connections() as error:
                if lost is None:
                    lost = time.monotonic()
                    yield f"the connection to {self.address} is lost, trying again ({error})"
                if time.monotonic() - lost > _PATIENCE_SECONDS:
                    raise ResourceError(
                        f"the connection to the cluster is lost: {error}",
                        where=f"RAY_ADDRESS={self.address}, job {job}",
                        fix="run the same command again when it is back: the job goes on there, "
                        "and is followed again",
                    ) from error
                time.sleep(2)
                continue
            lost = None
            if ended and closed:
                break
            time.sleep(1)
        if rest:
            yield rest

    @contextmanager
    def ended_with_us(self, job: str) -> Iterator[None]:
        """Stop `job` when this process is asked to end within the block (Ctrl-C, SIGTERM)."""
        before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            yield
        except KeyboardInterrupt:
            try:
                self.stop(job)
                print(f"job {job} is stopped", flush=True)
            except ResourceError as error:
                print(f"job {job} could not be stopped, `ray job stop` does: {error}", flush=True)
            raise
        finally:
            signal.signal(signal.SIGTERM, before)

    def _pieces(self, job: str) -> Iterator[str | None]:
        """Yield what `job` prints, from its beginning; None: no more of it.

        Ends without a None when nothing was heard for a minute.
        """
        with asyncio.Runner() as runner:
            pieces = self._client.tail_job_logs(job)
            while True:
                try:
                    piece = runner.run(_next(pieces))
                except TimeoutError:
                    return
                yield piece
                if piece is None:
                    return

    @contextmanager
    def _errors(self) -> Iterator[None]:
        from ray.exceptions import RayError
        from ray.util.state.exception import RayStateApiException
        from requests import RequestException

        known = (RequestException, RayStateApiException, RayError)
        try:
            yield
        except (*known, ConnectionError, RuntimeError, ValueError) as error:
            reason = str(error).strip() or type(error).__name__
            raise unusable(self.address, reason.splitlines()[0]) from error


async def _next(pieces: AsyncIterator[str]) -> str | None:
    return await asyncio.wait_for(anext(pieces, None), _SILENCE_SECONDS)


def _client(address: str) -> Any:
    """Return Ray's client with limits of time on its requests; it has none itself."""
    from ray.job_submission import JobSubmissionClient

    class Patient(JobSubmissionClient):  # type: ignore[misc]
        def _do_request(self, *given: Any, **named: Any) -> Any:
            return super()._do_request(*given, **{"timeout": _REQUEST_SECONDS} | named)

    return Patient(address)


def _lost_connections() -> tuple[type[Exception], ...]:
    from aiohttp import ClientError
    from requests import RequestException

    # A RuntimeError is what Ray's client makes of a connection that is cut off, or of a 5xx.
    return ClientError, RequestException, OSError, RuntimeError


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
