"""The promotion: the candidate against the gates and the champion, and what follows from it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from components.errors import RegistryError
from components.layout import Layout
from components.params import Params
from components.registry.aliases import PromotionConflictError, now
from components.registry.candidate import (
    CARD,
    DECISION,
    Candidate,
    build_candidate,
    registered,
    with_extra,
)
from components.registry.card import model_card
from components.registry.decision import Decision, decision_rows, gate_rows, refusal
from components.registry.gates import Gate, quality_gates
from components.registry.honesty import (
    comparable,
    in_ledger,
    not_withdrawn,
    reproduces,
    unseen_test,
)
from components.registry.ood import DOMAIN, to_json
from components.registry.predicting import domain_of
from components.registry.versions import Registry, open_registry
from components.registry.versus import NAME as VERSUS
from components.registry.versus import champion_gate

__all__ = [
    "build_candidate",
    "decide",
    "decision_rows",
    "gate_rows",
    "promote_candidate",
    "promote_version",
]


def promote_candidate(
    params: Params,
    layout: Layout,
    dry_run: bool = False,
    approved: tuple[str, str | None] | None = None,
) -> Decision:
    """Hold the leaderboard's candidate against the gates; make it champion if it passes.

    A candidate that passes every gate but cannot be told from the champion is registered as
    challenger. One that fails changes no version and no alias.

    Parameters
    ----------
    dry_run
        Decide only; nothing is written.
    approved
        The candidate (content id) and the champion (its version, or None) that a person has said
        yes to. None: nobody was asked.

    Raises
    ------
    PromotionConflictError
        Somebody else was promoted meanwhile, or this is not the pair that was approved.
    RegistryError
        The registry cannot be reached, or the candidate's files do not fit together.
    """
    registry = open_registry(params.registry, layout)
    candidate = build_candidate(params, layout)
    decision = decide(candidate, registry, params, layout)
    if approved not in (None, (decision.content_id, decision.champion)):
        raise PromotionConflictError(
            f"{decision.label} was not made champion: by now it is held against "
            f"{decision.champion or 'no champion'}, or is another model, than was approved",
            where=f"registry {params.registry.uri}",
            fix="run the promotion again: it asks anew",
        )
    return decision if dry_run else _carry_out(decision, candidate, registry, layout.images)


def promote_version(params: Params, layout: Layout, version: str) -> Decision:
    """Hold a registered version against the gates again; make it champion if it passes.

    The decision says `promoted: false`, and nothing has changed, where a gate is not passed.

    Raises
    ------
    PromotionConflictError, RegistryError
        As `promote_candidate`; or there is no such version, or it is damaged.
    """
    registry = open_registry(params.registry, layout)
    candidate = registered(registry, registry.resolve(version))
    decision = decide(candidate, registry, params, layout)
    return _carry_out(decision, candidate, registry, layout.images)


def decide(candidate: Candidate, registry: Registry, params: Params, layout: Layout) -> Decision:
    """Return the decision on a candidate; nothing is written.

    Raises
    ------
    RegistryError
        The registry cannot be reached.
    """
    champion = registry.champion.read()
    test_set = candidate.test_set
    decision = Decision(
        model_name=registry.model_name,
        label=candidate.label,
        content_id=candidate.content_id,
        champion=champion.version if champion else None,
        gates=(),
        test_set=test_set,
        num_candidates=1 + registry.looks.count(test_set, without=candidate.content_id),
        decided_at=now(),
        version=candidate.version or registry.find(candidate.content_id),
        promoted=False,
        changed=False,
        reason="",
    )
    if champion is not None and champion.content_id == candidate.content_id:
        recorded = tuple(Gate(**gate) for gate in champion.event.record.get("gates", ()))
        reason = f"{champion.version} is champion already: the candidate is the same model"
        return replace(
            decision, version=champion.version, gates=recorded, promoted=True, reason=reason
        )
    gates = [
        unseen_test(candidate),
        not_withdrawn(candidate, layout.withdrawn),
        reproduces(candidate, layout.images),
    ]
    gates += quality_gates(
        candidate.test,
        candidate.metrics,
        candidate.latency_ms,
        candidate.model.malignant,
        params.gates,
    )
    if champion is not None:
        gates += _champion_gates(candidate, registry, champion.version, params, layout)
        if candidate.version is None:
            gates.append(_not_rolled_back(decision.version, champion.rolled_back))
    passed = all(gate.verdict in ("passed", "off") for gate in gates)
    reason = "" if passed else f"not promoted: {refusal(tuple(gates))}; {_looks(decision)}"
    return replace(decision, gates=tuple(gates), promoted=passed, changed=passed, reason=reason)


def _champion_gates(
    candidate: Candidate, registry: Registry, name: str, params: Params, layout: Layout
) -> list[Gate]:
    try:
        champion = registered(registry, name)
    except RegistryError as error:
        detail = f"the champion {name} cannot be used ({error.what}): `lesionflow rollback`"
        known = in_ledger([candidate.exposure], layout.split_ledger)
        return [known, Gate(VERSUS, None, None, "undecided", detail)]
    gates = [in_ledger([candidate.exposure, champion.exposure], layout.split_ledger)]
    same_kind = comparable(candidate, champion)
    if same_kind.verdict == "failed":
        return [*gates, same_kind]
    versus = champion_gate(
        candidate,
        champion,
        layout.images,
        params.gates,
        resamples=params.evaluation.bootstrap_resamples,
        seed=params.seed,
    )
    return [*gates, same_kind, versus]


def _not_rolled_back(version: str | None, rolled_back: tuple[str, ...]) -> Gate:
    if version is not None and version in rolled_back:
        detail = f"this is {version}, which was rolled back: only `lesionflow promote {version}` "
        return Gate("not_rolled_back", None, None, "failed", detail + "makes it champion again")
    return Gate("not_rolled_back", None, None, "passed", "never rolled back")


def _carry_out(
    decision: Decision, candidate: Candidate, registry: Registry, images: Path
) -> Decision:
    """Write what follows from a decision; `images` is the folder of the original files."""
    if decision.promoted and not decision.changed:
        return decision
    registry.looks.add(
        decision.test_set,
        {
            "candidate": decision.content_id,
            "label": decision.label,
            "passed": decision.promoted,
            "decided_at": decision.decided_at,
        },
    )
    if not decision.promoted:
        if candidate.version is None and _only_versus_is_open(decision):
            version = _publish(decision, candidate, registry, images)
            registry.champion.set_challenger(version)
            reason = f"{decision.reason}; kept as challenger {version}"
            return replace(decision, version=version, reason=reason)
        return decision
    before = f"champion before: {decision.champion}" if decision.champion else "the first champion"
    version = candidate.version or _publish(decision, candidate, registry, images)
    reason = f"promoted {version} ({before}); {_looks(decision)}"
    decided = replace(decision, version=version, reason=reason)
    registry.promote(version, decision.champion, decided.as_dict())
    return decided


def _looks(decision: Decision) -> str:
    count = decision.num_candidates
    return f"this test set has been used for {count} candidate{'' if count == 1 else 's'}"


def _only_versus_is_open(decision: Decision) -> bool:
    not_passed = [gate for gate in decision.gates if gate.verdict in ("failed", "undecided")]
    return [(gate.name, gate.verdict) for gate in not_passed] == [(VERSUS, "undecided")]


def _publish(decision: Decision, candidate: Candidate, registry: Registry, images: Path) -> str:
    document = json.dumps(decision.as_published(), indent=2, sort_keys=True) + "\n"
    domain = domain_of(candidate, images)
    card = model_card(candidate, decision, domain)
    extra = {DECISION: document.encode(), CARD: card.encode()}
    if domain is not None:
        extra[DOMAIN] = to_json(domain)
    complete = with_extra(candidate, extra)
    return registry.publish(complete.files(), complete.content_id)
