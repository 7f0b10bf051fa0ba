"""What a flow run is about and where the rest of it lies: its tags, and one artifact of links."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.runtime import flow_run
from prefect.utilities.urls import url_for

from components.clean_clone import fetch_command, noted_clone, record_of
from components.dataset.last_snapshot import recorded_version
from components.errors import LesionflowError, RegistryError
from components.layout import Layout
from components.params import Params, load_params
from tasks.artifacts import shown

_KINDS = ("recipe:", "model:", "snapshot:")


@contextmanager
def described(layout: Layout) -> Iterator[None]:
    """Tag the present run when the block begins; tag it again and link it when it ends.

    The snapshot is known at the end only, where the run takes in new data.
    """
    tag_run(layout)
    try:
        yield
    except LesionflowError:
        tag_run(layout)
        publish_links(layout)
        raise
    tag_run(layout)
    publish_links(layout)


@shown
def tag_run(layout: Layout) -> None:
    """Tag the present run with its recipe, its model's name and its snapshot."""
    params = load_params(layout.params)
    mine = [f"recipe:{params.recipe}", f"model:{params.registry.model_name}"]
    manifest = _manifest(layout)
    if manifest is not None:
        mine.append(f"snapshot:{manifest['content_id'][:8]}")
    with get_client(sync_client=True) as client:
        known = client.read_flow_run(flow_run.id).tags
        others = [tag for tag in known if not tag.startswith(_KINDS)]
        client.update_flow_run(flow_run.id, tags=[*others, *mine])


@shown
def rename_run(name: str) -> None:
    """Call the present run `name`, here and in the UI, if it is not called so already."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow_run.name == name:
        return
    context.flow_run.name = name
    with get_client(sync_client=True) as client:
        client.update_flow_run(context.flow_run.id, name=name)


@shown
def publish_links(layout: Layout) -> None:
    """Create the artifact `links`: run, commit, snapshot, dashboard, report, champion.

    What lies in a clean clone is gone when somebody reads them: then the command that fetches it.
    """
    from components.cluster import dashboard_url

    rows = {
        "flow run": _link(str(flow_run.name), url_for("flow-run", obj_id=flow_run.id)),
        "Git commit": _commit(layout),
        "record": _record(layout),
        "snapshot": _snapshot(layout),
        "Ray dashboard": _link("dashboard", dashboard_url()),
        "Data Docs": _page(layout, layout.validation_report, "docs/index.html"),
        "report": _page(layout, layout.report),
        "champion": _champion(layout, load_params(layout.params)),
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items() if value]
    create_markdown_artifact(
        markdown="\n".join(["| what | where |", "|---|---|", *lines]),
        key="links",
        description="Where this run comes from and where it leads to.",
    )


def _link(text: str, url: str | None) -> str:
    return f"[{text}]({url})" if url else ""


def _commit(layout: Layout) -> str:
    from components.registry.provenance import git_state

    state = git_state(layout)
    if state["commit"] is None:
        return ""
    changes = ", with changes that are not committed" if state["has_changes"] else ""
    return f"`{state['commit']}`{changes}"


def _snapshot(layout: Layout) -> str:
    manifest = _manifest(layout)
    if manifest is None:
        return ""
    version = recorded_version(layout)
    dvc = f" (DVC: `data/raw` is `{version}`)" if version else ""
    return f"`{manifest['content_id'][:16]}`, {manifest['num_images']} images{dvc}"


def _record(layout: Layout) -> str:
    """Return the commit whose `dvc.lock` names what this run has made, where that is another."""
    clone = noted_clone(layout)
    commit = record_of(layout, clone) if clone else None
    return f"`{commit}` on `{clone.record_on}`" if clone and commit else ""


def _page(layout: Layout, output: Path, below: str = "") -> str:
    """Return where a page lies that is the output of a stage, or `below` it."""
    page = output / below
    if not page.is_file():
        return ""
    clone = noted_clone(layout)
    if clone is None:
        return _link(str(page), page.as_uri())
    command = fetch_command(layout, clone, output)
    if command is not None:
        return f"`{command}`" + (f", then open `{below}`" if below else "")
    why = "no commit names it" if clone.record_on else "`record_on` names no branch"
    return f"gone with the clean clone of this run: {why}"


def _champion(layout: Layout, params: Params) -> str:
    from components.registry.versions import open_registry

    try:
        registry = open_registry(params.registry, layout)
        version = registry.alias("champion")
        promoted_at = registry.promoted_at("champion") if version else None
    except RegistryError as error:
        return f"unknown: {error.what}"
    if version is None or promoted_at is None:
        return ""
    context = FlowRunContext.get()
    since = context.start_time if context else datetime.now(UTC)
    new = "**promoted by this run**" if _later(promoted_at, since) else f"since {promoted_at[:10]}"
    return f"{params.registry.model_name} {version}, {new} (registry: `{params.registry.uri}`)"


def _later(moment: str, than: datetime) -> bool:
    return datetime.fromisoformat(moment) >= than.replace(microsecond=0)


def _manifest(layout: Layout) -> dict[str, Any] | None:
    try:
        return dict(json.loads(layout.manifest.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
