"""What `lesionflow status` tells: champion, what is out of date and why, last and next runs."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from components.errors import LesionflowError, ResourceError
from components.layout import Layout
from components.params import Params, load_params
from components.registry.versions import open_registry
from components.training.own_weights import changed_own_weights
from flows.last_runs import read_last_runs
from flows.upcoming import next_runs, planned_runs
from tasks.graph import Graph, read_graph

NUM_RUNS = 5
_WIDTH = 79
_CAUSES = ("params", "code", "weights", "data", "first run")


def read_status(layout: Layout) -> dict[str, Any]:
    """Return recipe, champion, stale stages, next and last runs as a JSON-ready document.

    The next runs are those of the server where something serves them (`served`), else those of
    `params.yaml`.
    """
    params = load_params(layout.params)
    graph = read_graph(layout.root).also_changed(_changed_weights(params, layout))
    registry = open_registry(params.registry, layout)
    champion = registry.alias("champion")
    stale = [stage for stage in graph.stages.values() if stage.name in graph.stale]
    document: dict[str, Any] = {
        "recipe": params.recipe,
        "model_name": params.registry.model_name,
        "champion": champion,
        "champion_promoted_at": registry.promoted_at("champion") if champion else None,
        "num_stages": len(graph.stages),
        "stale": {stage.name: list(stage.changes) for stage in stale},
        "causes": {stage.name: causes(stage.changes) for stage in stale if stage.changes},
    }
    try:
        runs = [run.as_dict() for run in read_last_runs(layout, NUM_RUNS)]
        planned = planned_runs(layout, params.schedule.timezone)
        document |= {"served": planned is not None, "last_runs": runs}
    except ResourceError as error:
        planned = None
        document |= {"served": None, "last_runs": None, "last_runs_error": _short(error)}
    coming = next_runs(params.schedule) if planned is None else planned
    document["next_runs"] = [{**run, "does": _does(run["flow"], graph)} for run in coming]
    return document


def _changed_weights(params: Params, layout: Layout) -> dict[str, str]:
    """Return training -> change, in DVC's words, where a run would find other own weights."""
    changed, trouble = changed_own_weights(params, layout)
    for name, error in trouble.items():
        print(f"warning: what {name} starts from is not to be had; {error}", file=sys.stderr)
    path = layout.own_weights.relative_to(layout.root).as_posix()
    return {
        f"train@{name}-{seed}": f"{path}: backbones.{name} modified"
        for name in changed
        for seed in params.seeds
    }


def causes(changes: Iterable[str]) -> list[str]:
    """Return what made a stage stale, in the order of `_CAUSES`.

    `data` is whatever else it reads, be it a source, a snapshot or another stage's result.
    """
    found = {_cause(change) for change in changes}
    return [cause for cause in _CAUSES if cause in found]


def _cause(change: str) -> str:
    if change == "has not run yet":
        return "first run"
    path = change.partition(": ")[0]
    if path.startswith("params.yaml"):
        return "params"
    if path == "data/weights.json":
        return "weights"
    # DVC calls an edited `cmd` of dvc.yaml a changed command.
    return "code" if path.startswith(("components/", "changed command")) else "data"


def _does(flow: str, graph: Graph) -> str:
    looks = "looks for new data"
    count = len(graph.to_do(("split", "pack") if flow == "ingest" else ()))
    stages = f"{count} stage{'' if count == 1 else 's'} as things are" if count else "else nothing"
    return f"{looks}; {stages}"


def _short(error: LesionflowError) -> str:
    return f"{error.what} ({error.where})"


def status_text(document: Mapping[str, Any], now: datetime | None = None) -> str:
    """Render the document for a terminal of 80 columns."""
    now = now or datetime.now(UTC)
    champion = "none yet"
    if document["champion"]:
        champion = f"{document['champion']}, promoted {_ago(document['champion_promoted_at'], now)}"
    lines = [
        f"recipe     {document['recipe']}",
        f"champion   {document['model_name']} {champion}",
        *_stage_lines(document),
        *_schedule_lines(document, now),
        *_run_lines(document, now),
    ]
    return "\n".join(lines)


def _stage_lines(document: Mapping[str, Any]) -> list[str]:
    stale, num_stages = document["stale"], document["num_stages"]
    if not stale:
        return [f"stages     all {num_stages} up to date"]
    lines = [f"stages     {len(stale)} of {num_stages} out of date"]
    together: dict[tuple[str, ...], list[str]] = {}
    for name, changes in stale.items():
        together.setdefault(tuple(changes), []).append(name)
    below = together.pop((), [])
    for changes, names in together.items():
        why = "+".join(causes(changes))
        lines += _wrapped(f"  {why}  {_few(names)}: {_few(changes, '; ')}", indent="      ")
    if below:
        lines += _wrapped(f"  below these: {', '.join(below)}", indent="      ")
    return lines


def _schedule_lines(document: Mapping[str, Any], now: datetime) -> list[str]:
    runs = document["next_runs"]
    if not runs:
        planned = "planned" if document["served"] else "scheduled (params.yaml: schedule)"
        return [f"next runs  none is {planned}"]
    said = {
        True: "as served; an edited schedule counts when it is served anew",
        False: "by params.yaml; nobody waits for them: `lesionflow schedule`",
        None: "by params.yaml; unknown whether somebody waits for them",
    }[document["served"]]
    lines = [f"next runs  {said}"]
    for run in runs:
        at = datetime.fromisoformat(run["at"])
        when = f"{at:%a %Y-%m-%d %H:%M} {run['timezone']}, in {_span(at - now)}"
        lines += _wrapped(f"  {run['flow']:<8} {when}: {run['does']}", indent=" " * 11)
    return lines


def _run_lines(document: Mapping[str, Any], now: datetime) -> list[str]:
    runs = document["last_runs"]
    if runs is None:
        return _wrapped(f"last runs  unknown: {document['last_runs_error']}", indent=" " * 11)
    lines = ["last runs" if runs else "last runs  none yet"]
    for run in runs:
        took = f", took {_seconds(run['seconds'])}" if run["seconds"] is not None else ""
        lines.append(f"  {run['state']:<10} {run['name']}, {_ago(run['started_at'], now)}{took}")
        if run["state"] in ("Failed", "Crashed", "Skipped"):
            lines += _wrapped(f"    {run['message']}", indent="    ", most=3)
    return lines


def _few(names: Sequence[str], separator: str = ", ") -> str:
    if len(names) <= 2:
        return separator.join(names)
    return f"{names[0]} and {len(names) - 1} more"


def _wrapped(text: str, *, indent: str, most: int | None = None) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        subsequent_indent=indent,
        max_lines=most,
        placeholder=" …",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _ago(moment: str, now: datetime) -> str:
    return f"{_span(now - datetime.fromisoformat(moment))} ago"


def _span(span: timedelta) -> str:
    return _seconds(span.total_seconds())


def _seconds(seconds: float) -> str:
    """Return a time to the precision in which people speak of it."""
    seconds = max(seconds, 0.0)
    for size, name in ((86400, "day"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size or (name != "day" and seconds >= size):
            count = int(seconds // size)
            return f"{count} {name}{'s' if name == 'day' else ''}"
    return f"{seconds:.0f} s"
