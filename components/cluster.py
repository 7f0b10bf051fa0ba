"""The one place that meets Ray's cluster: the one of `RAY_ADDRESS`, or a private one.

A private cluster runs on 127.0.0.1 below a process of its own (`python -m components.cluster`),
which ends it when its standard input closes: when the block of `local_cluster` ends, and also when
the process that started it is killed. It has its own token and its own folder for temporary
files, so it neither finds nor is found by another cluster of this machine.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from components.console import PlainWorkerLines
from components.errors import ResourceError
from components.left_behind import owned_folder, remove_left_behind

_CODE = Path(__file__).resolve().parent
_OBJECT_STORE_BYTES = 128 << 20  # trainings pass paths, no arrays
_PREFIX = "lesionflow-ray-"
_LOOPBACK = "127.0.0.1"
_ANSWER_SECONDS = 10.0
S3_PLACE = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")
"""Variables that say where S3 is, and not what opens it."""

_EVERYWHERE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",  # the progress of several trainings looks alike
    "RAY_COLOR_PREFIX": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Ray Train: notice the end of a training at once, and print nothing of its own. An instance
    # that is about to be reclaimed (spot) is noticed by the failure that follows.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # A training waits as long as others need: by default it would fail after four times a minute.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(7 * 24 * 3600),
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    # Ray Tune: leave Ctrl-C to Python, as above, and write no files of its own beside ours.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",  # and prints nothing where it is told so
}
_PRIVATE = {
    # Named after its use on laptops: a cluster that only this machine can reach, on 127.0.0.1.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
}


@contextmanager
def local_cluster(num_cpus: int | None = None) -> Iterator[dict[str, str]]:
    """Start a private cluster; yield the environment that takes a process to it.

    Parameters and errors are those of `starting_cluster`.
    """
    with starting_cluster(num_cpus) as environment:
        yield environment()


@contextmanager
def starting_cluster(num_cpus: int | None = None) -> Iterator[Callable[[], dict[str, str]]]:
    """Begin to start a private cluster; go on with other work meanwhile.

    Yields what waits until it has started, and returns the environment that takes a process to it.
    Any number of threads may call it.

    Parameters
    ----------
    num_cpus
        Logical CPUs; None: the cores of this machine.

    Raises
    ------
    ResourceError
        It did not start (from the yielded function).
    """
    remove_left_behind(_PREFIX, Path(_short_folder()))
    folder = owned_folder(_PREFIX, Path(_short_folder()))
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32), encoding="utf-8")
    own = {**_EVERYWHERE, **_PRIVATE, "RAY_AUTH_TOKEN_PATH": str(token)}
    log = folder / "cluster.log"
    with log.open("wb") as errors:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "components.cluster", str(folder), str(num_cpus or 0)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_without_ray(os.environ) | own | {"PYTHONPATH": _python_path()},
            start_new_session=True,  # Ctrl-C goes to us; we end it in our own time
        )
    assert keeper.stdin is not None and keeper.stdout is not None
    answers, answered, answer = keeper.stdout, threading.Lock(), b""

    def environment() -> dict[str, str]:
        nonlocal answer
        with answered:
            answer = answer or answers.readline()
        if not answer:
            raise _did_not_start(log)
        return own | {"RAY_ADDRESS": json.loads(answer)["address"]}

    try:
        yield environment
    finally:
        keeper.stdin.close()
        try:
            keeper.wait(timeout=30)
        except subprocess.TimeoutExpired:
            keeper.kill()  # Ray's own reaper then ends the rest
            keeper.wait()
        answers.close()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def connect(num_cpus: int | None = None) -> Iterator[None]:
    """Connect this process to the cluster of `RAY_ADDRESS`, or to a private one for the block.

    What workers print appears on this process' standard output, line by line, as they wrote it.

    Raises
    ------
    ResourceError
        The cluster does not answer, or cannot be used from here.
    """
    with ExitStack() as stack:
        address = os.environ.get("RAY_ADDRESS", "")
        environment = {**_EVERYWHERE}
        if not address:
            environment = stack.enter_context(local_cluster(num_cpus))
            address = environment["RAY_ADDRESS"]
        elif is_job_server(address):
            raise ResourceError(
                "a job server only takes trainings, and this is none",
                where=f"RAY_ADDRESS={address}",
                fix="run this on a node of the cluster, with host:port of its head (port 6379)",
            )
        else:
            check_address(address)
        stack.enter_context(_environment(environment))
        stack.enter_context(PlainWorkerLines())
        _init(address)
        import ray

        stack.callback(ray.shutdown)
        yield


def on_this_machine() -> bool:
    """Tell whether the connected cluster is one node, the one that this process runs on."""
    import ray

    alive = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    return alive == [ray.get_runtime_context().get_node_id()]


def lost(address: str) -> ResourceError | None:
    """Return the error of a process that died when the cluster at `address` did, if it is gone.

    Ray ends such a process after a minute, and leaves it no chance to say why.
    """
    try:
        check_address(address)
    except ResourceError:
        return ResourceError(
            "the Ray cluster was lost",
            where=f"RAY_ADDRESS={address}",
            fix="see why its head ended (memory, disk, a preempted machine), start it again unless "
            "it was the local one, and run the same command: it goes on after the last finished "
            "epoch",
        )
    return None


def dashboard_url() -> str | None:
    """Return where the dashboard of the cluster of `RAY_ADDRESS` is; None if nobody tells."""
    address = os.environ.get("RAY_ADDRESS", "")
    if address.startswith(("http://", "https://")):
        return address
    if not address.rpartition(":")[2].isdigit() or "://" in address:
        return None
    from ray.exceptions import RayError

    raylet: Any = importlib.import_module("ray._raylet")
    try:
        check_address(address)
        told = raylet.GcsClient(address=address).internal_kv_get(
            b"dashboard", b"dashboard", timeout=5
        )
    except (ResourceError, RayError, RuntimeError):
        return None
    return f"http://{told.decode()}" if told else None


def is_job_server(address: str) -> bool:
    """Tell whether `address` (of `RAY_ADDRESS`) is that of Ray's job server: we are outside."""
    return address.startswith(("http://", "https://"))


def check_address(address: str) -> None:
    """Check that `address` (of `RAY_ADDRESS`) is of a kind that we can use, and that it answers.

    Ray itself would try for many minutes.

    Raises
    ------
    ResourceError
        It is of Ray Client, or nobody listens there.
    """
    if address.startswith("ray://"):
        raise ResourceError(
            "Ray Client addresses cannot start trainings",
            where=f"RAY_ADDRESS={address}",
            fix="run this on a node of the cluster (or with `ray job submit`) and give the "
            "address without ray://, such as 10.0.0.1:6379",
        )
    if is_job_server(address):
        parts = urlsplit(address)
        host, port = parts.hostname or "", str(parts.port or (443 if address[4] == "s" else 80))
    else:
        host, _, port = address.rpartition(":")
    if not port.isdigit():
        return  # such as `auto`
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
    except OSError as error:
        raise unusable(address, f"nobody answers there ({error})") from error


def unusable(address: str, reason: str) -> ResourceError:
    """Return the error that says why the cluster of `RAY_ADDRESS` cannot be used."""
    return ResourceError(
        f"the Ray cluster cannot be used: {reason}",
        where=f"RAY_ADDRESS={address}",
        fix="start that cluster (`ray start --head`), correct RAY_ADDRESS and the token "
        "(RAY_AUTH_MODE, RAY_AUTH_TOKEN), or unset RAY_ADDRESS for a local one",
    )


def _init(address: str) -> None:
    import ray
    from ray.exceptions import RayError

    alone = address.startswith(f"{_LOOPBACK}:")
    _read_environment_again(alone)
    try:
        ray.init(
            address=address,
            log_to_driver=True,
            logging_level=logging.ERROR,
            runtime_env=None if alone else _for_other_nodes(),
        )
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        ray.shutdown()  # what is half connected would take the next attempt to this cluster
        reason = str(error).strip().splitlines()
        raise unusable(address, reason[0] if reason else type(error).__name__) from error


def _read_environment_again(alone: bool) -> None:
    """Take over what the environment says now; Ray reads it when it is imported."""
    from ray._private import ray_constants, ray_logging

    raylet: Any = importlib.import_module("ray._raylet")
    ray_constants.ENABLE_RAY_CLUSTER = not alone
    ray_logging.RAY_DEDUP_LOGS = ray_constants.env_bool("RAY_DEDUP_LOGS", True)
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def _for_other_nodes() -> dict[str, Any]:
    """Return the runtime environment of a cluster that may have other nodes.

    It brings our code (`components`, and neither `data/` nor `.venv`) and says where S3 is. What
    opens S3 does not travel: a node has its own role or credentials.
    """
    passed = {name: os.environ[name] for name in S3_PLACE if name in os.environ}
    return {"py_modules": [str(_CODE)], "excludes": ["__pycache__"], "env_vars": passed}


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set what is not set already; take it back afterwards."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _without_ray(environment: Mapping[str, str]) -> dict[str, str]:
    """Leave out what would take a new cluster to another one."""
    foreign = {"RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_TMPDIR"}
    return {name: value for name, value in environment.items() if name not in foreign}


def _python_path() -> str:
    return os.pathsep.join(filter(None, [str(_CODE.parent), os.environ.get("PYTHONPATH")]))


def _short_folder() -> str:
    """Return where sockets may lie: their whole path has at most 107 characters."""
    folder = tempfile.gettempdir()
    return folder if len(folder) <= len("/var/tmp") else "/tmp"


def _did_not_start(log: Path) -> ResourceError:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return ResourceError(
        f"the local Ray cluster did not start: {lines[-1] if lines else 'no message'}",
        where="Ray on 127.0.0.1",
        fix="free some memory and disk space and run the same command again; `lesionflow doctor` "
        "looks for what else may be in the way",
    )


def _keep(folder: str, num_cpus: int) -> None:
    """Run a private cluster until standard input closes (the body of the keeper process)."""
    import ray

    context = ray.init(
        address="local",
        num_cpus=num_cpus or os.cpu_count(),
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=f"{folder}/r",  # Ray opens it to everybody; the token lies outside of it
        _node_ip_address=_LOOPBACK,
    )
    print(json.dumps({"address": context.address_info["gcs_address"]}), flush=True)
    sys.stdin.read()
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _keep(sys.argv[1], int(sys.argv[2]))
