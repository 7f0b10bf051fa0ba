"""The whole job against its bare training loops.

`retrain` of three backbones on real images, from an empty workspace to the promoted model, divided
by the time that the same training loops (same recipe, same images, all cores, no Ray, no Prefect,
no DVC) take one after the other. Also: what `retrain` costs when nothing has changed, and what of
the whole run was spent while neither a stage nor the promotion was at work (a stage's time includes
that of its DVC).

Usage: python -m benchmarks.whole_run [--epochs N]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import write_results

REPO = Path(__file__).resolve().parents[1]
BACKBONES = ("mobilenet_v2", "mobilenet_v1", "tf_efficientnet_lite0")


def main() -> None:
    """Measure, print and write `results/whole_run.csv`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--image-size", type=int, default=128)
    chosen = parser.parse_args()
    data = Path(os.environ.get("LESIONFLOW_REAL_DATA", REPO.parent / "shared" / "data"))
    os.environ.setdefault("LESIONFLOW_WEIGHTS", str(data / "weights"))
    with tempfile.TemporaryDirectory(prefix="lesionflow-bench-") as folder:
        workspace = fresh_clone(Path(folder) / "workspace")
        run_command(
            workspace,
            *("use", "ham10000", "--source", str(data / "ham10000-mini")),
            *("--backbones", ",".join(BACKBONES), "--image-size", str(chosen.image_size)),
        )
        # A tenth of the images that the recipe's gates were measured on: it must still promote.
        settings = (f"training.epochs={chosen.epochs}", "gates={min_balanced_accuracy: 0.4}")
        whole = run_command(workspace, "retrain", *(part for s in settings for part in ("-S", s)))
        events = read_events(workspace)
        again = run_command(workspace, "retrain")
        bare = _bare_loops(workspace)
    rows = [
        {"case": "whole run, three backbones", "value": round(whole, 1), "unit": "s"},
        {"case": "bare training loops, one after the other", "value": round(bare, 1), "unit": "s"},
        {"case": "whole run / bare loops", "value": round(whole / bare, 2), "unit": "ratio"},
        *overhead_rows(whole, events),
        {"case": "run again, nothing changed", "value": round(again, 1), "unit": "s"},
    ]
    for row in rows:
        print(f"{row['case']}: {row['value']} {row['unit']}", flush=True)
    write_results("whole_run", rows)


def overhead_rows(command: float, events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what of a run was spent while neither a stage nor the promotion was at work.

    Parameters
    ----------
    command
        Seconds that the whole command took.
    events
        Those of its run, and of no other.
    """
    stages = stage_seconds(events)
    (run,) = (event["seconds"] for event in events if event["event"] == "run_ended")
    return [
        {
            "case": "flow overhead: the command less stages and promotion",
            "value": round(command - stages, 1),
            "unit": "s",
        },
        {
            "case": "of it, the flow run less stages and promotion",
            "value": round(run - stages, 1),
            "unit": "s",
        },
    ]


def read_events(workspace: Path) -> list[dict[str, Any]]:
    """Return the events of the runs in `workspace`, oldest first."""
    lines = (workspace / ".lesionflow" / "events.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in lines.splitlines()]


def stage_seconds(events: Iterable[Mapping[str, Any]]) -> float:
    """Return for how long at least one stage, or the promotion behind the last one, was at work."""
    at_work, since, total = 0, 0.0, 0.0
    for event in events:
        now = datetime.fromisoformat(event["time"]).timestamp()
        if event["event"] == "stage_started":
            since = now if at_work == 0 else since
            at_work += 1
        elif event["event"] in ("stage_ended", "stage_failed"):
            at_work -= 1
            if at_work == 0:
                total, since = total + now - since, now
        elif event["event"] == "promotion_decided":
            total += now - since
    return total


def fresh_clone(target: Path) -> Path:
    """Clone this repository, as it is committed, into `target`; return `target`."""
    subprocess.run(["git", "clone", "-q", str(REPO), str(target)], check=True)
    return target


def run_command(workspace: Path, *arguments: str) -> float:
    """Run `lesionflow` with `arguments` in `workspace`; return the seconds."""
    command = str(Path(sys.executable).parent / "lesionflow")
    began = time.perf_counter()
    subprocess.run([command, *arguments], cwd=workspace, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _bare_loops(workspace: Path) -> float:
    """Return the seconds of the three loops, each in a process of its own that has imported all."""
    program = "from benchmarks.whole_run import bare_loop; import sys; bare_loop(sys.argv[1])"
    seconds = 0.0
    for backbone in BACKBONES:
        done = subprocess.run(
            [sys.executable, "-c", program, backbone],
            cwd=workspace,
            check=True,
            capture_output=True,
            text=True,
        )
        seconds += float(done.stdout.split()[-1])
    return seconds


def bare_loop(backbone: str) -> None:
    """Train `backbone` in the current workspace without any engine; print the seconds."""
    from components.layout import Layout
    from components.params import load_params
    from components.training.ranks import Ranks
    from components.training.train import make_job
    from components.training.worker import train

    layout = Layout.find()
    params = load_params(layout.params)
    job, _ = make_job(params, params, layout, backbone, params.seeds[0])
    storage = tempfile.mkdtemp(prefix="lesionflow-bare-")
    alone = job.params.model_copy(update={"threads": os.cpu_count() or 1})
    job = dataclasses.replace(job, params=alone, storage=storage)
    clock: dict[str, float] = {}
    began = time.perf_counter()
    train(job, Ranks(0, 1), lambda *_: None, clock)
    print(time.perf_counter() - began, flush=True)
    shutil.rmtree(storage, ignore_errors=True)


if __name__ == "__main__":
    main()
