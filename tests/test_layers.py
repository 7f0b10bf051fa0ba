"""The shape of the code: imports point one way, and DVC watches the code that shapes a result."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

REPO = Path(__file__).resolve().parents[1]
LAYERS = ("components", "tasks", "flows")
# What carries data and parameters, or says where work is done, but does not shape a result.
PLUMBING = {
    "components/capacity.py",
    "components/cluster.py",
    "components/console.py",
    "components/dataset/catch_up.py",
    "components/dataset/files.py",
    "components/dataset/originals.py",
    "components/dataset/read_ahead.py",
    "components/dataset/workers.py",
    "components/atomic.py",
    "components/errors.py",
    "components/job_server.py",
    "components/last_good.py",
    "components/layout.py",
    "components/left_behind.py",
    "components/params.py",
    "components/progress.py",
    "components/recorded.py",
    "components/settings.py",
    "components/stage.py",
    "components/tables.py",
}


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _modules(layer: str) -> list[Path]:
    return sorted((REPO / layer).rglob("*.py"))


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_downwards(layer: str) -> None:
    forbidden = set(LAYERS[LAYERS.index(layer) + 1 :]) | {"tests", "benchmarks"}
    if layer == "components":
        forbidden.add("prefect")
    wrong = [
        f"{path.relative_to(REPO)} imports {name}"
        for path in _modules(layer)
        for name in _imports(path)
        if name.split(".")[0] in forbidden
    ]
    assert not wrong


def _stages() -> dict[str, dict[str, object]]:
    document = YAML(typ="safe").load((REPO / "dvc.yaml").read_text(encoding="utf-8"))
    return dict(document["stages"])


def _file_of(module: str) -> Path | None:
    for candidate in (
        REPO / (module.replace(".", "/") + ".py"),
        REPO / module.replace(".", "/") / "__init__.py",
    ):
        if candidate.is_file() and candidate.name != "__init__.py":
            return candidate
    return None


def _closure(start: Path) -> set[str]:
    """Return all our modules that `start` reaches, itself included, plumbing left out."""
    seen: set[str] = set()
    todo = [start]
    while todo:
        path = todo.pop()
        name = path.relative_to(REPO).as_posix()
        if name in seen or name in PLUMBING:
            continue
        seen.add(name)
        todo += [
            found
            for module in _imports(path)
            if module.startswith("components.") and (found := _file_of(module)) is not None
        ]
    return {name for name in seen if not name.endswith("/config.py")}


@pytest.mark.parametrize("stage", sorted(_stages()))
def test_dvc_watches_every_module_that_shapes_the_result_of(stage: str) -> None:
    command = str(_stages()[stage]["cmd"]).split()
    module = command[command.index("-m") + 1]
    start = _file_of(module)
    assert start is not None, f"{module} does not exist"
    declared = [str(dep) for dep in _stages()[stage].get("deps", [])]  # type: ignore[attr-defined]
    unwatched = {
        name
        for name in _closure(start)
        if not any(name == dep or name.startswith(f"{dep}/") for dep in declared)
    }
    assert not unwatched, f"{stage} would not run again after a change of these"


@pytest.mark.parametrize("stage", sorted(_stages()))
def test_dvc_yaml_names_only_code_that_exists(stage: str) -> None:
    declared = [str(dep) for dep in _stages()[stage].get("deps", [])]  # type: ignore[attr-defined]
    missing = [
        dep for dep in declared if dep.startswith("components/") and not (REPO / dep).exists()
    ]
    assert not missing
