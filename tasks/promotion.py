"""The steps after the report, as Prefect tasks: what to remember, and the promotion."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from components.layout import Layout
from components.params import load_params
from tasks.artifacts import publish_decision
from tasks.journal import note


@task(name="remember", task_run_name="remember", cache_policy=NO_CACHE, persist_result=False)
def remember(workspace: Path) -> tuple[str, ...]:
    """Write down what the next run must know: the split's ledger, the snapshot's profile.

    Returns
    -------
    tuple of str
        The stages that read what was written. Neither gives another result for it: the ledger
        holds the files and the parts of the present split, and a snapshot is never its own
        reference.
    """
    from components.splitting.ledger import append
    from components.tables import read_table
    from components.validation.reference import remember_profile

    layout = Layout(workspace)
    readers = set()
    if remember_profile(layout):
        readers.add("validate")
    added = append(layout.split_ledger, read_table(layout.splits), read_table(layout.labels))
    if added:
        get_run_logger().info("%d new images keep their part from now on", added)
        readers |= {"validate", "split"}
    return tuple(sorted(readers))


def recall_test_uses(workspace: Path) -> None:
    """Bring what the report says of the test set's uses up to date with the registry.

    Only before a report that is made anyway: a promotion alone puts no report out of date.
    """
    from components.evaluation.uses import write_test_uses
    from components.registry.versions import open_registry

    layout = Layout(workspace)
    registry = open_registry(load_params(layout.params).registry, layout)
    write_test_uses(layout.test_uses, registry.looks.counts())


@task(name="propose", task_run_name="propose", cache_policy=NO_CACHE, persist_result=False)
def propose_best(workspace: Path) -> dict[str, Any]:
    """Hold the candidate against the gates and the champion, and change nothing."""
    from components.registry.promote import decision_rows, promote_candidate

    layout = Layout(workspace)
    decision = promote_candidate(load_params(layout.params), layout, dry_run=True)
    publish_decision(decision_rows(decision), decision.reason or "every gate is passed")
    return decision.as_dict()


@task(name="decline", task_run_name="decline", cache_policy=NO_CACHE, persist_result=False)
def decline(workspace: Path, decision: dict[str, Any], reason: str) -> dict[str, Any]:
    """Record that a person declined the candidate: its test numbers have been looked at."""
    from components.registry.versions import open_registry

    layout = Layout(workspace)
    registry = open_registry(load_params(layout.params).registry, layout)
    candidate = decision["candidate"]
    registry.looks.add(
        decision["test_set"]["id"],
        {
            "candidate": candidate["content_id"],
            "label": candidate["label"],
            "passed": False,
            "decided_at": decision["decided_at"],
        },
    )
    get_run_logger().info("%s", reason)
    facts = {"model_name": decision["model_name"], "reason": reason}
    note(layout, "promotion_decided", promoted=False, changed=False, **facts)
    return decision | {"promoted": False, "changed": False, "reason": reason}


@task(name="promote", task_run_name="promote", cache_policy=NO_CACHE, persist_result=False)
def promote_best(workspace: Path, proposal: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Hold the candidate against the gates and the champion; promote it if it passes.

    With an approved `proposal` (of `propose_best`) only that candidate against that champion.
    """
    from components.registry.promote import decision_rows, promote_candidate

    layout = Layout(workspace)
    approved = (
        (proposal["candidate"]["content_id"], proposal["champion_before"]) if proposal else None
    )
    decision = promote_candidate(load_params(layout.params), layout, approved=approved)
    publish_decision(decision_rows(decision), decision.reason)
    get_run_logger().info("%s", decision.reason)
    document = decision.as_dict()
    facts = {name: document[name] for name in ("model_name", "promoted", "changed", "reason")}
    note(layout, "promotion_decided", **facts)
    return document
