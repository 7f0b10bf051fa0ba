"""Stage `split`: divide the groups of the snapshot into train, validation and test."""

from __future__ import annotations

import pandas as pd

from components.layout import Layout
from components.params import Params
from components.splitting.assign import assign, check_left_out, check_parts
from components.splitting.groups import known_by_bytes
from components.splitting.ledger import SAVED_ANEW, read_ledger
from components.splitting.summary import split_summary
from components.stage import run_stage
from components.tables import (
    LABEL_COLUMNS,
    PAIR_COLUMNS,
    PARTS,
    QUARANTINE_COLUMNS,
    read_table,
    write_table,
)


def run(params: Params, layout: Layout) -> None:
    """Write `data/splits.parquet`; it reads the ledger and never writes it."""
    labels = read_table(layout.labels, LABEL_COLUMNS)
    quality = read_table(layout.quality, ("image_id", "decodes", "contrast"))
    quarantine = read_table(layout.quarantine, QUARANTINE_COLUMNS)
    ledger = read_ledger(layout.split_ledger)
    splits = assign(
        known_by_bytes(labels, quality, set(quarantine["image_id"])),
        read_table(layout.pairs, PAIR_COLUMNS),
        quarantine,
        ledger,
        params.split,
        seed=params.seed,
    )
    check_left_out(splits, params.split)
    check_parts(splits, labels, params.diagnoses.classes, params.split)
    write_table(splits, layout.splits)
    total = split_summary(splits, labels)[-1]
    parts = ", ".join(
        f"{part} {total[f'{part}_groups']} groups ({total[f'{part}_images']} images)"
        for part in PARTS
    )
    print(f"split: {parts}; {total['left_out']} images left out", flush=True)
    _warn_of_changed_files(ledger.dealt_anew(labels), splits)


def _warn_of_changed_files(part_before: dict[str, str], splits: pd.DataFrame) -> None:
    """Say how many images were dealt anew because their files changed."""
    if not part_before:
        return
    part = splits.set_index("image_id")["split"]
    moved = [image for image, before in part_before.items() if part[image] in {*PARTS} - {before}]
    print(
        f"split: warning: {len(part_before)} images have other bytes than under the same id "
        f"before, such as {next(iter(part_before))}, and were dealt as new ones; {len(moved)} of "
        f"them are in another part now. To do: {SAVED_ANEW}",
        flush=True,
    )


if __name__ == "__main__":
    run_stage("split", run)
