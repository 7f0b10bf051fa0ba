"""What workers agree on, asked of real ones: processes with a process group of their own."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch
from torch import distributed

from components.training.ranks import Ranks
from components.training.recipe import common_precision


def _agree(rank: int, store: str, chosen: list[torch.dtype | None]) -> torch.dtype | None:
    world_size = len(chosen)
    distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=world_size)
    try:
        return common_precision(chosen[rank], Ranks(rank, world_size))
    finally:
        distributed.destroy_process_group()


def test_workers_on_different_nodes_compute_in_one_precision(tmp_path: Path) -> None:
    bf16 = torch.bfloat16
    cases: list[tuple[list[torch.dtype | None], torch.dtype | None]] = [
        ([bf16, None], None),
        ([bf16, bf16], bf16),
    ]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for number, (chosen, agreed) in enumerate(cases):
            store = str(tmp_path / f"store-{number}")
            work = [(rank, store, chosen) for rank in range(2)]
            assert pool.starmap_async(_agree, work, chunksize=1).get(timeout=120) == [agreed] * 2


@pytest.mark.parametrize("chosen", [None, torch.bfloat16])
def test_a_worker_alone_computes_as_it_has_chosen(chosen: torch.dtype | None) -> None:
    assert common_precision(chosen, Ranks()) == chosen
