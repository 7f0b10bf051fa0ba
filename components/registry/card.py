"""The model card of a version, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from components.registry.candidate import Candidate
from components.registry.decision import Decision
from components.registry.ood import DOMAIN, LEAST_IMAGES, Domain

_HEADLINE = (
    ("balanced_accuracy", "Balanced accuracy"),
    ("accuracy", "Accuracy"),
    ("macro_auc", "Macro AUC"),
    ("macro_f1", "Macro F1"),
    ("ece", "Expected calibration error"),
)
_PER_CLASS = ("support", "sensitivity", "specificity", "ppv", "auc")


def model_card(candidate: Candidate, decision: Decision, domain: Domain | None) -> str:
    """Return the card: use, data, results with intervals, subgroups, limits, licence.

    After Mitchell et al. 2019, "Model Cards for Model Reporting".

    Parameters
    ----------
    domain
        By which `predict` refuses pictures of another kind; None: it refuses nothing.
    """
    sections = (
        _title(candidate, decision),
        _use(candidate),
        _data(candidate),
        _results(candidate),
        _subgroups(candidate.metrics),
        _gates(decision),
        _limits(candidate, decision, domain),
        _provenance(candidate),
    )
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _title(candidate: Candidate, decision: Decision) -> Iterator[str]:
    yield f"# {decision.model_name}: {candidate.label}"
    yield ""
    yield "**Research software, no medical device: not for diagnosis.**"
    if candidate.synthetic:
        yield ""
        yield "**Trained on SYNTHETIC pictures: its numbers say nothing about skin.**"


def _use(candidate: Candidate) -> Iterator[str]:
    classes = ", ".join(candidate.model.classes)
    yield "## Intended use"
    yield ""
    yield f"Classifies dermoscopic pictures of single skin lesions as one of: {classes}."
    yield "Meant for research on methods: comparing models, data and training recipes."
    yield ""
    yield (
        "Not meant for: any decision about a person; pictures that are not dermoscopic; "
        "diagnoses that are not in the list, for which it names one of the list all the same."
    )


def _data(candidate: Candidate) -> Iterator[str]:
    parts = candidate.exposure["split"].value_counts()
    groups = candidate.exposure.dropna(subset=["split"]).groupby("split")["group_id"].nunique()
    yield "## Data"
    yield ""
    yield "| part | images | groups (patient, lesion, near-duplicates) |"
    yield "|---|---:|---:|"
    for part in ("train", "validation", "test"):
        yield f"| {part} | {parts.get(part, 0)} | {groups.get(part, 0)} |"
    yield ""
    for source in candidate.model.provenance["data"]["sources"]:
        yield f"- {source.get('kind', 'source')}: licence {source.get('licence') or 'not stated'}"
        if source.get("attribution"):
            yield f"  ({source['attribution']})"


def _results(candidate: Candidate) -> Iterator[str]:
    metrics = candidate.metrics
    yield "## Results on the test part"
    yield ""
    yield f"{metrics['num_images']} images; 95 % intervals by bootstrap over groups."
    yield ""
    yield "| | value | 95 % interval |"
    yield "|---|---:|---|"
    for name, label in _HEADLINE:
        yield f"| {label} | {_number(metrics[name])} | {_interval(metrics['intervals'], name)} |"
    yield ""
    yield f"| diagnosis | {' | '.join(_PER_CLASS)} |"
    yield f"|---|{'---:|' * len(_PER_CLASS)}"
    for name, own in metrics["per_class"].items():
        yield f"| {name} | {' | '.join(_number(own[key]) for key in _PER_CLASS)} |"


def _subgroups(metrics: Mapping[str, Any]) -> Iterator[str]:
    yield "## Subgroups"
    yield ""
    if not metrics["subgroups"]:
        yield "Nothing is known of the people and sites in this data."
        return
    yield "| by | value | images | balanced accuracy | 95 % interval |"
    yield "|---|---|---:|---:|---|"
    for column, entries in metrics["subgroups"].items():
        for entry in entries:
            shown = (
                "too few to tell"
                if entry["too_small"]
                else _interval(entry["intervals"], "balanced_accuracy")
            )
            yield (
                f"| {column} | {entry['value']} | {entry['num_images']} | "
                f"{_number(entry['balanced_accuracy'])} | {shown} |"
            )


def _gates(decision: Decision) -> Iterator[str]:
    against = decision.champion or "nobody: there was no champion"
    yield "## Promotion"
    yield ""
    yield f"Held against {against}, {decision.decided_at}."
    yield ""
    yield "| gate | value | bound | verdict | |"
    yield "|---|---:|---:|---|---|"
    for gate in decision.gates:
        cells = (_number(gate.value), _number(gate.bound), gate.verdict, gate.detail)
        yield f"| {gate.name} | {' | '.join(cells)} |"


def _limits(candidate: Candidate, decision: Decision, domain: Domain | None) -> Iterator[str]:
    yield "## Limits"
    yield ""
    yield (
        f"- The test part has been used to decide on {decision.num_candidates} "
        f"candidate{'' if decision.num_candidates == 1 else 's'}, this one included: the more, "
        "the more its numbers flatter."
    )
    few = candidate.metrics.get("small_classes") or []
    absent = candidate.metrics.get("absent_classes") or []
    if few:
        yield f"- Too few lesions for an interval: {', '.join(few)}."
    if absent:
        yield f"- Not in the test part at all: {', '.join(absent)}."
    if candidate.exposure["patient_id"].isna().all():
        yield "- Patients are not known: pictures of one person may lie in several parts."
    if "skin_type" not in candidate.test or candidate.test["skin_type"].isna().all():
        yield "- Skin types are not known: nothing can be said about dark skin."
    if domain is None:
        yield (
            f"- Pictures of another kind: not checked. There is no {DOMAIN} (it needs "
            f"{LEAST_IMAGES} validation pictures that differ), so `lesionflow predict` names a "
            "diagnosis for a picture that is no lesion, too."
        )
    else:
        yield (
            f"- Pictures of another kind than its {domain.num_images} validation pictures are "
            "refused; rare diagnoses and other people are not told by that."
        )
    yield "- Other cameras, clinics and populations than those of the data were not tested."


def _provenance(candidate: Candidate) -> Iterator[str]:
    provenance = candidate.model.provenance
    git = provenance["git"]
    changes = " (with changes that were not committed)" if git["has_changes"] else ""
    yield "## Provenance"
    yield ""
    yield f"- recipe: {provenance['recipe']}"
    yield f"- data: {provenance['data']['content_id']}"
    yield f"- split: {provenance['split_sha256']}"
    yield f"- params: {provenance['params_sha256']} (whole in model.json)"
    yield f"- code: {git['commit'] or 'no Git'}{changes}"
    yield f"- libraries: {', '.join(f'{k} {v}' for k, v in provenance['libraries'].items())}"
    yield f"- content: {candidate.content_id}"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, int):
        return str(value)
    return f"{value:.3f}" if value == 0 or abs(value) >= 0.01 else f"{value:.2g}"


def _interval(intervals: Mapping[str, Sequence[float]], name: str) -> str:
    found = intervals.get(name)
    return f"{found[0]:.3f} to {found[1]:.3f}" if found else "–"
