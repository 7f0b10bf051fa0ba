"""The containers' entrypoint: a node that has left the Ray cluster ends, to be started again."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

# In a container's place: process numbers of its own, in which no other test's node can be seen.
_ALONE = ("unshare", "--pid", "--fork", "--mount-proc")
_PROGRAM = 'trap "echo asked to end; exit 3" TERM; echo working; sleep 30 & wait'


@pytest.fixture
def run(tmp_path: Path, repo: Path):
    """Return a function that runs the entrypoint; Ray's node, if one starts, lives a second."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("process numbers of its own need root and unshare")
    if subprocess.run([*_ALONE, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("no process namespace can be made here")
    shutil.copy(shutil.which("sleep") or "", tmp_path / "raylet")
    ray = tmp_path / "ray"
    ray.write_text(f'#!/bin/sh\necho "ray $*"\n{tmp_path}/raylet 1 &\n', encoding="utf-8")
    ray.chmod(0o755)

    def start(address: str, *command: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "RAY_ADDRESS": address}
        entrypoint = str(repo / "infra" / "docker" / "entrypoint.sh")
        return subprocess.run(
            [*_ALONE, "sh", entrypoint, *command],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return start


def test_a_node_that_has_left_the_cluster_ends_its_program(run) -> None:
    done = run("head:6379", "sh", "-c", _PROGRAM)
    assert done.returncode == 3
    assert done.stdout.splitlines() == [
        "ray start --address=head:6379 --num-cpus=0 --num-gpus=0", "working", "asked to end"
    ]  # fmt: skip
    assert "has left the Ray cluster at head:6379" in done.stderr


@pytest.mark.parametrize(
    ("address", "command", "expected"),
    [
        ("", ["echo", "work"], ["work"]),
        ("head:6379", ["echo", "work"], ["ray start --address=head:6379 --num-cpus=0", "work"]),
        ("head:6379", ["ray", "start", "--block"], ["ray start --block"]),
        ("http://head:8265", ["echo", "work"], ["work"]),
    ],
)
def test_the_entrypoint_joins_a_cluster_only_as_a_node_without_work(
    tmp_path: Path, repo: Path, address: str, command: list[str], expected: list[str]
) -> None:
    shutil.copy(shutil.which("sleep") or "", tmp_path / "raylet")
    ray = tmp_path / "ray"
    ray.write_text('#!/bin/sh\necho "ray $*"\nraylet 10 >/dev/null 2>&1 &\n', encoding="utf-8")
    ray.chmod(0o755)
    done = subprocess.run(
        ["sh", str(repo / "infra" / "docker" / "entrypoint.sh"), *command],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "RAY_ADDRESS": address},
        capture_output=True,
        text=True,
        check=True,
    )
    said = done.stdout.splitlines()
    assert len(said) == len(expected)
    assert all(line.startswith(start) for line, start in zip(said, expected, strict=True))
