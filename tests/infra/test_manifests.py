"""The files of infra/ fit the schemas of the tools that read them, are pinned, hold no secret.

Schemas: of compose in `check-jsonschema`, of Kubernetes in `kubernetes-validate`, of the autoscaler
in `ray`, of work pools in `prefect`. KubeRay's is in no package: its kinds are read by Ray's own
autoscaler here (test_autoscaling.py), and their pods are checked as pods.
"""

from __future__ import annotations

import importlib.resources
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator
from ray.runtime_env import RuntimeEnv
from ray.scripts.scripts import start as ray_start

REPO = Path(__file__).resolve().parents[2]
INFRA = REPO / "infra"
KUBERNETES = "1.33"
COMPOSE = sorted((INFRA / "docker").glob("compose*.yaml"))
CLUSTER = INFRA / "ray" / "kuberay-cluster.yaml"
JOB = INFRA / "ray" / "kuberay-job.yaml"
PINS = dict(
    line.split("==") for line in (REPO / "constraints.txt").read_text().splitlines() if line
)


def _load(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def _walk(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield key, value
            yield from _walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from _walk(value)


def _kubernetes() -> list[Any]:
    paths = sorted((INFRA / "k8s").glob("*.yaml"))
    return [
        pytest.param(document, id=f"{path.name}-{document['kind']}")
        for path in paths
        if path.name != "kustomization.yaml"
        for document in _load(path)
    ]


def _ray_specs() -> list[Any]:
    (cluster,), (job,) = _load(CLUSTER), _load(JOB)
    return [
        pytest.param(cluster["spec"], id="RayCluster"),
        pytest.param(job["spec"]["rayClusterSpec"], id="RayJob"),
    ]


def _groups(spec: Any) -> list[Any]:
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_compose_files_fit_the_compose_specification(path: Path) -> None:
    packaged = importlib.resources.files("check_jsonschema.builtin_schemas.vendor")
    schema = json.loads((packaged / "compose-spec.json").read_text(encoding="utf-8"))
    (document,) = _load(path)
    assert [error.message for error in Draft202012Validator(schema).iter_errors(document)] == []


def test_services_of_compose_wait_for_services_that_exist_and_can_be_waited_for() -> None:
    (document,) = _load(INFRA / "docker" / "compose.yaml")
    services = document["services"]
    for service in services.values():
        for name, how in service.get("depends_on", {}).items():
            assert name in services
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[name]
            if how["condition"] == "service_completed_successfully":
                assert services[name]["restart"] == "on-failure"  # one that starts anew never ends
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in document["volumes"]
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")


@pytest.mark.parametrize("document", _kubernetes())
def test_kubernetes_files_fit_the_schemas_of_kubernetes(document: Any) -> None:
    kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_kustomize_names_every_file() -> None:
    (kustomization,) = _load(INFRA / "k8s" / "kustomization.yaml")
    there = {path.name for path in (INFRA / "k8s").glob("*.yaml")} - {"kustomization.yaml"}
    assert set(kustomization["resources"]) == there


@pytest.mark.parametrize("spec", _ray_specs())
def test_pods_of_ray_fit_the_schema_of_pods(spec: Any) -> None:
    for group in _groups(spec):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, **group["template"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


@pytest.mark.parametrize("spec", _ray_specs())
def test_ray_understands_how_it_is_started_and_is_the_version_that_we_pin(spec: Any) -> None:
    assert spec["rayVersion"] == PINS["ray"]
    known = {option for each in ray_start.params for option in each.opts}
    for group in _groups(spec):
        assert {f"--{name}" for name in group["rayStartParams"]} <= known


def test_the_job_runs_a_command_of_ours_in_an_environment_that_ray_accepts() -> None:
    (job,) = _load(JOB)
    program = shlex.split(job["spec"]["entrypoint"].rpartition("&&")[2])
    assert program == ["lesionflow", "retrain"]
    RuntimeEnv(**yaml.safe_load(job["spec"]["runtimeEnvYAML"]))


def test_every_image_has_a_version() -> None:
    images = [
        value
        for path in INFRA.rglob("*.yaml")
        for document in _load(path)
        for key, value in _walk(document)
        if key == "image" and isinstance(value, str) and "$LESIONFLOW_IMAGE" not in value
    ]
    dockerfile = (INFRA / "docker" / "Dockerfile").read_text(encoding="utf-8")
    images += re.findall(r"^FROM (\S+:\S+)", dockerfile, re.MULTILINE)
    assert len(images) > 8
    for image in images:
        tag = re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", image).rpartition(":")[2]
        assert re.search(r"\d+\.\d+|\d{4}-\d\d-\d\d", tag), image


def test_versions_that_are_written_out_are_those_that_we_pin() -> None:
    (deploy,) = _load(INFRA / "prefect" / "prefect.yaml")
    assert deploy["prefect-version"] == PINS["prefect"]


def test_no_secret_lies_in_a_file() -> None:
    secret = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY|WEBHOOK|CONNECTION_URL")
    taken_from_outside = re.compile(r"\$\{\w+:(\?[^}]+|-)\}")
    for path in INFRA.rglob("*.yaml"):
        for document in _load(path):
            for key, value in _walk(document):
                if isinstance(value, str) and secret.search(str(key)):
                    assert taken_from_outside.search(value), f"{path.name}: {key}"
                if key == "env" and isinstance(value, list):
                    for each in value:
                        assert not secret.search(each["name"]) or "valueFrom" in each, path.name
            assert not isinstance(document, dict) or document.get("kind") != "Secret"


def test_the_image_gets_what_it_copies_and_runs_as_nobody_special() -> None:
    lines = (INFRA / "docker" / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [
        name
        for line in lines
        if line.startswith("COPY")
        for name in line.split()[1:-1]
        if not name.startswith("--")
    ]
    sent = {
        line.removeprefix("!")
        for line in (REPO / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    assert copied
    assert set(copied) == sent
    assert all((REPO / name).exists() for name in copied)
    assert "USER 1000" in lines
    assert lines.index("USER 1000") < lines.index('ENTRYPOINT ["lesionflow-entrypoint"]')
