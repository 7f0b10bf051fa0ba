"""What other flows may wait for: an event when there is a snapshot that no run has succeeded on."""

from __future__ import annotations

import json

from prefect import get_run_logger
from prefect.events import emit_event

from components.layout import Layout
from components.validation.reference import PROFILE_FILE, read_reference

SNAPSHOT_NEW = "lesionflow.snapshot.new"
SNAPSHOT = "lesionflow.snapshot"
"""Resource ids are `lesionflow.snapshot.<first characters of the content id>`."""
WORKSPACE_LABEL = "lesionflow.workspace"


def announce_new_snapshot(layout: Layout) -> bool:
    """Send `lesionflow.snapshot.new` if no run has succeeded on the validated snapshot.

    Judged by `data/reference_profile.json`, where a run that has succeeded puts its snapshot, and
    not by what this run changed: so an ingest that was killed, or whose data failed a check that
    was then mended, is made up for by the next one.

    Returns
    -------
    bool
        Whether the event was sent.

    Raises
    ------
    TableError
        The file of earlier snapshots cannot be read.
    """
    profile = json.loads((layout.validation_report / PROFILE_FILE).read_text(encoding="utf-8"))
    content_id = str(profile["content_id"])
    # No snapshot has an empty content id: this asks for the newest one of all of its kind.
    last = read_reference(layout.reference_profile, {**profile, "content_id": ""})
    if last is not None and last["content_id"] == content_id:
        return False
    emit_event(
        event=SNAPSHOT_NEW,
        resource={
            "prefect.resource.id": f"{SNAPSHOT}.{content_id[:12]}",
            "prefect.resource.name": f"snapshot {content_id[:12]}",
            WORKSPACE_LABEL: str(layout.root),
        },
        payload={"content_id": content_id, "num_images": profile["num_images"]},
    )
    get_run_logger().info("no run has succeeded on snapshot %s: told so", content_id[:12])
    return True
