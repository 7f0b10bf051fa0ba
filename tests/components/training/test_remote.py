"""A client outside of the cluster: its training is a Ray job there, and survives the client."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from components.errors import ParamsError
from components.layout import Layout
from components.training.remote import check_storage

BACKBONE = "mobilenet_v3_large"
COMMAND = (sys.executable, "-m", "components.training.train", "--backbone", BACKBONE, "--seed", "0")


def test_storage_in_the_workspace_is_refused_with_what_to_set() -> None:
    with pytest.raises(ParamsError, match="which the cluster does not see") as raised:
        check_storage(".lesionflow/storage")
    assert "s3://" in raised.value.fix
    check_storage("s3://bucket/prefix")
    check_storage("/shared/by/all")


def outputs(layout: Layout) -> dict[str, str]:
    folder = layout.run(BACKBONE, 0)
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }


def keys(environment: dict[str, str]) -> list[str]:
    client = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    listed = client.list_objects_v2(Bucket="lesions").get("Contents", [])
    return [item["Key"] for item in listed if item["Size"]]


class Client:
    """The training stage as somebody outside of the cluster runs it."""

    def __init__(self, layout: Layout, environment: dict[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                COMMAND,
                cwd=layout.root,
                env=os.environ | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def said(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def end(self, how: signal.Signals) -> int:
        self._process.send_signal(how)
        return self._process.wait(timeout=60)

    def wait(self) -> int:
        return self._process.wait(timeout=300)

    def wait_until(self, condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + 240
        while not condition():
            assert self._process.poll() is None and time.monotonic() < deadline, self.said
            time.sleep(0.05)


def jobs(environment: dict[str, str]) -> list[dict[str, Any]]:
    """Return what everybody who may look at the cluster sees of its jobs."""
    script = (
        "import json, sys; from ray.job_submission import JobSubmissionClient as C;"
        "print(json.dumps([j.dict() for j in C(sys.argv[1]).list_jobs()], default=str))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, environment["RAY_ADDRESS"]],
        env=os.environ | environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return list(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.drill
def test_stopped_lost_and_followed_again_it_ends_with_the_bits_of_a_local_training(
    stage: Callable[..., Layout],
    ray_cluster: dict[str, str],
    job_server: dict[str, str],
    tmp_path: Path,
) -> None:
    layout = stage()
    params = layout.params.read_text().replace("epochs: 2", "epochs: 8")
    layout.params.write_text(params)
    subprocess.run(COMMAND, cwd=layout.root, env=os.environ | ray_cluster, check=True)
    expected = outputs(layout)
    layout.params.write_text(params.replace(".lesionflow/storage", "s3://lesions/remote"))
    shutil.rmtree(layout.runs)

    def stored(epoch: int) -> bool:
        return any(f"epoch-{epoch:05d}" in key for key in keys(job_server))

    stopped = Client(layout, job_server, tmp_path / "stopped.log")
    stopped.wait_until(lambda: stored(2))  # so that the first one is whole
    assert stopped.end(signal.SIGTERM) != 0
    assert "is stopped" in stopped.said
    lost = Client(layout, job_server, tmp_path / "lost.log")
    lost.wait_until(lambda: "goes on after epoch" in lost.said)
    lost.end(signal.SIGKILL)
    known = jobs(job_server)
    assert sorted(job["status"] for job in known) == ["RUNNING", "STOPPED"]
    seen = json.dumps(known)
    assert job_server["AWS_SECRET_ACCESS_KEY"] not in seen
    assert job_server["AWS_ENDPOINT_URL"] not in seen
    again = Client(layout, job_server, tmp_path / "again.log")
    assert again.wait() == 0, again.said
    assert "is under way on the cluster" in again.said
    assert f"progress {BACKBONE}-0: 40/40 steps | epoch 8/8" in again.said
    assert len(jobs(job_server)) == 2
    assert outputs(layout) == expected
    assert not [key for key in keys(job_server) if "/epoch-" in key], "left on S3"


@pytest.mark.drill
def test_what_goes_wrong_on_the_cluster_is_the_error_of_the_stage(
    stage: Callable[..., Layout], job_server: dict[str, str], tmp_path: Path
) -> None:
    layout = stage()
    params = layout.params.read_text().replace(".lesionflow/storage", "s3://lesions/remote")
    layout.params.write_text(params.replace("epochs: 2", "epochs: 2, gpus_per_worker: 1"))
    client = Client(layout, job_server, tmp_path / "log")
    assert client.wait() == 2
    assert "1 GPU each do not fit: the Ray cluster has 2 CPU, 0 GPU" in client.said
    assert "Traceback" not in client.said
