"""Stage `profile`: parameters, multiply-adds, size on disk, and latency of one backbone.

Latencies are the only measured times among the results, kept apart so that all else is
deterministic. They order nothing.

Usage: python -m components.evaluation.profile --backbone resnet18
"""

from __future__ import annotations

import argparse
import copy
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components.atomic import write_json
from components.layout import Layout
from components.params import Params
from components.stage import run_stage

if TYPE_CHECKING:
    from torch import nn

    from components.backbones.saved import LoadedModel

THREADS = 1
"""torch threads while the CPU's latency is measured: comparable on every machine."""
_WARM_UP, _LEAST_RUNS, _MOST_RUNS, _SECONDS = 2, 5, 100, 1.0


def run(params: Params, layout: Layout, backbone: str) -> None:
    """Write `profiles/<backbone>.json` from the first seed's run."""
    document = profile_model(layout.run(backbone, params.seeds[0]))
    write_json(layout.profile(backbone), {"backbone": backbone, **document})


def profile_model(folder: Path) -> dict[str, Any]:
    """Measure a saved model (all its members together).

    Returns
    -------
    dict
        `num_parameters`; `macs`: multiply-adds of one picture; `size_bytes` of the weights;
        `latency_ms`: from a packed square to probabilities, batch 1, `median` and `p95` for
        `cpu_batch1` and, where there is a GPU, `cuda_batch1`; `machine`.
    """
    import torch

    from components.backbones.saved import load_model

    model = load_model(folder, device="cpu")
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        latency = {"cpu_batch1": _latency(model)}
    finally:
        torch.set_num_threads(before)
    machine: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cpu_threads": THREADS,
        "torch": torch.__version__,
    }
    if torch.cuda.is_available():
        latency["cuda_batch1"] = _latency(load_model(folder, verify=False, device="cuda"))
        machine["gpu"] = torch.cuda.get_device_name()
    return {
        "num_parameters": sum(
            parameter.numel() for network in model.networks for parameter in network.parameters()
        ),
        "macs": sum(
            multiply_adds(network, member.preprocessing.image_size)
            for member, network in zip(model.file.members, model.networks, strict=True)
        ),
        "size_bytes": sum((folder / member.file).stat().st_size for member in model.file.members),
        "latency_ms": latency,
        "machine": machine,
    }


def multiply_adds(network: nn.Module, image_size: int) -> int:
    """Count multiply-adds of matrix products and convolutions for one picture.

    Counted on shapes alone (torch's `meta` device): on a processor, attention of a network in
    evaluation mode goes through one fused operation of which torch counts nothing.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    shapes = copy.deepcopy(network).to("meta")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        shapes(torch.zeros(1, 3, image_size, image_size, device="meta"))
    return int(counter.get_total_flops()) // 2  # one multiply-add is counted as two operations


def _latency(model: LoadedModel) -> dict[str, float]:
    """Time predictions of one picture; copying results to the host waits for a GPU."""
    squares = {
        spec: np.full((1, spec.image_size, spec.image_size, 3), 127, dtype=np.uint8)
        for spec in model.pack_specs
    }
    times = _times(lambda: model.predict_proba(squares))
    return {
        "median": round(float(np.median(times)) * 1000, 3),
        "p95": round(float(np.quantile(times, 0.95)) * 1000, 3),
    }


def _times(work: Callable[[], object]) -> list[float]:
    for _ in range(_WARM_UP):
        work()
    times: list[float] = []
    while len(times) < _LEAST_RUNS or (len(times) < _MOST_RUNS and sum(times) < _SECONDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times


def _cpu_name() -> str:
    """Return the CPU's model name where the system tells it."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    """Run the stage for the matrix item on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", required=True)
    chosen = parser.parse_args()
    run_stage(
        "profile", lambda params, layout: run(params, layout, chosen.backbone), chosen.backbone
    )


if __name__ == "__main__":
    main()
