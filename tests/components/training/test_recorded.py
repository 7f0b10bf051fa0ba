"""The stage under DVC: a training whose end was not recorded is not done again; a forced one is."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from components.layout import Layout

BACKBONE = "mobilenet_v3_large"
REPRO = ("dvc", "repro", f"train@{BACKBONE}-0")

pytestmark = pytest.mark.slow


@pytest.fixture
def tracked(stage: Callable[..., Layout], packed_folder: Path, repo: Path) -> Layout:
    """Return a workspace of DVC's with the stage `train` alone, and what it reads."""
    layout = stage()
    shutil.copyfile(Layout(repo).own_weights, layout.own_weights)
    layout.packed.unlink()
    shutil.copytree(packed_folder, layout.packed)
    yaml = YAML()
    train = yaml.load(layout.graph.read_text())["stages"]["train"]
    train["deps"] = [name for name in train["deps"] if name.startswith("data/")]
    yaml.dump({"stages": {"train": train}}, layout.graph)
    for command in (("git", "init", "-q"), ("dvc", "init", "-q")):
        subprocess.run(command, cwd=layout.root, check=True)
    return layout


def repro(layout: Layout, ray: dict[str, str], *options: str) -> str:
    done = subprocess.run(
        [*REPRO, *options],
        cwd=layout.root,
        env=os.environ | ray,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def killed_before_the_record(layout: Layout, ray: dict[str, str]) -> None:
    """Kill DVC and the stage as soon as the stage has written its last output."""
    last = layout.run(BACKBONE, 0) / "validation.parquet"
    process = subprocess.Popen(REPRO, cwd=layout.root, env=os.environ | ray, start_new_session=True)
    deadline = time.monotonic() + 240
    while not last.is_file():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def outputs(layout: Layout) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in layout.run(BACKBONE, 0).iterdir()}


def test_killed_between_its_end_and_the_record_it_is_not_trained_again_and_by_force_it_is(
    tracked: Layout, ray_cluster: dict[str, str]
) -> None:
    killed_before_the_record(tracked, ray_cluster)
    assert not (tracked.root / "dvc.lock").exists()
    said = repro(tracked, ray_cluster)
    assert "was trained before" in said
    assert "progress" not in said
    collected = outputs(tracked)

    said = repro(tracked, ray_cluster, "--force")
    assert "trained anew" in said
    assert "epoch 2/2" in said
    assert outputs(tracked) == collected  # which is what an undisturbed training gives
