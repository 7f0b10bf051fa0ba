"""The whole job where no workspace lasts: in a clean clone at a commit, removed afterwards.

Runs on a work pool (`infra/prefect/clone.yaml`). Clones the repository, pulls by DVC, does what
`retrain` does, pushes data and results, and records `dvc.lock` and the split's ledger as a commit
on a branch; only then the champion may move. What a failed run has done is recorded too, so the
next one goes on from there; what could not be pushed is kept for the next one on this machine.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from pydantic import BeforeValidator

from components.clean_clone import CleanClone, note_clone
from components.dataset.fingerprint import refresh_sources
from components.errors import ParamsError
from components.layout import Layout
from components.left_behind import owned_folder, remove_left_behind
from components.params import Params, load_params
from components.repository import RecordError, TransferError, is_changed
from components.unpushed import forget_old, working_cache
from flows.alone import of_deployment
from flows.hooks import hooks
from flows.pipeline import RunError
from flows.promote import finish
from flows.time_limit import TimeLimitError, time_limit
from tasks.links import described
from tasks.notifications import tell_champion
from tasks.sync import clone, has_own_cache, pull, push, record

_PREFIX = "lesionflow-clone-"
_DONE = "every stage is done"
_T = TypeVar("_T")
# A form and a variable that is not set (infra/prefect/clone.yaml) leave an empty text.
Optionally = Annotated[_T | None, BeforeValidator(lambda given: None if given == "" else given)]


def clone_run_name() -> str:
    """Name the present flow run by its day and ref, such as `retrain-clone 2026-11-20 main`."""
    day = datetime.now(UTC).date().isoformat()  # the time zone is in the clone that is to come
    return f"{flow_run.flow_name} {day} {flow_run.parameters['ref']}"


@flow(
    name="retrain-clone",
    flow_run_name=clone_run_name,
    persist_result=False,
    **hooks(tell_champion),
)
def retrain_clone(
    repository: str,
    ref: str = "main",
    remote: Optionally[str] = None,
    record_on: Optionally[str] = None,
    cache: Optionally[Path] = None,
) -> dict[str, Any]:
    """Retrain in a clean clone of `repository` at `ref`, push everything, and remove the clone.

    Args:
        repository: URL or absolute folder of the Git repository; no password in it.
        ref: Branch, tag or commit to start from.
        remote: Name of the DVC remote to pull from and push to; empty: the repository's default.
        record_on: Branch that gets dvc.lock and the split's ledger as a commit; empty: no record,
            and the next run starts from what `ref` has. Then the ledger of the split that the
            champion was trained by is lost, unless `ref` has it whole: the run warns.
        cache: Folder that lasts, for DVC's cache: what is there is not pulled again, and what a
            killed run has finished is found. Empty: what .dvc/config says; else a folder for
            temporary files, which a run that fails or is killed leaves for the next one of the
            same repository, ref and record on this machine.

    Returns
    -------
    dict
        `done`: names of the stages that were out of date; `decision`: the promotion's record.

    Raises
    ------
    RunError
        Stages failed; what was done is pushed, and recorded if there is a branch for it.
    TimeLimitError
        This run belongs to a deployment and took longer than `schedule.timeout_hours`; as above.
    TransferError, RecordError
        What was made could not be pushed or recorded, and no champion moved; says where it is
        kept.
    ParamsError
        The ref or the remote does not exist, or the registry would be removed with the clone.
    """
    with _clean_folder() as folder:
        layout = Layout(folder / "workspace")
        commit = clone(repository, ref, record_on, layout.root)
        note_clone(layout, CleanClone(repository, record_on, remote))
        params = load_params(layout.params)
        _check_outlives(params)
        hours = params.schedule.timeout_hours if of_deployment() else None
        with (
            _lasting_cache(layout.root, cache, (repository, ref, record_on)) as lasting,
            described(layout),  # its links name the record, also of a run that fails
        ):
            try:
                with time_limit(hours):
                    pull(layout.root, remote, lasting)
                    refresh_sources(params, layout)
                    return finish(layout, lambda: _leave(layout, commit, _DONE, remote, record_on))
            except (RunError, TimeLimitError):
                with suppress(TransferError, RecordError):  # shown by the task; it failed before
                    _leave(layout, commit, "unfinished", remote, record_on)
                raise


def _leave(
    layout: Layout, commit: str, ending: str, remote: str | None, record_on: str | None
) -> None:
    """Push what `dvc.lock` names, then record it: a record never names what nobody can pull.

    Before the champion moves: by a split that no record holds, the next run could not promote
    anything. A promotion changes nothing that is recorded.
    """
    push(layout.root, remote)
    if record_on is None:
        if is_changed(layout.root, layout.split_ledger):
            get_run_logger().warning(
                "the split's ledger has grown, and goes with the clone: when there are new images "
                "some day, the gate split_ledger may refuse every model, for they are dealt anew; "
                "give record_on a branch, or keep the ledger of all images on the ref"
            )
    else:
        message = f"{flow_run.name}: {ending}\n\nCode: {commit}\nFlow run: {flow_run.id}\n"
        record(layout.root, record_on, message)


@contextmanager
def _lasting_cache(
    root: Path, cache: Path | None, of_runs: tuple[str, str, str | None]
) -> Iterator[Path | None]:
    """Yield where the clone at `root` shall have its DVC cache; None: where its config says.

    That is `cache`, or a folder that outlives a failure and a kill, with what an earlier run of
    the same repository, ref and record (`of_runs`) has left. An error of a push or of the record,
    after all the work, says where that is.
    """
    if cache is not None:
        with _kept_in(lambda: cache):
            yield cache
    elif has_own_cache(root):
        yield None
    else:
        with working_cache(*of_runs, _parent()) as working:
            if working.taken_up:
                get_run_logger().info("goes on with what an earlier run has left here")
            with _kept_in(lambda: None if working.is_empty() else working.folder):
                yield working.cache


@contextmanager
def _kept_in(place: Callable[[], Path | None]) -> Iterator[None]:
    """Say of an error where what was made is kept, if it is."""
    try:
        yield
    except BaseException as error:
        kept = place()
        if kept is None:  # nothing was made
            raise
        get_run_logger().warning("what this run has made is kept in %s", kept)
        if not isinstance(error, (TransferError, RecordError)):
            raise
        again = f"; run it again on this machine: with what is kept in {kept} nothing is made twice"
        raise type(error)(error.what, where=error.where, fix=error.fix + again) from error


def _check_outlives(params: Params) -> None:
    """Check that models lie outside of the clone; say so where checkpoints do not."""
    if not _lasts(params.registry.uri):
        raise ParamsError(
            f"{params.registry.uri!r} lies in the clone, and would be removed with the models",
            where="params.yaml: registry.uri",
            fix="write s3://bucket/prefix, or a folder that lasts (/srv/registry, say)",
        )
    if not _lasts(params.storage):
        get_run_logger().warning(
            "storage %r lies in the clone: a training that is killed starts from its first epoch; "
            "write s3://… or a folder that lasts",
            params.storage,
        )


def _lasts(uri: str) -> bool:
    return uri.startswith("s3://") or Path(uri).is_absolute()


@contextmanager
def _clean_folder() -> Iterator[Path]:
    remove_left_behind(_PREFIX, _parent())
    forget_old(_parent())
    folder = owned_folder(_PREFIX, _parent())
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _parent() -> Path:
    return Path(tempfile.gettempdir())
