"""What a Ray cluster has room for: the one connected to, or that of `RAY_ADDRESS` from outside."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from components.cluster import check_address, is_job_server, unusable
from components.errors import ResourceError
from components.job_server import JobServer

Resources = Mapping[str, float]


def require(resources: Resources, count: int, *, where: str) -> None:
    """Check that the connected cluster could ever run `count` workers with `resources` each.

    Ray itself would wait for ever for what it does not have.

    Raises
    ------
    ResourceError
        The nodes have less in total (a cluster that grows is judged by the size it may reach).
    """
    from ray._private.state import state

    nodes = _nodes(state)
    if num_that_fit(resources, nodes) >= count:
        return
    wanted = _wanted(resources)
    total = {name: sum(node.get(name, 0.0) for node in nodes) for name in wanted}
    have = ", ".join(f"{amount:g} {name}" for name, amount in total.items())
    each = ", ".join(f"{amount:g} {name}" for name, amount in wanted.items())
    raise ResourceError(
        f"{count} worker{'s' if count > 1 else ''} with {each} each do not fit: the Ray cluster "
        f"has {have} on {len(nodes)} node{'s' if len(nodes) > 1 else ''}",
        where=where,
        fix="ask for less there, or give more: cluster.num_cpus for the local cluster, more or "
        "larger nodes for the one of RAY_ADDRESS",
    )


def nodes_of(address: str) -> list[Resources]:
    """Return the resources of every node of the cluster at `address`, without joining it.

    Raises
    ------
    ResourceError
        The cluster does not answer, or refuses our token.
    """
    if is_job_server(address):
        return JobServer(address).nodes()
    check_address(address)
    from ray._private.services import canonicalize_bootstrap_address_or_die
    from ray._private.state import GlobalState
    from ray.exceptions import RayError

    options: Any = importlib.import_module("ray._raylet").GcsClientOptions
    state = GlobalState()
    try:
        gcs = canonicalize_bootstrap_address_or_die(address)
        state._initialize_global_state(
            options.create(gcs, None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False)
        )
        return _nodes(state)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        raise unusable(address, (str(error).strip() or type(error).__name__)) from error
    finally:
        state.disconnect()


def num_that_fit(resources: Resources, nodes: Sequence[Resources]) -> int:
    """Return how many workers with `resources` each find room on empty `nodes`."""
    wanted = _wanted(resources)
    return sum(
        min(int(node.get(name, 0) / amount + 1e-6) for name, amount in wanted.items())
        for node in nodes
    )


def _wanted(resources: Resources) -> dict[str, float]:
    return {name: amount for name, amount in resources.items() if amount > 0}


def _nodes(state: Any) -> list[Resources]:
    """Return what each node has; a cluster that grows is one node of the size it may reach."""
    grown = state.get_max_resources_from_cluster_config()
    if grown:
        return [grown]
    return [node["Resources"] for node in state.node_table() if node["Alive"]]
