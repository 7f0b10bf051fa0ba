"""What has room on a cluster, asked without joining it."""

import json
import os
import subprocess
import sys

import pytest

from components.capacity import num_that_fit
from components.cluster import local_cluster


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"CPU": 1.0}, 10),
        ({"CPU": 4.0}, 2),
        ({"CPU": 2.0, "GPU": 0.5}, 4),
        ({"CPU": 0.1, "GPU": 1.0}, 2),
        ({"CPU": 9.0}, 0),
    ],
)
def test_a_worker_needs_room_on_one_node(resources: dict[str, float], expected: int) -> None:
    nodes = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 2.0, "memory": 1e9}, {"memory": 1e9}]
    assert num_that_fit(resources, nodes) == expected


ASK = """
import json, sys, ray
from components.capacity import nodes_of
nodes = nodes_of(sys.argv[1])
assert not ray.is_initialized()
print(json.dumps([node["CPU"] for node in nodes]))
"""


def ask(address: str, environment: dict[str, str]) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-c", ASK, address],
        env=os.environ | environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return list(json.loads(done.stdout.splitlines()[-1]))


def test_a_cluster_is_asked_without_joining_it() -> None:
    with local_cluster(1) as environment:
        assert ask(environment["RAY_ADDRESS"], environment) == [1.0]


@pytest.mark.drill
def test_a_job_server_is_asked_too(job_server: dict[str, str]) -> None:
    assert ask(job_server["RAY_ADDRESS"], job_server) == [2.0]
