"""What each stage has made, shown in the Prefect UI: one function per kind of stage.

Every run of a stage adds a version under the same key, which is the history of that stage.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.context import TaskRunContext

from components.clean_clone import noted_clone
from components.errors import LesionflowError, in_one_line
from components.layout import Layout
from components.params import load_params
from tasks.artifacts import artifact_key, embedded, shown

_NOTHING = "–"


@shown
def publish(stage: str, layout: Layout) -> None:
    """Create the artifacts of `stage` (as DVC names it), which was just brought up to date.

    Its work is done: what cannot be read of it to be shown is a warning, and the stages that need
    it say what they miss.
    """
    kind, _, item = stage.partition("@")
    publisher = _PUBLISHERS.get(kind)
    if publisher is None:
        return
    try:
        publisher(item, layout)
    except (LesionflowError, OSError, ValueError, LookupError, TypeError) as error:
        why = in_one_line(str(error)) or type(error).__name__
        get_run_logger().warning("%s is not shown in the UI: %s", stage, why)


@shown
def publish_failure(kind: str, layout: Layout) -> None:
    """Create the artifact of a stage whose check found something and stopped the run."""
    if kind == "validate":
        _validation_table(layout, layout.failed_validation_report, "This stopped the run. ")


def _snapshot(_: str, layout: Layout) -> None:
    manifest = _read(layout.manifest)
    rows = [{"diagnosis": name, "images": count} for name, count in manifest["counts"].items()]
    synthetic = " SYNTHETIC pictures, no patient." if manifest.get("synthetic") else ""
    create_table_artifact(
        table=rows,
        key="snapshot",
        description=(
            f"{manifest['num_images']} images, content {manifest['content_id'][:12]}.{synthetic}"
        ),
    )


def _measures(_: str, layout: Layout) -> None:
    from components.dataset.summary import measures_summary
    from components.tables import read_table

    quality = read_table(layout.quality)
    decodes = quality["decodes"].astype(bool)
    said = f"{len(quality)} images measured; {_counts(quality.loc[decodes, 'format'])}."
    if not decodes.all():
        problems = _counts(quality.loc[~decodes, "problem"])
        said += f" {(~decodes).sum()} cannot be decoded: {problems}."
    create_table_artifact(table=measures_summary(quality), key="measure", description=said)


def _counts(values: Any) -> str:
    """Return how often each value is there, the most frequent first."""
    counts = values.value_counts()
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none decodes"


def _pairs(_: str, layout: Layout) -> None:
    from components.dataset.summary import pairs_summary
    from components.tables import read_table

    rows = pairs_summary(read_table(layout.pairs), read_table(layout.labels))
    whole = rows[-1]
    if load_params(layout.params).pairs.enabled:
        said = (
            f"{whole['pairs']} pairs tie {whole['lesions_tied']} lesions into "
            f"{whole['into_groups']} groups. All pairs: data/pairs.parquet; side by side, "
            "those that tie: the report, Near-duplicates."
        )
    else:
        said = "Not looked for: pairs.enabled is false."
    create_table_artifact(table=rows, key="pairs", description=said)


def _validation(_: str, layout: Layout) -> None:
    _validation_table(layout, layout.validation_report)


def _validation_table(layout: Layout, folder: Path, verdict: str = "") -> None:
    from components.validation.summary import summary_rows

    summary = _read(folder / "summary.json")
    create_table_artifact(
        table=summary_rows(summary),
        key="validation",
        description=(
            f"{verdict}{summary['num_quarantined']} of {summary['num_images']} images quarantined. "
            f"Data Docs: {_place(layout, folder / 'docs' / 'index.html')}"
        ),
    )


def _split(_: str, layout: Layout) -> None:
    from components.splitting.summary import split_summary
    from components.tables import read_table

    rows = split_summary(read_table(layout.splits), read_table(layout.labels))
    create_table_artifact(table=rows, key="split", description="Images and groups per part.")


def _packed(_: str, layout: Layout) -> None:
    from components.dataset.pack import PackedImages

    packed = PackedImages.open(layout.packed)
    size = sum(path.stat().st_size for path in layout.packed.iterdir())
    row = {
        "images": len(packed.image_ids),
        "image size": f"{packed.spec.image_size} × {packed.spec.image_size}",
        "fit": packed.spec.fit,
        "on disk": f"{size / 1e6:,.1f} MB",
    }
    create_table_artifact(
        table=[row], key="pack", description=f"RGB, uint8, content {packed.content_id[:12]}."
    )


def _training(item: str, layout: Layout) -> None:
    from components.tables import read_table

    history = read_table(layout.runs / item / "history.csv")
    scores = history["validation_balanced_accuracy"]
    best = int(scores.to_numpy().argmax())  # the first of equals, as the training has it
    rows = [
        {
            "epoch": int(epoch["epoch"]),
            "loss": f"{epoch['train_loss']:.4f}",
            "validation loss": f"{epoch['validation_loss']:.4f}",
            "balanced accuracy": f"{epoch['validation_balanced_accuracy']:.4f}",
            "learning rate": f"{epoch['learning_rate']:.2e}",
            "kept": "*" if number == best else "",
        }
        for number, epoch in enumerate(history.to_dict("records"))
    ]
    create_table_artifact(
        table=rows,
        key=artifact_key(f"train@{item}"),
        description=(
            f"{item}: best epoch {rows[best]['epoch']} of {len(rows)}, balanced accuracy "
            f"{scores[best]:.3f} on validation{_at_work(item, layout)}."
        ),
    )


def _at_work(item: str, layout: Layout) -> str:
    """Return how long the workers were at work, if the stage has trained and not only restored.

    DVC restores what it has seen before; the clock then is that of another training.
    """
    file = layout.training_clock(item)
    context = TaskRunContext.get()
    since = context.start_time.timestamp() if context else 0.0
    if not file.is_file() or file.stat().st_mtime < since:
        return ""
    clock = _read(file)
    ended = datetime.fromtimestamp(clock["ended"], UTC)
    return f"; {clock['ended'] - clock['entered']:.0f} s on its workers, until {ended:%F %T} UTC"


def _evaluation(item: str, layout: Layout) -> None:
    from components.evaluation.report_tables import RUN_TITLES, headline_cells

    folder = layout.evaluations / item
    validation, test = _read(folder / "validation_metrics.json"), _read(folder / "metrics.json")
    rows = [
        {
            "metric": title,
            "validation": on_validation["value"],
            "validation, 95 %": on_validation["bounds"] or _NOTHING,
            "test": on_test["value"],
            "test, 95 %": on_test["bounds"] or _NOTHING,
        }
        for title, on_validation, on_test in zip(
            RUN_TITLES, headline_cells(validation), headline_cells(test), strict=True
        )
    ]
    create_table_artifact(
        table=rows,
        key=artifact_key(f"evaluate@{item}"),
        description=(
            f"{item}: {validation['num_images']} validation and {test['num_images']} test images, "
            "calibrated on validation; test ranks nothing."
        ),
    )


def _profile(item: str, layout: Layout) -> None:
    profile = _read(layout.profiles / f"{item}.json")
    machine, latency = profile["machine"], profile["latency_ms"]
    rows = [
        {"of one picture": "parameters", "value": f"{profile['num_parameters'] / 1e6:,.2f} M"},
        {"of one picture": "multiply-adds", "value": f"{profile['macs'] / 1e6:,.1f} M"},
        {"of one picture": "weights on disk", "value": f"{profile['size_bytes'] / 1e6:,.1f} MB"},
    ]
    for key, where in (("cpu_batch1", "CPU"), ("cuda_batch1", "GPU")):
        rows += [
            {"of one picture": f"{where} latency, {name}", "value": f"{value:.2f} ms"}
            for name, value in latency.get(key, {}).items()
        ]
    threads = f"{machine['cpu_threads']} thread{'s' if machine['cpu_threads'] > 1 else ''}"
    place = f"{machine['cpu']}, {threads}" + (f"; {machine['gpu']}" if "gpu" in machine else "")
    create_table_artifact(
        table=rows, key=artifact_key(f"profile@{item}"), description=f"{item} on {place}."
    )


def _leaderboard(_: str, layout: Layout) -> None:
    from components.evaluation.board_tables import candidate_rows, leaderboard_rows

    board = _read(layout.leaderboard)
    create_table_artifact(
        table=leaderboard_rows(board),
        key="leaderboard",
        description="Ranked on validation; test is shown for the reader and the gates only.",
    )
    if candidates := candidate_rows(board):
        create_table_artifact(
            table=candidates,
            key="ensembles",
            description="Ensembles that could be promoted, and the candidate (*).",
        )


def _report(_: str, layout: Layout) -> None:
    place = _place(layout, layout.report)
    matrices = sorted(layout.plots.glob("confusion*.png"), key=lambda path: path.stem)
    create_markdown_artifact(
        markdown="\n\n".join(
            [
                "# Report",
                f"[{layout.report.name}]({place})" if place.startswith("file:") else place,
                "Research software, no medical device.",
                *(f"## {_whose(path)}\n\n{embedded(path)}" for path in matrices),
            ]
        ),
        key="report",
        description="Where the report lies, and the confusion matrices on test.",
    )


def _whose(matrix: Path) -> str:
    return matrix.stem.removeprefix("confusion").removeprefix("-") or "The candidate"


def _place(layout: Layout, page: Path) -> str:
    """Return the address of a page, or what becomes of it where the workspace goes with its run."""
    if noted_clone(layout) is None:
        return page.as_uri()
    if page.is_relative_to(layout.state):
        return "not kept, they go with the clean clone of this run"
    name = page.relative_to(layout.root).as_posix()
    return f"`{name}`; how to fetch it when this run's clean clone is gone: its artifact `links`"


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


_PUBLISHERS: dict[str, Callable[[str, Layout], None]] = {
    "ingest": _snapshot,
    "measure": _measures,
    "pairs": _pairs,
    "validate": _validation,
    "split": _split,
    "pack": _packed,
    "train": _training,
    "evaluate": _evaluation,
    "profile": _profile,
    "rank": _leaderboard,
    "report": _report,
}
"""Kind of stage -> what shows it, given its item in the matrix (empty without one)."""
