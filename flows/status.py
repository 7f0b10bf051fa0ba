"""What `lesionflow status` tells: the champion, and what is out of date and why."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from components.layout import Layout
from components.params import load_params
from components.registry.versions import open_registry
from tasks.graph import read_graph


def read_status(layout: Layout) -> dict[str, Any]:
    """Return recipe, champion and stale stages as a JSON-ready document."""
    params = load_params(layout.params)
    graph = read_graph(layout.root)
    registry = open_registry(params.registry, layout)
    champion = registry.alias("champion")
    promoted_at = registry.promoted_at("champion") if champion else None
    return {
        "recipe": params.recipe,
        "model_name": params.registry.model_name,
        "champion": champion,
        "champion_promoted_at": promoted_at,
        "num_stages": len(graph.stages),
        "stale": {
            stage.name: list(stage.changes)
            for stage in graph.stages.values()
            if stage.name in graph.stale
        },
    }


def status_text(document: dict[str, Any]) -> str:
    """Render the document for a terminal."""
    champion = document["champion"] or "none yet"
    age = _age(document["champion_promoted_at"])
    lines = [
        f"recipe     {document['recipe']}",
        f"champion   {document['model_name']} {champion}{age}",
    ]
    stale = document["stale"]
    if not stale:
        lines.append(f"stages     all {document['num_stages']} up to date")
    else:
        lines.append(f"stages     {len(stale)} of {document['num_stages']} out of date")
        for name, changes in stale.items():
            lines.append(f"  {name}: {'; '.join(changes) or 'stands below a change'}")
    return "\n".join(lines)


def _age(promoted_at: str | None) -> str:
    if promoted_at is None:
        return ""
    age = datetime.now(UTC) - datetime.fromisoformat(promoted_at)
    return f", promoted {age.days} days ago" if age.days else ", promoted today"
