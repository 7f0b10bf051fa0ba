"""The pipeline's graph as DVC sees it: stages, what each waits for, and which are out of date.

`dvc.yaml` is the only place where the graph is declared; this reads it through DVC itself, so a
matrix, a foreach or a variable means here what it means to `dvc repro`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx

from components.errors import ParamsError, ResourceError
from tasks.dvc_locks import forget_killed

if TYPE_CHECKING:
    from dvc.repo import Repo


WAIT_SECONDS = 300.0
"""How long to wait for another DVC process in the workspace."""


def _on_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Stage:
    """One stage: its address (`train@resnet18-0`), the stages it waits for, why it is stale.

    `lost`: nothing has changed, but an output that DVC does not keep (the packed images) is gone,
    as in a clone that has pulled the data. It is made again when something needs it.
    """

    name: str
    upstream: tuple[str, ...]
    changes: tuple[str, ...]
    lost: bool = False

    @property
    def kind(self) -> str:
        """Name in `dvc.yaml`, without the matrix item."""
        return self.name.partition("@")[0]


@dataclass(frozen=True)
class Graph:
    """All stages, generation by generation: what can run side by side stands together."""

    stages: Mapping[str, Stage]

    @cached_property
    def stale(self) -> frozenset[str]:
        """Stages that changed or stand below a change; all others are up to date."""
        stale: set[str] = set()
        for stage in self.stages.values():
            if stage.changes or not stale.isdisjoint(stage.upstream):
                stale.add(stage.name)
        return frozenset(stale)

    def to_do(self, kinds: Iterable[str] = ()) -> frozenset[str]:
        """Return the stages of `kinds` (default: all) and what they wait for that must run.

        These are the stale ones, and the lost ones that those (or the caller, by `kinds`) need.
        """
        kinds = frozenset(kinds)
        stages = self.upto(kinds) if kinds else list(self.stages.values())
        wanted = {stage.name for stage in stages} & self.stale
        wanted |= {stage.name for stage in stages if stage.lost and stage.kind in kinds}
        for stage in reversed(stages):
            if stage.name in wanted:
                wanted.update(name for name in stage.upstream if self.stages[name].lost)
        return frozenset(wanted)

    def also_changed(self, changes: Mapping[str, str]) -> Graph:
        """Return the graph as it is when each stage in `changes` has that change, too."""
        added = {
            name: replace(stage, changes=tuple(sorted({*stage.changes, changes[name]})), lost=False)
            for name, stage in self.stages.items()
            if name in changes
        }
        return Graph({**self.stages, **added})

    def upto(self, kinds: Iterable[str]) -> list[Stage]:
        """Return the stages of `kinds` and all that they wait for, in topological order."""
        wanted = {name for name, stage in self.stages.items() if stage.kind in set(kinds)}
        for stage in reversed(list(self.stages.values())):
            if stage.name in wanted:
                wanted.update(stage.upstream)
        return [stage for stage in self.stages.values() if stage.name in wanted]


def read_graph(root: Path, say: Callable[[str], None] = _on_stderr) -> Graph:
    """Read graph and status of the workspace at `root` (one `dvc status`).

    While another DVC process is at work there (a `dvc push`, say), waits; `say` is told so.

    Raises
    ------
    ResourceError
        It is at work still after `WAIT_SECONDS`.
    ParamsError
        DVC cannot read `dvc.yaml` or `dvc.lock`, or the folder is no DVC repository.
    """
    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo, _locked(repo, say):
            edges = networkx.DiGraph(
                (_name(stage.addressing), _name(needed.addressing))
                for stage, needed in repo.index.graph.edges
            )
            edges.add_nodes_from(_name(stage.addressing) for stage in repo.index.stages)
            status = {_name(address): _reasons(why) for address, why in repo.status().items()}
            # DVC calls every dependency of a stage that it has no record of modified.
            unknown = {_name(stage.addressing) for stage in repo.index.stages if _is_new(stage)}
            status |= dict.fromkeys(unknown & status.keys(), ("has not run yet",))
            gone = {_name(stage.addressing): _gone(stage) for stage in repo.index.stages}
    except DvcException as error:
        raise ParamsError(
            f"DVC cannot read the pipeline: {error}",
            where=str(root / "dvc.yaml"),
            fix="mend what is named above; `git diff dvc.yaml dvc.lock` shows what changed",
        ) from error
    generations = networkx.topological_generations(edges.reverse())
    order = [name for generation in generations for name in sorted(generation)]
    all_gone = set().union(*gone.values())
    changes = {
        name: tuple(why for why in status.get(name, ()) if why not in all_gone) for name in order
    }
    return Graph(
        {
            name: Stage(
                name,
                tuple(sorted(edges.successors(name))),
                changes[name],
                lost=bool(gone[name]) and not changes[name],
            )
            for name in order
        }
    )


@contextmanager
def _locked(repo: Repo, say: Callable[[str], None]) -> Iterator[None]:
    """Hold DVC's lock on `repo`: meanwhile DVC keeps what it has read."""
    from dvc.lock import LockError
    from dvc.repo import lock_repo

    end = time.monotonic() + WAIT_SECONDS
    said = False
    with ExitStack() as stack:
        while True:
            try:
                forget_killed(repo)
                stack.enter_context(lock_repo(repo))  # tries for three seconds
                break
            except LockError as error:
                if time.monotonic() > end:
                    raise ResourceError(
                        "another DVC process is at work in this workspace, still after "
                        f"{WAIT_SECONDS / 60:g} minutes",
                        where=str(Path(repo.tmp_dir, "lock")),
                        fix="wait until it has ended (a `dvc push`, say), or end it; then run the "
                        "same command again",
                    ) from error
                if not said:
                    minutes = f"{WAIT_SECONDS / 60:g} minutes"
                    say(f"another DVC process is at work here: waiting for it up to {minutes}")
                said = True
        yield


def _name(address: str) -> str:
    """Drop the path that DVC puts before a stage when the current folder is another one."""
    return address.rpartition(":")[2]


def _is_new(stage: Any) -> bool:
    return bool(stage.deps) and not any(dependency.hash_info for dependency in stage.deps)


def _gone(stage: Any) -> set[str]:
    """Return what DVC says of the outputs that it has a hash of, does not keep, and misses."""
    return {
        f"{out}: deleted"
        for out in stage.outs
        if out.hash_info and not out.use_cache and not out.exists
    }


def _reasons(status: Iterable[object]) -> tuple[str, ...]:
    """Flatten DVC's status of one stage into lines such as `params.yaml: modified`."""
    reasons: list[str] = []
    for item in status:
        if not isinstance(item, Mapping):
            reasons.append(str(item))
            continue
        for what, details in item.items():
            changed = details if isinstance(details, Mapping) else {what: details}
            reasons += [f"{path}: {_state(state)}" for path, state in changed.items()]
    return tuple(sorted(reasons))


def _state(state: object) -> str:
    if isinstance(state, Mapping):
        return ", ".join(f"{key} {value}" for key, value in sorted(state.items()))
    return str(state)
