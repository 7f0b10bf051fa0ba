"""A run in a clean clone leaves data, models and a record, and nothing on the disk."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort

import flows.retrain_clone
from components.atomic import write_json, write_text
from components.errors import ParamsError
from components.layout import Layout
from components.repository import RecordError, TransferError
from flows.pipeline import RunError
from flows.retrain_clone import retrain_clone
from tests.receiver import Receiver

from ..components.registry.conftest import Work, make_work, train

__all__ = ["make_work"]

pytestmark = pytest.mark.usefixtures("prefect_server")

GRAPH = """
stages:
  only:
    cmd: date +%N > made.txt && cp made.txt reports/report.html
    outs:
      - made.txt
      - reports/report.html
"""


@pytest.fixture
def origin(
    workspace: Path,
    tmp_path: Path,
    shrink: Callable[[Path], None],
    edit_params: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Return a bare repository of a small quickstart whose data go to a folder; temp is ours."""
    shrink(workspace)
    edit_params(
        workspace,
        backbones={"mobilenet_v2": {}},
        training__epochs=1,
        cluster={"side_by_side": 1},  # nobody asks the cluster before the trainings do
        registry__uri=str(tmp_path / "registry"),
        storage=str(tmp_path / "storage"),
    )
    return _bare(workspace, tmp_path, monkeypatch)


@pytest.fixture
def trained_origin(
    workspace: Path, tmp_path: Path, make_work: Callable[..., Work], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Return a bare repository that has a candidate to promote, and one stage, of no weight."""
    work = train(make_work(tmp_path / "work"), skill=1.0)
    work.layout.split_ledger.unlink()
    shutil.copytree(work.layout.root, workspace, dirs_exist_ok=True)
    layout = Layout(workspace)
    write_json(layout.validation_report / "profile.json", {"synthetic": False, "classes": {}})
    document = work.params.model_dump(mode="json")
    document["diagnoses"]["names"] = dict.fromkeys(("akiec", "bcc", "df", "vasc"))
    document["registry"]["uri"] = str(tmp_path / "registry")
    document["storage"] = str(tmp_path / "storage")
    write_text(layout.params, json.dumps(document))
    write_text(layout.graph, GRAPH)
    return _bare(workspace, tmp_path, monkeypatch)


def _bare(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commit all of the workspace to a bare repository whose data go to a folder; temp is ours."""
    bare = tmp_path / "origin.git"
    commit = ["git", "-c", "user.name=A", "-c", "user.email=a@b", "commit", "-q", "-m", "all"]
    for command in (
        ["dvc", "remote", "add", "-q", "-d", "store", str(tmp_path / "remote")],
        ["git", "add", "-A", "-f"],
        commit,
        ["git", "init", "-q", "--bare", "-b", "main", str(bare)],
        ["git", "push", "-q", str(bare), "HEAD:main"],
    ):
        subprocess.run(command, cwd=workspace, check=True, capture_output=True)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return bare


def _file(origin: Path, name: str) -> str:
    return subprocess.run(
        ["git", "show", name], cwd=origin, check=True, capture_output=True, text=True
    ).stdout


def _left_in(folder: Path) -> list[str]:
    """Return what lies there, but for torch's own cache."""
    return [path.name for path in folder.iterdir() if not path.name.startswith("torchinductor_")]


@pytest.mark.slow
def test_each_clone_goes_on_from_the_record_and_the_last_does_no_stage(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> dict[str, Any]:
        return retrain_clone(str(origin), record_on="record")

    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # a cluster that is gone
    with pytest.raises(RunError, match="Ray cluster cannot be used"):
        run()
    monkeypatch.delenv("RAY_ADDRESS")
    second = run()
    assert {"pack", "train@mobilenet_v2-0"} < set(
        second["done"]
    )  # DVC does not keep what is packed
    assert not {"ingest", "measure", "pairs", "validate"} & set(second["done"])
    assert second["decision"]["promoted"]
    assert "train@mobilenet_v2-0" in _file(origin, "record:dvc.lock")
    assert len(_file(origin, "record:data/split_ledger.csv").splitlines()) > 100
    assert "dvc.lock" not in _file(origin, "main:")
    assert list((tmp_path / "registry").rglob("model.safetensors"))
    before = _file(origin, "record")
    third = run()
    assert third["done"] == []
    assert not third["decision"]["changed"]
    assert _file(origin, "record") == before  # nothing new is no commit
    assert not _left_in(tmp_path / "temporary")


@pytest.mark.slow
def test_what_could_not_be_pushed_is_not_made_again(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("push", "record"):  # without the pauses between their attempts
        one_attempt = getattr(flows.retrain_clone, name).with_options(retries=0)
        monkeypatch.setattr(flows.retrain_clone, name, one_attempt)
    remote, temporary = tmp_path / "remote", tmp_path / "temporary"
    remote.write_text("a file where a folder was")

    with pytest.raises(TransferError, match="dvc push failed") as first:
        retrain_clone(str(origin), record_on="record")
    (kept,) = temporary.glob("lesionflow-*")
    assert str(kept) in first.value.fix
    assert kept.stat().st_mode & 0o077 == 0, "others may read the pictures"
    (trained,) = (tmp_path / "storage").rglob("finished.json")
    ended = trained.stat().st_mtime_ns

    shutil.rmtree(kept)  # on another machine, what was trained is in `storage`
    remote.unlink()
    hook = origin / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(RecordError) as second:
        retrain_clone(str(origin), record_on="record")
    (again,) = temporary.glob("lesionflow-*")
    assert again != kept
    assert str(again) in second.value.fix
    assert trained.stat().st_mtime_ns == ended

    hook.unlink()
    with pytest.raises(ParamsError, match="no DVC remote"):  # it fails before it has made anything
        retrain_clone(str(origin), record_on="record", remote="stroe")
    shutil.rmtree(tmp_path / "storage")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # whoever trains again is told so
    last = retrain_clone(str(origin), record_on="record")
    assert "train@mobilenet_v2-0" in last["done"]
    assert "train@mobilenet_v2-0" in _file(origin, "record:dvc.lock")
    assert not list(temporary.glob("lesionflow-*"))


def _champions(tmp_path: Path) -> list[str]:
    return [path.read_text() for path in tmp_path.glob("registry/*/aliases/champion.json")]


def test_no_champion_moves_before_the_split_that_it_was_trained_by_is_recorded(
    trained_origin: Path, tmp_path: Path
) -> None:
    """Else the next run would deal the same images anew, and the gate refuse its model."""
    hook = trained_origin / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(RecordError) as failed:
        retrain_clone(str(trained_origin), record_on="record")
    assert not _champions(tmp_path)
    (kept,) = (tmp_path / "temporary").glob("lesionflow-*")
    assert str(kept) in failed.value.fix

    hook.unlink()
    done = retrain_clone(str(trained_origin), record_on="record")
    assert done["decision"]["promoted"]
    assert len(_champions(tmp_path)) == 1
    assert len(_file(trained_origin, "record:data/split_ledger.csv").splitlines()) == 49
    assert not _left_in(tmp_path / "temporary")


def test_without_a_record_whoever_runs_is_told_that_the_ledger_is_lost(
    trained_origin: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert retrain_clone(str(trained_origin))["decision"]["promoted"]
    assert caplog.text.count("the split's ledger has grown, and goes with the clone") == 1


def _links() -> str:
    """Return the links of the last run."""
    with get_client(sync_client=True) as client:
        last = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["links"])),
            sort=ArtifactSort.CREATED_DESC,
        )[0]
    return str(last.data)


def _fetched(links: str, folder: Path) -> str:
    """Do what the links of a run say of its report; return the page."""
    command = re.search(r"\| report \| `(dvc get [^`]+)` \|", links)
    assert command, links
    folder.mkdir()
    subprocess.run(shlex.split(command[1]), cwd=folder, check=True, capture_output=True)
    return (folder / "report.html").read_text()


def test_the_links_of_a_run_lead_to_its_report_when_the_clone_is_gone(
    trained_origin: Path, workspace: Path, tmp_path: Path
) -> None:
    retrain_clone(str(trained_origin))
    assert "`record_on` names no branch" in _links()
    retrain_clone(str(trained_origin), record_on="record")
    links = _links()
    assert "file://" not in links
    assert str(tmp_path / "temporary") not in links
    record = _file(trained_origin, "record").split()[1]
    assert f"| record | `{record}` on `record` |" in links
    page = _fetched(links, tmp_path / "first")

    graph = GRAPH + "  last: {cmd: 'false', deps: [made.txt], outs: [never.txt]}\n"
    write_text(workspace / "dvc.yaml", graph.replace("date", "date -u"))
    for command in (
        ["git", "-c", "user.name=A", "-c", "user.email=a@b", "commit", "-qam", "fails"],
        ["git", "push", "-q", str(trained_origin), "HEAD:main"],
    ):
        subprocess.run(command, cwd=workspace, check=True, capture_output=True)
    with pytest.raises(RunError):
        retrain_clone(str(trained_origin), record_on="record")
    assert _fetched(_links(), tmp_path / "second") != page, "a failed run is recorded, too"
    assert _fetched(links, tmp_path / "again") == page, "the earlier report is where it was"


def test_a_clones_failure_and_its_new_champion_are_told_and_the_run_is_tagged(
    trained_origin: Path, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LESIONFLOW_WEBHOOK_URL", receiver.url)
    monkeypatch.setenv("LESIONFLOW_EVENTS", str(tmp_path / "events.jsonl"))
    retrain_clone(str(trained_origin), ref="mian", return_state=True)
    (failed,) = receiver.bodies
    assert "there is no branch, tag or commit 'mian'" in failed["text"]
    state = retrain_clone(str(trained_origin), return_state=True)
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(state.state_details.flow_run_id)
    assert receiver.bodies[1]["text"].startswith(f"{run.name}: ")
    assert "promoted v0001" in receiver.bodies[1]["text"]
    assert re.fullmatch(r"retrain-clone \d{4}-\d\d-\d\d main", run.name)
    assert any(tag.startswith("recipe:") for tag in run.tags)
    lines = (tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()
    names = [line["event"] for line in map(json.loads, lines) if line["run_id"] == str(run.id)]
    assert {"run_started", "promotion_decided", "run_ended", "notification_sent"} <= set(names)


def test_a_registry_in_the_clone_is_refused_before_anything_is_pulled(
    workspace: Path, origin: Path, tmp_path: Path, edit_params: Callable[..., None]
) -> None:
    edit_params(workspace, registry__uri="registry")
    for command in (
        ["git", "-c", "user.name=A", "-c", "user.email=a@b", "commit", "-qam", "registry"],
        ["git", "push", "-q", str(origin), "HEAD:main"],
    ):
        subprocess.run(command, cwd=workspace, check=True, capture_output=True)
    with pytest.raises(ParamsError, match="lies in the clone"):
        retrain_clone(str(origin))
    assert not (tmp_path / "remote").exists()
    assert not _left_in(tmp_path / "temporary")


def test_what_is_left_empty_in_the_form_or_the_environment_is_not_given() -> None:
    empty = {"repository": "/srv/x.git", "ref": "main", "remote": "", "record_on": "", "cache": ""}
    seen = retrain_clone.validate_parameters(empty)
    assert (seen["remote"], seen["record_on"], seen["cache"]) == (None, None, None)
    seen = retrain_clone.validate_parameters({**empty, "record_on": "record", "cache": "/srv/c"})
    assert (seen["record_on"], seen["cache"]) == ("record", Path("/srv/c"))
    shown = retrain_clone.parameters.properties["record_on"]
    assert {"type": "string"} in shown["anyOf"]  # the form in the UI still knows what it is
