"""Stage `validate`: judge labels, images and what lies between them; quarantine or stop.

The report goes to `reports/validation/`; when the run stops it goes to
`.lesionflow/validation-failed/` instead, because the last good one is put back in its place.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from components.atomic import write_json
from components.errors import TableError
from components.layout import Layout
from components.params import Params
from components.splitting.ledger import read_ledger
from components.stage import run_stage
from components.tables import PAIR_COLUMNS, read_table, write_table
from components.validation.docs import write_docs
from components.validation.judgement import Judgement, Snapshot, judge_snapshot
from components.validation.reference import PROFILE_FILE
from components.validation.sheets import write_sheets
from components.validation.verdict import failure, quarantine_table, summary


def run(params: Params, layout: Layout) -> None:
    """Write `data/quarantine.parquet` and `reports/validation/`.

    Raises
    ------
    CheckFailedError
        An *error* check failed, too many images would be left out, or there are none.
    TableError
        The tables are not of the same snapshot.
    """
    snapshot = read_snapshot(layout)
    print(f"validate: judging {len(snapshot.labels)} images with Great Expectations", flush=True)
    judgement = judge_snapshot(snapshot, params, layout.reference_profile)
    failed_report = layout.failed_validation_report
    error = failure(
        judgement.outcomes,
        judgement.left_out,
        judgement.num_images,
        params.validation.max_quarantined_share,
        where=f"data/raw; the report: {failed_report.relative_to(layout.root)}/docs/index.html",
    )
    half_done = layout.half_done_validation_report
    shutil.rmtree(half_done, ignore_errors=True)
    write_report(judgement, half_done, layout.images, success=error is None)
    if error is not None:
        _replace_folder(failed_report, half_done)
        raise error
    write_table(quarantine_table(judgement.left_out), layout.quarantine)
    _replace_folder(layout.validation_report, half_done)
    shutil.rmtree(failed_report, ignore_errors=True)
    print(
        f"validate: {judgement.num_images} images, {len(judgement.left_out)} quarantined; "
        f"{sum(not outcome.success for outcome in judgement.outcomes)} of "
        f"{len(judgement.outcomes)} checks found something",
        flush=True,
    )


def read_snapshot(layout: Layout) -> Snapshot:
    """Read what `ingest`, `measure` and `pairs` wrote, and the split's ledger."""
    try:
        manifest = json.loads(layout.manifest.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise TableError(
            f"the manifest cannot be read: {error}",
            where=str(layout.manifest),
            fix="run `dvc repro ingest`, or `dvc pull` in a clone",
        ) from error
    return Snapshot(
        labels=read_table(layout.labels),
        manifest=manifest,
        quality=read_table(layout.quality),
        pairs=read_table(layout.pairs, PAIR_COLUMNS),
        ledger=read_ledger(layout.split_ledger),
    )


def write_report(judgement: Judgement, folder: Path, images: Path, *, success: bool) -> None:
    """Write summary, Great Expectations' results, contact sheets and Data Docs to `folder`.

    Parameters
    ----------
    judgement
        What was found.
    folder
        Where the report goes.
    images
        Folder of the original files' archives, for the contact sheets.
    success
        Whether the run goes on.
    """
    document = summary(
        judgement.outcomes, judgement.num_images, len(judgement.left_out), success=success
    )
    write_json(folder / "summary.json", document)
    for name, result in judgement.judge.results.items():
        write_json(folder / "results" / f"{name}.json", _plain(result.to_json_dict()))
    if judgement.profile is not None:
        write_json(folder / PROFILE_FILE, judgement.profile)
    sheets = write_sheets(judgement.outcomes, images, folder / "sheets")
    write_docs(judgement.judge, document, sheets, folder / "docs")


def _plain(value: Any) -> Any:
    """Return `value` with null for numbers that JSON does not know."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124 - NaN


def _replace_folder(target: Path, new: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(new, target)


if __name__ == "__main__":
    run_stage("validate", run)
