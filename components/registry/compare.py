"""`lesionflow compare A B`: two registered versions side by side, with the paired tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.errors import RegistryError
from components.layout import Layout
from components.params import load_params
from components.registry.candidate import registered
from components.registry.versions import open_registry
from components.registry.versus import pair_on_clean_images
from components.tables import probability_columns

_SHOWN = (
    ("balanced_accuracy", "balanced accuracy"),
    ("accuracy", "accuracy"),
    ("macro_auc", "macro AUC"),
    ("macro_f1", "macro F1"),
    ("log_loss", "log loss"),
    ("ece", "ECE"),
    ("malignant.auc", "malignant AUC"),
    ("malignant.sensitivity", "malignant sensitivity"),
    ("malignant.specificity", "malignant specificity"),
)


def compare_versions(layout: Layout, first: str, second: str) -> dict[str, Any]:
    """Compare two versions on test images whose group neither was trained or selected on.

    The images are the test part of `first`; what `second` has not predicted it predicts now, from
    the raw bytes by its own preprocessing.

    Returns
    -------
    dict
        `model_name`, `first`, `second` (versions), and the document of
        `components.evaluation.comparison.compare`.

    Raises
    ------
    RegistryError
        A version is missing or damaged, their classes differ, or no image is left.
    """
    from components.evaluation.comparison import compare

    params = load_params(layout.params)
    registry = open_registry(params.registry, layout)
    one, two = (registered(registry, registry.resolve(name)) for name in (first, second))
    classes = one.model.classes
    if classes != two.model.classes:
        raise RegistryError(
            f"{one.version} knows {', '.join(classes)}; "
            f"{two.version} knows {', '.join(two.model.classes)}",
            where=registry.store.uri,
            fix="compare versions of the same classes",
        )
    pair = pair_on_clean_images(one, two, layout.images)
    if pair.frame.empty:
        raise RegistryError(
            f"there is no test image of {one.version} that says something about both",
            where=registry.store.uri,
            fix="`lesionflow evaluate --source` measures either of them on other pictures",
        )
    columns = probability_columns(classes)
    own, other = (
        pair.frame.assign(**dict(zip(columns, values.T, strict=True)))
        for values in (pair.candidate, pair.champion)
    )
    document = compare(
        own,
        other,
        resamples=params.evaluation.bootstrap_resamples,
        seed=params.seed,
        classes=classes,
        malignant=one.model.malignant,
    )
    names = {"first": one.version, "second": two.version}
    return {"model_name": registry.model_name, **names, **document}


def compare_text(document: Mapping[str, Any]) -> str:
    """Return the document for people to read."""
    first, second = document["first"], document["second"]
    lines = [
        f"{document['model_name']}: {first} against {second} on {document['num_images']} test "
        f"images in {document['num_groups']} groups that neither has seen",
        "",
        f"  {'':<24}{first:>9}{second:>9}{'difference':>12}  95 % interval",
    ]
    for name, label in _SHOWN:
        found = document["differences"].get(name)
        if found is not None and found["difference"] is not None:
            lines.append(_line(label, found))
    tests = (("McNemar, images", "mcnemar"), ("sign test, groups", "sign_test"))
    lines += [
        "",
        *(
            f"  {label}: only {first} right {document[key]['only_first']}, "
            f"only {second} right {document[key]['only_second']}, "
            f"p = {document[key]['p_value']:.3g}"
            for label, key in tests
        ),
    ]
    return "\n".join(lines)


def _line(label: str, found: Mapping[str, Any]) -> str:
    bounds = f"[{found['low']:+.3f}, {found['high']:+.3f}]" if found["low"] is not None else "-"
    values = f"{found['first']:>9.3f}{found['second']:>9.3f}{found['difference']:>+12.3f}"
    return f"  {label:<24}{values}  {bounds}"
