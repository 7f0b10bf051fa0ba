"""`prefect deploy` puts on a work pool of any kind what `lesionflow schedule` serves."""

from __future__ import annotations

import importlib.resources
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import PREFECT_API_URL

from components.layout import Layout
from flows.deployments import deployments, on_new_snapshot

REPO = Path(__file__).resolve().parents[2]
PREFECT_FILE = REPO / "infra" / "prefect" / "prefect.yaml"
CLONE_FILE = PREFECT_FILE.with_name("clone.yaml")
PACKAGES = {
    "process": "prefect",
    "docker": "prefect-docker",
    "kubernetes": "prefect-kubernetes",
}


def _make_pool(kind: str, name: str) -> None:
    """Make a work pool with the job template of its kind, as `prefect work-pool create` does."""
    views = importlib.resources.files("prefect.server.api.collections_data.views")
    packaged = json.loads((views / "aggregate-worker-metadata.json").read_text(encoding="utf-8"))
    template = packaged[PACKAGES[kind]][kind]["default_base_job_configuration"]
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=name, type=kind, base_job_template=template))


def _deploy(prefect_file: Path, workspace: Path, **environment: str) -> None:
    done = subprocess.run(
        ["prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(prefect_file)],
        cwd=workspace,
        env={
            **os.environ,
            "PREFECT_API_URL": str(PREFECT_API_URL.value()),
            "LESIONFLOW_IMAGE": "lesionflow:0.1.0",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    "kind",
    [
        "process",
        pytest.param("docker", marks=pytest.mark.slow),
        pytest.param("kubernetes", marks=pytest.mark.slow),
    ],
)
def test_the_same_deployments_with_the_schedules_of_params(kind: str, workspace: Path) -> None:
    with (workspace / "params.yaml").open("a", encoding="utf-8") as params:
        params.write("schedule: {retrain_cron: null, timezone: Europe/Vienna}\n")
    _make_pool(kind, f"pool-{kind}")
    _deploy(
        PREFECT_FILE,
        workspace,
        LESIONFLOW_WORK_POOL=f"pool-{kind}",
        LESIONFLOW_WORKSPACE=str(workspace),
    )
    served = deployments(Layout(workspace))
    with get_client(sync_client=True) as client:
        for expected in served:
            found = client.read_deployment_by_name(f"{expected.flow_name}/{expected.name}")
            assert found.work_pool_name == f"pool-{kind}"
            assert found.parameters == expected.parameters
            form = expected._parameter_openapi_schema.properties
            assert found.parameter_openapi_schema["properties"] == form
            active = [each.schedule for each in found.schedules if each.active]
            assert active == [each.schedule for each in expected.schedules]
            assert found.pull_steps == [
                {"prefect.deployments.steps.set_working_directory": {"directory": str(workspace)}}
            ]
        retrain = client.read_deployment_by_name("retrain/scheduled")
        automations = client.read_resource_related_automations(f"prefect.deployment.{retrain.id}")
    (automation,) = automations
    mine = on_new_snapshot(Layout(workspace))
    assert automation.trigger.expect == mine.expect
    assert automation.trigger.match.root == mine.match.root


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_worker_of_the_pool_runs_them_in_the_workspace(
    workspace: Path, shrink: Callable[[Path], None], tmp_path: Path
) -> None:
    shrink(workspace)
    pool = "pool-of-a-worker"
    _make_pool("process", pool)
    _deploy(
        PREFECT_FILE,
        workspace,
        LESIONFLOW_WORK_POOL=pool,
        LESIONFLOW_WORKSPACE=str(workspace),
    )
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("ingest/scheduled")
        asked = client.create_flow_run_from_deployment(deployment.id)
        worker = subprocess.run(
            ["prefect", "worker", "start", "--pool", pool, "--run-once"],
            cwd=tmp_path,  # a worker is started anywhere
            env={**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value())},
            capture_output=True,
            text=True,
            check=False,
        )
        run = client.read_flow_run(asked.id)
    assert run.state is not None and run.state.is_completed(), worker.stdout + worker.stderr
    assert run.name.startswith("ingest 20")
    assert Layout(workspace).splits.is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_runs_in_clean_clones_need_no_file_of_the_worker(workspace: Path) -> None:
    _make_pool("process", "pool-of-clones")
    _deploy(
        CLONE_FILE,
        workspace,
        LESIONFLOW_WORK_POOL="pool-of-clones",
        LESIONFLOW_REPOSITORY="ssh://git@example.org/lesionflow.git",
        LESIONFLOW_RECORD_ON="record",
    )
    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name("retrain-clone/scheduled")
    assert load_flow_from_entrypoint(str(found.entrypoint)).name == "retrain-clone"
    assert found.pull_steps == [
        {"prefect.deployments.steps.set_working_directory": {"directory": "/"}}
    ]
    assert found.parameters == {
        "repository": "ssh://git@example.org/lesionflow.git",
        "ref": "main",
        "record_on": "record",
    }
    form = found.parameter_openapi_schema["properties"]
    assert set(form) == {"repository", "ref", "remote", "record_on", "cache"}
    assert all(field["description"] for field in form.values())
