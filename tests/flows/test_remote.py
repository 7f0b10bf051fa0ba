"""`retrain` by a client outside of the cluster (`RAY_ADDRESS=http://…`)."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

STATUSES = """
import json, os
from ray.job_submission import JobSubmissionClient
jobs = JobSubmissionClient(os.environ["RAY_ADDRESS"]).list_jobs()
ours = [job for job in jobs if job.metadata["lesionflow_training"] == "resnet18-0"]
print(json.dumps([job.status for job in ours]))
"""


def statuses(environment: dict[str, str]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", STATUSES],
        env=os.environ | environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return list(json.loads(done.stdout.splitlines()[-1]))


def links(said: str) -> str:
    """Return the artifact `links` of the run whose address in the UI a command has printed."""
    address = re.search(r"(http://127\.0\.0\.1:\d+)/runs/flow-run/([0-9a-f-]+)", said)
    assert address is not None, said
    answer = httpx.post(
        f"{address[1]}/api/artifacts/filter",
        json={
            "artifacts": {
                "flow_run_id": {"any_": [address[2]]},
                "key": {"any_": ["links"]},
            }
        },
    )
    (found,) = answer.raise_for_status().json()
    return str(found["data"])


@pytest.mark.drill
def test_an_interrupted_run_stops_its_jobs(
    finished_copy: Path,
    job_server: dict[str, str],
    edit_params: Callable[..., None],
    tmp_path: Path,
) -> None:
    edit_params(finished_copy, storage="s3://lesions/flow", backbones__resnet18={"epochs": 1000})
    log = tmp_path / "terminal.txt"
    with log.open("wb") as output:
        run = subprocess.Popen(
            ["lesionflow", "retrain"],
            cwd=finished_copy,
            env={k: v for k, v in os.environ.items() if k != "PREFECT_HOME"} | job_server,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    deadline = time.monotonic() + 240
    trains = re.compile(r"train@resnet18-0  resnet18-0: \d+/\d+ steps")
    while not trains.search(said := log.read_text(errors="replace")):
        assert run.poll() is None and time.monotonic() < deadline, said
        time.sleep(0.1)
    assert f"| Ray dashboard | [dashboard]({job_server['RAY_ADDRESS']}) |" in links(said)
    run.send_signal(signal.SIGINT)
    assert run.wait(timeout=60) != 0
    deadline = time.monotonic() + 30
    while statuses(job_server) != ["STOPPED"]:
        assert time.monotonic() < deadline, log.read_text(errors="replace")
    shutil.rmtree(finished_copy)
