"""The record of a decision: every gate, what it led to and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.registry.gates import Gate

SCHEMA_VERSION = 1
_NOT_PASSED = ("failed", "undecided")


@dataclass(frozen=True)
class Decision:
    """What became of a candidate.

    Attributes
    ----------
    model_name
        Whose champion it asked to be.
    label, content_id
        Of the candidate.
    champion
        Version that it was held against; None where there was no champion.
    gates
        Every gate's outcome.
    test_set
        Hash of the test set.
    num_candidates
        How many different candidates this test set has been used to decide on, this one included.
    decided_at
        UTC, ISO 8601.
    version
        The candidate's version, where it has one.
    promoted
        Whether it is champion now.
    changed
        Whether this decision made it so; False where it was champion already.
    reason
        One sentence for people.
    """

    model_name: str
    label: str
    content_id: str
    champion: str | None
    gates: tuple[Gate, ...]
    test_set: str
    num_candidates: int
    decided_at: str
    version: str | None
    promoted: bool
    changed: bool
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Return the decision as a JSON document."""
        return {
            **self._held_against_the_gates(),
            "champion_before": self.champion,
            "version": self.version,
            "promoted": self.promoted,
            "changed": self.changed,
            "reason": self.reason,
        }

    def as_published(self) -> dict[str, Any]:
        """Return what a version keeps of it as `decision.json`.

        A version is complete before it becomes champion, and may never become it: only what has
        happened by then is said. `history/` has the moves.
        """
        return {
            **self._held_against_the_gates(),
            "held_against": self.champion,
            "passed_gates": self.promoted,
        }

    def _held_against_the_gates(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "model_name": self.model_name,
            "candidate": {"label": self.label, "content_id": self.content_id},
            "gates": [gate.as_dict() for gate in self.gates],
            "test_set": {"id": self.test_set, "num_candidates": self.num_candidates},
            "decided_at": self.decided_at,
        }


def decision_rows(decision: Decision) -> list[dict[str, Any]]:
    """Return one row per gate, for a table."""
    return gate_rows(decision.as_dict())


def gate_rows(decision: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row per gate of a decision's document, for a table."""
    return [
        {
            "gate": gate["name"],
            "value": gate["value"],
            "bound": gate["bound"],
            "verdict": gate["verdict"],
            "what it is": gate["detail"],
        }
        for gate in decision["gates"]
    ]


def gates_text(decision: Mapping[str, Any]) -> str:
    """Return the gates of a decision's document in short: how many are passed, which are not."""
    verdicts = [(gate["name"], gate["verdict"]) for gate in decision["gates"]]
    passed = sum(verdict == "passed" for _, verdict in verdicts)
    others = [f"{name} {verdict}" for name, verdict in verdicts if verdict in _NOT_PASSED]
    return ", ".join([f"{passed} passed", *others])


def refusal(gates: tuple[Gate, ...]) -> str:
    """Say which gates were not passed, and why."""
    return "; ".join(
        f"{gate.name} {gate.verdict}{_numbers(gate)}: {gate.detail}"
        for gate in gates
        if gate.verdict in _NOT_PASSED
    )


def _numbers(gate: Gate) -> str:
    if gate.value is None or gate.bound is None:
        return ""
    return f" ({gate.value:.4g}, bound {gate.bound:.4g})"
