"""Stages linked into a run: submitted in the order of the graph, side by side where it allows."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.futures import PrefectConcurrentFuture
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from components.cluster import is_job_server
from components.dataset.fingerprint import refresh_sources
from components.errors import LesionflowError
from components.layout import Layout
from components.params import Params, load_params
from components.training.cost import relative_cost
from components.training.own_weights import refresh_own_weights
from components.training.remote import check_storage
from tasks.graph import Stage, read_graph
from tasks.links import publish_links, rename_run
from tasks.promotion import recall_test_uses
from tasks.stage import StageError, end_running_stages, run_stage

_NUM_WAITING = 2  # one for the next free place, one for a node that joins
_MEASURES_TIME = "profile"  # the stage whose result other work on the machine would change


class RunError(LesionflowError):
    """Stages of a run failed; what the others did is kept."""

    def __init__(self, failures: Sequence[BaseException]) -> None:
        self.failures = tuple(failures)
        first = next((each for each in failures if isinstance(each, StageError)), None)
        super().__init__(
            "\n".join(_told_once(failures)),
            where=first.stage if first else "the flow",
            fix="mend it and run the same command again: what is done is not done twice",
        )
        self.code = first.code if first else 70

    def __str__(self) -> str:
        return f"{self.what}\n  then: {self.fix}"


def _told_once(failures: Iterable[BaseException]) -> Iterator[str]:
    """Yield a message per cause: what several stages failed for (a lost cluster) is told once."""
    stages: dict[str, list[StageError]] = {}
    for failure in failures:
        if isinstance(failure, StageError):
            stages.setdefault(failure.what, []).append(failure)
        else:
            yield str(failure)
    for what, same in stages.items():
        names = ", ".join(each.stage for each in same)
        yield str(same[0]) if len(same) == 1 else f"stages {names} failed: {what}"


def run_name() -> str:
    """Name the present flow run by its day and data, such as `retrain 2026-11-20 ham10000@3f2a`.

    The day is that of `schedule.timezone`; the data are those that the workspace knows now.
    """
    layout = Layout(Path(flow_run.parameters["workspace"]))
    params = load_params(layout.params)
    known = layout.sources.read_bytes() if layout.sources.is_file() else b""
    day = datetime.now(ZoneInfo(params.schedule.timezone)).date().isoformat()
    return f"{flow_run.flow_name} {day} {params.recipe}@{hashlib.sha256(known).hexdigest()[:4]}"


def take_in(layout: Layout) -> None:
    """Look at the sources of the workspace; the run is named after what they have now.

    Raises
    ------
    SourceError
        A source cannot be reached and was never taken, or cannot be used.
    """
    refresh_sources(load_params(layout.params), layout)
    rename_run(run_name())


def bring_up_to_date(layout: Layout, kinds: Sequence[str] = ()) -> set[str]:
    """Bring the stages of `kinds` (default: all) and what they wait for up to date.

    Looks at the own weights that trainings start from, then asks `dvc status` once. Returns the
    names of the stages that were out of date.

    Raises
    ------
    RunError
        At least one stage failed.
    WeightsError, RegistryError
        There is something to train, and what it starts from is not to be had: nothing was begun.
    ParamsError, ResourceError
        There is something to train, and the cluster of `RAY_ADDRESS` cannot be reached, or would
        not reach `storage`: nothing was begun.
    RegistryError
        There is a report to make, and the registry, which knows how often its test set has been
        used, cannot be reached: nothing was begun.
    """
    params = load_params(layout.params)
    trouble = refresh_own_weights(params, layout) if not kinds or "train" in kinds else {}
    graph = read_graph(layout.root, get_run_logger().info)
    stages = graph.upto(kinds) if kinds else list(graph.stages.values())
    stages = longest_trainings_first(stages, params)
    stale = graph.to_do(kinds)
    trainings = [stage for stage in stages if stage.kind == "train" and stage.name in stale]
    _check_starts(trainings, trouble)
    if trainings and is_job_server(os.environ.get("RAY_ADDRESS", "")):
        check_storage(params.storage)
    if "report" in stale:
        recall_test_uses(layout.root)
    get_run_logger().info("%d of %d stages are out of date", len(stale), len(stages))
    if trainings and os.environ.get("RAY_ADDRESS"):
        publish_links(layout)  # the dashboard is of use while they are under way
    with training_cluster(params, needed=bool(trainings)) as cluster:
        run_stages(
            stages,
            stale,
            workspace=layout.root,
            cluster=cluster,
            # One more than the trainings, so that the first one to end is evaluated meanwhile.
            side_by_side=trainings_side_by_side(params, len(trainings)) + 1,
        )
    return set(stale)


def _check_starts(trainings: Iterable[Stage], trouble: Mapping[str, LesionflowError]) -> None:
    """Raise the trouble with the weights of what must be trained; warn of the other."""
    for stage in trainings:
        backbone = stage.name.partition("@")[2].rpartition("-")[0]
        if backbone in trouble:
            raise trouble[backbone]
    for backbone, error in trouble.items():
        get_run_logger().warning("%s stays as it was trained before; %s", backbone, error)


def longest_trainings_first(stages: Sequence[Stage], params: Params) -> list[Stage]:
    """Return `stages` with the trainings in the order in which all of them end early.

    A long training that starts last leaves the rest of the machine idle. Trainings do not wait for
    each other, so they may change places; all other stages keep theirs.
    """
    cost = {
        f"train@{name}-{seed}": relative_cost(name, params.training_of(name))
        for name in params.backbones
        for seed in params.seeds
    }
    trainings = sorted(
        (stage for stage in stages if stage.name in cost), key=lambda stage: -cost[stage.name]
    )
    ordered = iter(trainings)
    return [next(ordered) if stage.name in cost else stage for stage in stages]


def run_stages(
    stages: Iterable[Stage],
    stale: Iterable[str],
    *,
    workspace: Path,
    cluster: Callable[[], Mapping[str, str]],
    side_by_side: int,
) -> None:
    """Bring `stages` (in topological order) up to date; of those that can start, the first does.

    A stage that measures time runs when no other does, after all that need not wait for it. A
    failed stage stops only what stands below it; the others are finished and kept.

    Raises
    ------
    RunError
        At least one stage failed.
    """
    todo = frozenset(stale)
    futures: dict[str, PrefectConcurrentFuture[State]] = {}
    # First in, first out, upstream first: who waits never blocks what it waits for.
    runner: ThreadPoolTaskRunner[State] = ThreadPoolTaskRunner(max_workers=side_by_side)
    with runner:
        try:
            for stage in measured_last(stages):
                if stage.kind == _MEASURES_TIME and stage.name in todo:
                    _wait_for(futures.values())
                futures[stage.name] = runner.submit(
                    run_stage.with_options(name=stage.kind),
                    parameters={
                        "stage": stage,
                        "stale": stage.name in todo,
                        "workspace": workspace,
                        "cluster": cluster,
                    },
                    wait_for=[futures[name] for name in stage.upstream if name in futures],
                )
            _wait_for(futures.values())
        except BaseException:
            _end(runner)
            raise
    failures = [_failure(name, future) for name, future in futures.items()]
    found = [failure for failure in failures if failure is not None]
    if found:
        raise RunError(found)


def measured_last(stages: Iterable[Stage]) -> list[Stage]:
    """Return `stages` with those that measure time, and what stands below them, behind the others.

    The order stays topological.
    """
    first: list[Stage] = []
    last: dict[str, Stage] = {}
    for stage in stages:
        if stage.kind == _MEASURES_TIME or not last.keys().isdisjoint(stage.upstream):
            last[stage.name] = stage
        else:
            first.append(stage)
    return [*first, *last.values()]


def _wait_for(futures: Iterable[PrefectConcurrentFuture[State]]) -> None:
    for future in futures:
        future.wait()


def _end(runner: ThreadPoolTaskRunner[State]) -> None:
    """Start no further stage and end those that run: a runner by itself waits for all of them."""
    closing = threading.Thread(target=runner.cancel_all)
    closing.start()
    while closing.is_alive():
        end_running_stages()
        closing.join(timeout=0.2)


def _failure(name: str, future: PrefectConcurrentFuture[State]) -> BaseException | None:
    state = future.state
    if state.is_cancelled():
        return StageError(name, str(state.message), 70)
    if not (state.is_failed() or state.is_crashed()):
        return None
    error = state.result(raise_on_failure=False)
    if isinstance(error, StageError):
        return error
    return StageError(name, str(error or state.message), 70)


def trainings_side_by_side(params: Params, num_trainings: int) -> int:
    """How many of the trainings to have under way at once: each has a process on this machine.

    On the local cluster, those that fit by their CPU share. On the cluster of `RAY_ADDRESS`, those
    that have room on its nodes, and a few that wait: they take what becomes free, or joins.

    Raises
    ------
    ResourceError
        There is something to train, and the cluster of `RAY_ADDRESS` does not answer.
    """
    if num_trainings == 0:
        return 1
    if params.cluster.side_by_side is not None:
        return min(num_trainings, params.cluster.side_by_side)
    recipes = [params.training_of(name) for name in params.backbones]
    address = os.environ.get("RAY_ADDRESS")
    if address:
        from components.capacity import nodes_of, num_that_fit

        nodes = nodes_of(address)
        num_fitting = max(
            num_that_fit({"CPU": recipe.cpus_per_worker, "GPU": recipe.gpus_per_worker}, nodes)
            // recipe.num_workers
            for recipe in recipes
        )
        return min(num_trainings, num_fitting + _NUM_WAITING)
    cores = params.cluster.num_cpus or os.cpu_count() or 1
    smallest = min(recipe.cpus_per_worker * recipe.num_workers for recipe in recipes)
    return max(1, min(num_trainings, int(cores / smallest)))


@contextmanager
def training_cluster(params: Params, *, needed: bool) -> Iterator[Callable[[], Mapping[str, str]]]:
    """Yield what returns the environment that takes a training to the shared Ray cluster.

    `RAY_ADDRESS` set: that cluster. Otherwise a local one on 127.0.0.1, which starts beside the
    stages before the trainings, only if there is something to train, and is gone afterwards.
    """
    if not needed or os.environ.get("RAY_ADDRESS"):
        yield dict
        return
    from components.cluster import starting_cluster

    with starting_cluster(params.cluster.num_cpus) as environment:
        yield environment
