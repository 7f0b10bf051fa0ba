"""Put a recipe in place as `params.yaml`, and change single values of it, comments kept."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from components.atomic import write_text
from components.errors import ParamsError
from components.layout import Layout
from components.params import parse_params


def recipe_names(layout: Layout) -> list[str]:
    """Names of the recipes in `params/`."""
    return sorted(path.stem for path in layout.recipes.glob("*.yaml"))


def compose_recipe(
    layout: Layout,
    recipe: str,
    *,
    sources: Sequence[str] = (),
    backbones: Sequence[str] = (),
    image_size: int | None = None,
    seeds: Sequence[int] = (),
) -> tuple[str, list[str]]:
    """Return the text of a recipe with the given values, and what was decided for the user.

    Threads and CPU shares are part of a result on a CPU, so they are written into the text as
    numbers (from the cores of this machine and the number of trainings), never guessed at run
    time.

    Raises
    ------
    ParamsError
        The recipe does not exist, or a value is not allowed.
    """
    path = layout.recipes / f"{recipe}.yaml"
    if not path.is_file():
        raise ParamsError(
            f"no recipe called {recipe!r}",
            where=str(layout.recipes),
            fix=f"choose of {', '.join(recipe_names(layout))}",
        )
    document = _load(path)
    notes: list[str] = []
    if sources:
        _set_sources(document, sources)
    if backbones:
        _set_backbones(document, backbones)
    if image_size is not None:
        document["pack"]["image_size"] = image_size
        document["training"]["image_size"] = image_size
        for changes in document["backbones"].values():
            changes.pop("image_size", None)
    if seeds:
        document["seeds"] = _flow_list(seeds)
    notes += _share_cores(document)
    return _checked_text(document, where=f"recipe {recipe}"), notes


def set_values(layout: Layout, assignments: Sequence[str]) -> list[str]:
    """Write `key=value` assignments (dotted keys, YAML values) into `params.yaml`.

    Returns
    -------
    list of str
        One line per key, with the old and the new value.

    Raises
    ------
    ParamsError
        An assignment has no `=`, or the result is not valid; the file is then left as it was.
    """
    document = _load(layout.params)
    changes = []
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise ParamsError(
                f"{assignment!r} is no assignment", where="-S", fix="write it as key=value"
            )
        changes.append(_assign(document, key.strip(), _parse_value(text, key)))
    write_text(layout.params, _checked_text(document, where="-S " + " -S ".join(assignments)))
    return changes


def _load(path: Path) -> CommentedMap:
    try:
        document = _yaml().load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(
            f"this is no valid YAML: {error}", where=str(path), fix="mend the line named above"
        ) from error
    if not isinstance(document, CommentedMap):
        raise ParamsError(
            "this is no YAML mapping", where=str(path), fix="start from a file in params/"
        )
    return document


def _yaml() -> YAML:
    yaml = YAML()
    yaml.width = 100
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _checked_text(document: CommentedMap, *, where: str) -> str:
    stream = io.StringIO()
    _yaml().dump(document, stream)
    text = stream.getvalue()
    parse_params(YAML(typ="safe").load(text), where=where)
    return text


def _set_sources(document: CommentedMap, uris: Sequence[str]) -> None:
    """Give every URI the kind and the options of the recipe's own source."""
    model = document["sources"][0]
    entries = CommentedSeq()
    for uri in uris:
        entry = CommentedMap(model)
        entry["uri"] = uri if "://" in uri or uri.startswith("doi:") else _absolute(uri)
        entries.append(entry)
    document["sources"] = entries


def _absolute(uri: str) -> str:
    """Resolve a folder against where the user stands: the stages stand in the workspace."""
    return str(Path(uri).expanduser().resolve()) if not uri.startswith("synthetic:") else uri


def _set_backbones(document: CommentedMap, names: Sequence[str]) -> None:
    chosen = CommentedMap()
    for name in names:
        chosen[name] = document["backbones"].get(name, CommentedMap())
    document["backbones"] = chosen


def _share_cores(document: CommentedMap) -> list[str]:
    """Divide the cores of this machine among the trainings that run side by side.

    Two data-parallel workers of one thread are no slower than one worker of two threads:
    `benchmarks/results/training-workers.csv`.
    """
    training = document["training"]
    if training.get("gpus_per_worker"):
        return []
    cores = os.cpu_count() or 1
    runs = len(document["backbones"]) * len(document["seeds"])
    workers = 2 if cores >= 2 * runs else 1
    threads = max(1, cores // (runs * workers))
    chosen = {
        "num_workers": workers,
        "threads": threads,
        "cpus_per_worker": float(threads) if runs <= cores else 0.5,
    }
    training.update(chosen)
    settings = ", ".join(f"training.{key}: {value:g}" for key, value in chosen.items())
    return [f"{settings} ({runs} training{'s' if runs > 1 else ''} on {cores} cores)"]


def _flow_list(values: Sequence[int]) -> CommentedSeq:
    entries = CommentedSeq(values)
    entries.fa.set_flow_style()
    return entries


def _parse_value(text: str, key: str) -> Any:
    try:
        return YAML().load(text)
    except YAMLError as error:
        raise ParamsError(
            f"{text!r} is no valid value for {key}",
            where="-S",
            fix="write a number, a word, true, false, null, [a, b] or {key: value}",
        ) from error


def _assign(document: CommentedMap, key: str, value: Any) -> str:
    *parents, last = key.split(".")
    place: Any = document
    for parent in parents:
        if not isinstance(place, dict) or parent not in place:
            raise ParamsError(
                f"{key}: there is no {parent!r}",
                where="params.yaml",
                fix="see params/ for the keys",
            )
        place = place[parent]
    if not isinstance(place, dict):
        raise ParamsError(
            f"{key}: {'.'.join(parents)} holds no keys",
            where="params.yaml",
            fix="see params/ for the keys",
        )
    old = place.get(last, "(default)")
    place[last] = value
    return f"{key}: {old} -> {value}"
