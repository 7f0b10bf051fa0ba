"""`data/weights.json`: what the own weights that trainings start from are at the moment.

Written before the graph is read. The stage `train` depends on the entry of its backbone, so that a
file which is replaced under its name puts that backbone's trainings out of date, and no others. It
is in Git and has an entry for every backbone (null: no own weights), because DVC refuses a stage
whose parameter is missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from components.atomic import write_json
from components.backbones.config import BACKBONE_NAMES
from components.backbones.weights import content_of
from components.errors import LesionflowError, RegistryError, WeightsError
from components.layout import Layout
from components.params import Params

Entry = dict[str, str] | None
Trouble = dict[str, LesionflowError]


def registry_of(params: Params) -> str:
    """Return the place of the registry's model, as `resolve_weights` takes it."""
    return f"{params.registry.uri.rstrip('/')}/{params.registry.model_name}"


def refresh_own_weights(params: Params, layout: Layout) -> Trouble:
    """Look at the own weights of every backbone and write down what they are.

    Returns
    -------
    dict
        Backbone -> why its weights are not to be had now. Its entry of an earlier look is kept: a
        clone that has pulled the trainings does not need what they started from.

    Raises
    ------
    WeightsError, RegistryError
        Weights are not to be had, and were never looked at.
    """
    before = _read(layout)
    entries, trouble = _look_at_all(params, layout, before)
    for name, error in trouble.items():
        if entries[name] is None:
            raise error
    if entries != before:
        write_json(layout.own_weights, {"schema_version": 1, "backbones": entries})
    return trouble


def changed_own_weights(params: Params, layout: Layout) -> tuple[list[str], Trouble]:
    """Return the backbones that `refresh_own_weights` would write anew, and its trouble.

    Writes nothing and raises nothing of it: for who only wants to know what a run would do.
    """
    before = _read(layout)
    entries, trouble = _look_at_all(params, layout, before)
    changed = [name for name in params.backbones if entries[name] != before.get(name)]
    return changed, trouble


def check_own_weights(params: Params, layout: Layout, backbone: str) -> None:
    """Check that the own weights of `backbone` are those that `data/weights.json` tells of.

    Raises
    ------
    WeightsError
        They are others, or nobody has looked at them: DVC would record what was not trained with.
    """
    entry, noted = _look(params, layout, backbone), _read(layout).get(backbone)
    if entry is None or entry == noted:
        return
    spec = entry["weights"]
    seen = noted is not None and noted["weights"] == spec
    raise WeightsError(
        f"the weights {spec!r} are others than when they were looked at"
        if seen
        else f"nobody has looked at the weights {spec!r} yet",
        where=f"{layout.own_weights}: {backbone}",
        fix="run `lesionflow retrain`, which looks at the weights in params.yaml first",
    )


def _look_at_all(
    params: Params, layout: Layout, before: Mapping[str, Entry]
) -> tuple[dict[str, Entry], Trouble]:
    """Return an entry for every backbone; what is not to be had keeps an old one."""
    entries: dict[str, Entry] = dict.fromkeys(BACKBONE_NAMES)
    trouble: Trouble = {}
    for name in params.backbones:
        try:
            entries[name] = _look(params, layout, name)
        except (WeightsError, RegistryError) as error:
            trouble[name] = error
            old = before.get(name)
            if old is not None and old["weights"] == params.training_of(name).weights:
                entries[name] = old
    return entries, trouble


def _look(params: Params, layout: Layout, backbone: str) -> Entry:
    spec = params.training_of(backbone).weights
    content = content_of(spec, backbone, base=layout.root, registry=registry_of(params))
    return None if content is None else {"weights": spec, "content": content}


def _read(layout: Layout) -> dict[str, Entry]:
    try:
        document: Any = json.loads(layout.own_weights.read_text(encoding="utf-8"))
        entries = document["backbones"]
        return {
            str(name): entry and {key: str(entry[key]) for key in ("weights", "content")}
            for name, entry in entries.items()
        }
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            "this is not the list of own weights that Lesionflow writes",
            where=str(layout.own_weights),
            fix="delete the file and run `lesionflow retrain`",
        ) from error
