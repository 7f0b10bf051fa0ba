"""A web server and an S3 server on loopback, and caches that belong to one test."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from components.backbones.weights import WeightsFile, resolve_weights


@pytest.fixture
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the caches of this user out of the test, and any proxy; return ours."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("LESIONFLOW_WEIGHTS", raising=False)
    return tmp_path / "cache" / "lesionflow" / "weights"


@pytest.fixture
def offline(own_caches: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:  # noqa: ARG001
    """Whatever the machine has: the internet does not answer."""
    # urllib reads the proxies once in a process, at its first request.
    as_it_was = urllib.request.build_opener()
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    urllib.request.install_opener(urllib.request.build_opener())
    yield
    urllib.request.install_opener(as_it_was)


@pytest.fixture(scope="session")
def settle() -> Callable[[nn.Module, Tensor], nn.Module]:
    """Return what makes a random network's features differ from image to image.

    Every norm takes the statistics of `images`; one channel of each hardly varies, as happens in
    trained networks. Without this a comparison of two networks' features compares constants.
    """

    def work(model: nn.Module, images: Tensor) -> nn.Module:
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.data[0] *= 1e-3
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
                module.weight.data.uniform_(0.5, 1.5)
                module.bias.data.normal_(0, 0.2)
        with torch.no_grad():
            model.train()(images)
        return model.eval()

    return work


class Web:
    """A folder that is served, and the paths that were asked for."""

    def __init__(self, root: Path, url: str, requests: list[str]) -> None:
        self.root, self.url, self.requests = root, url, requests


@pytest.fixture
def web(tmp_path: Path, own_caches: Path) -> Iterator[Web]:  # noqa: ARG001
    root = tmp_path / "web"
    root.mkdir()
    requests: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_request(self, *_: object) -> None:
            requests.append(self.path)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=root))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Web(root, f"http://127.0.0.1:{server.server_address[1]}", requests)
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(
    s3_server: str,
    own_caches: Path,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Any]:
    """Return a client of an S3 server with an empty bucket called `weights`."""
    import boto3

    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.session.Session().client("s3")
    client.create_bucket(Bucket="weights")
    yield client
    for item in client.list_objects_v2(Bucket="weights").get("Contents", []):
        client.delete_object(Bucket="weights", Key=item["Key"])
    client.delete_bucket(Bucket="weights")


@pytest.fixture
def resolve(own_caches: Path) -> Callable[..., WeightsFile]:
    """Return `resolve_weights` with the test's cache."""
    return partial(resolve_weights, cache=own_caches)
