"""Every use of Ray by live calls. Ray is imported here, and only when something is called."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from lipstream.streaming.cluster.connection import NAMESPACE, in_one_line
from lipstream.streaming.cluster.placement import Node
from lipstream.streaming.cluster.service import Service

logger = logging.getLogger(__name__)

CONTROLLER: Final = "lipstream-controller"
_CALL: Final = "lipstream-call-"
_HEAD: Final = "node:__internal_head__"
_AT_ONCE: Final = 1000  # messages that an actor works on


async def answer_of(reference: Any, within_s: float | None) -> Any | None:
    """What an actor answers; None when it does not, or not in time (None: whenever Ray knows)."""
    from ray.exceptions import RayError

    async def answer() -> Any:
        return await reference

    try:
        return await asyncio.wait_for(answer(), within_s)
    except (RayError, TimeoutError) as error:
        logger.info("no answer: %s", in_one_line(error))
        return None


def nodes() -> list[Node]:
    """Those that Ray believes to be alive. Blocks."""
    import ray

    return [
        Node(
            one["NodeID"],
            one["NodeManagerAddress"],
            one["Resources"].get("CPU", 0.0),
            one["Resources"].get("GPU", 0.0),
        )
        for one in ray.nodes()
        if one["Alive"]
    ]


def get_controller() -> Any | None:
    """The handle of the cluster's controller; None when nothing is served. Blocks."""
    import ray

    try:
        return ray.get_actor(CONTROLLER, NAMESPACE)
    except ValueError:
        return None


def start_controller(service: Service, target: str) -> Any:
    """On the head node, whose end is the end of the cluster anyway. `target`: loaded ahead."""
    import ray

    from lipstream.streaming.cluster.controller import Controller

    return (
        ray.remote(Controller)
        .options(
            name=CONTROLLER,
            namespace=NAMESPACE,
            lifetime="detached",
            num_cpus=0,
            resources={_HEAD: 0.001},
            max_restarts=-1,
            max_concurrency=_AT_ONCE,
        )
        .remote(service, target)
    )


def start_ingress(service: Service, node: Node) -> Any:
    """On a node, for as long as that lives."""
    import ray

    from lipstream.streaming.cluster.ingress import Ingress

    return (
        ray.remote(Ingress)
        .options(
            name=f"lipstream-ingress-{node.id}",
            namespace=NAMESPACE,
            get_if_exists=True,  # by a controller that is started anew
            lifetime="detached",
            num_cpus=0,
            max_restarts=-1,
            max_concurrency=_AT_ONCE,
            scheduling_strategy=_on(node.id),
        )
        .remote(service, node.address)
    )


def start_call_actor(service: Service, name: str, node: str) -> Any:
    """On a node; "": wherever Ray finds its share."""
    import ray

    from lipstream.streaming.cluster.call_actor import CallActor

    return (
        ray.remote(CallActor)
        .options(
            name=_CALL + name,
            namespace=NAMESPACE,
            lifetime="detached",  # calls outlive a controller that has to be started anew
            num_cpus=service.share.cpus,
            num_gpus=service.share.gpus,
            max_restarts=0,
            max_concurrency=_AT_ONCE,
            scheduling_strategy=_on(node) if node else "DEFAULT",
        )
        .remote(service, name)
    )


def _on(node: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def call_actors() -> dict[str, Any]:
    """The handles of all call actors by name. Blocks."""
    import ray
    from ray.util import list_named_actors

    found = {}
    for name in list_named_actors():
        if name.startswith(_CALL):
            try:
                found[name.removeprefix(_CALL)] = ray.get_actor(name, NAMESPACE)
            except ValueError:  # it has ended meanwhile
                continue
    return found


def this_node() -> tuple[str, str]:
    """The id and the address of the node that this process runs on."""
    import ray

    return ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address()


def kill(handle: Any) -> None:
    """End an actor's process."""
    import ray

    ray.kill(handle)
