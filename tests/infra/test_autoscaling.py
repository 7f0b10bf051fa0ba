"""Ray's own autoscaler, asked what it would start: spot first, on-demand when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,
)
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

INFRA = Path(__file__).resolve().parents[2] / "infra"
FILES = ("cluster-aws.yaml", "kuberay-cluster.yaml", "kuberay-job.yaml")


def _config(name: str) -> AutoscalingConfig:
    document = yaml.safe_load((INFRA / "ray" / name).read_text(encoding="utf-8"))
    if document.get("kind") == "RayJob":
        # What the operator makes of a RayJob.
        document = {
            "metadata": {"name": "retrain", "namespace": "lesionflow"},
            "spec": document["spec"]["rayClusterSpec"],
        }
    if "spec" in document:
        document = _derive_autoscaling_config_from_ray_cr(document)
    document = prepare_config(document)
    validate_config(document)
    return AutoscalingConfig(document, skip_content_hash=True)


def _would_start(
    name: str, bundle: dict[str, float], count: int, scarce: dict[str, float] | None = None
) -> dict[str, int]:
    config = _config(name)
    requests = ResourceRequestUtil.group_by_count(
        [ResourceRequestUtil.make(bundle) for _ in range(count)]
    )
    reply = ResourceDemandScheduler().schedule(
        SchedulingRequest(
            node_type_configs=config.get_node_type_configs(),
            resource_requests=requests,
            max_num_nodes=config.get_max_num_nodes(),
            disable_launch_config_check=True,
            cloud_resource_availabilities=scarce or {},
            recoverable_resource_availabilities=scarce or {},
        )
    )
    return {launch.instance_type: launch.count for launch in reply.to_launch}


def _workers(launched: dict[str, int]) -> dict[str, int]:
    return {name.replace("-", "_"): count for name, count in launched.items() if "head" not in name}


@pytest.mark.parametrize("name", FILES)
def test_gpus_come_from_the_spot_market(name: str) -> None:
    launched = _workers(_would_start(name, {"GPU": 1, "CPU": 4}, 3))
    assert launched == {"gpu_spot": 3}


@pytest.mark.parametrize("name", FILES)
def test_light_backbones_share_a_gpu(name: str) -> None:
    assert _workers(_would_start(name, {"GPU": 0.25, "CPU": 2}, 4)) == {"gpu_spot": 1}


@pytest.mark.parametrize("name", FILES)
def test_gpus_are_on_demand_while_the_spot_market_has_none(name: str) -> None:
    spot = "gpu_spot" if "aws" in name else "gpu-spot"
    launched = _workers(_would_start(name, {"GPU": 1, "CPU": 4}, 3, scarce={spot: 0.0}))
    assert launched == {"gpu_on_demand": 3}


@pytest.mark.parametrize("name", FILES)
def test_what_is_wanted_beyond_the_most_of_the_spot_market_is_on_demand(name: str) -> None:
    launched = _workers(_would_start(name, {"GPU": 1, "CPU": 4}, 20))
    assert launched == {"gpu_spot": 16, "gpu_on_demand": 4}


@pytest.mark.parametrize("name", FILES)
def test_no_more_than_the_most_of_both_markets_is_started(name: str) -> None:
    launched = _workers(_would_start(name, {"GPU": 1, "CPU": 4}, 40))
    assert launched == {"gpu_spot": 16, "gpu_on_demand": 16}
