"""`lipstream serve --ray`: starts the service on a cluster, and ends it again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from lipstream.engine.errors import ConsentMissing, LipstreamError, UsageError
from lipstream.streaming.cluster import ray_calls
from lipstream.streaming.cluster.connection import connect
from lipstream.streaming.cluster.ray_calls import answer_of
from lipstream.streaming.cluster.service import NodeStatus, Service
from lipstream.streaming.remote.targets import local_targets
from lipstream.streaming.server.targets import TargetRegistry
from lipstream.streaming.shutdown import on_sigterm

logger = logging.getLogger(__name__)

_STATUS_S: Final = 5.0  # for an answer of the controller
_FIRST_S: Final = 120.0  # for the first node to take calls
_STOP_S: Final = 30.0
_LOOK_S: Final = 0.5


def serve(address: str, service: Service, tell: Callable[[str], None], verbose: bool) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        address: of the Ray cluster, such as auto or HOST:6379; this machine is a node of it.
        service: what to serve; the same on each node.
        tell: called with each line for people.
        verbose: show what Ray says.

    Raises:
        LipstreamError: no Ray, no cluster, no targets, or no node that can take calls.
    """
    names = _served(TargetRegistry(local_targets(service.targets)), tell)
    ray = connect(address, verbose)
    try:
        asyncio.run(_serve(service, names, tell))
    finally:
        ray.shutdown()


def drain(address: str, node: str, tell: Callable[[str], None], verbose: bool) -> None:
    """Place no more calls on a node, and return when its last one has ended.

    Raises:
        LipstreamError: no Ray, no cluster, nothing served there, or no such node.
    """
    ray = connect(address, verbose)
    try:
        asyncio.run(_drain(node, tell))
    finally:
        ray.shutdown()


async def _serve(service: Service, names: list[str], tell: Callable[[str], None]) -> None:
    if await asyncio.to_thread(ray_calls.get_controller) is not None:
        raise UsageError(
            "this cluster serves already: end that with Ctrl-C where it runs, or with "
            f"`ray stop` on the nodes (the actor {ray_calls.CONTROLLER})"
        )
    controller = ray_calls.start_controller(service, names[0])
    stop = asyncio.Event()
    try:
        with on_sigterm(stop.set):
            await controller.begin.remote()
            await _watch(controller, names, tell, stop)
    finally:
        await asyncio.shield(_stop(controller))


async def _watch(
    controller: Any, names: list[str], tell: Callable[[str], None], stop: asyncio.Event
) -> None:
    """Say where calls are taken, and which nodes come and go."""
    seen: dict[str, NodeStatus] = {}
    began_s, begun = asyncio.get_running_loop().time(), False
    while not stop.is_set():
        for one in await answer_of(controller.status.remote(), _STATUS_S) or ():
            before = seen.get(one.node)
            if one.url is not None and (before is None or before.url is None):
                tell(f"serving {', '.join(names)} on {one.url}/ (Ctrl-C ends)")
            if before is not None and one.lost and not before.lost:
                tell(f"node {one.address} does not answer")
            seen[one.node] = one
        begun = begun or any(one.url for one in seen.values())
        if not begun:
            why = await answer_of(controller.failure.remote(), _STATUS_S)
            if why:
                raise LipstreamError(f"no node takes calls: {why}")
            if asyncio.get_running_loop().time() - began_s > _FIRST_S:
                raise LipstreamError(f"no node has taken calls within {_FIRST_S:.0f} s")
        try:
            await asyncio.wait_for(stop.wait(), _LOOK_S)
        except TimeoutError:
            continue


async def _stop(controller: Any) -> None:
    await answer_of(controller.stop.remote(), _STOP_S)
    ray_calls.kill(controller)


async def _drain(node: str, tell: Callable[[str], None]) -> None:
    controller = await asyncio.to_thread(ray_calls.get_controller)
    if controller is None:
        raise UsageError("nothing is served on this cluster: `lipstream serve --ray` begins it")
    found = await controller.drain.remote(node)
    if found is None:
        known = ", ".join(one.address for one in await controller.status.remote())
        raise UsageError(f"no node {node!r}: expected one of {known}, or Ray's id of it")
    told: int | None = None
    while True:
        listed = await answer_of(controller.status.remote(), _STATUS_S)
        if listed is None:  # it is being started anew, and will know that the node drains
            await asyncio.sleep(_LOOK_S)
            continue
        status = {one.node: one for one in listed}.get(found)
        if status is None or status.calls + status.spares == 0 and status.url is None:
            break
        if status.calls and status.calls != told:
            told = status.calls
            tell(f"node {status.address} takes no more calls; {told} go on")
        await asyncio.sleep(_LOOK_S)
    tell(f"node {node} has no call any more and can be stopped")


def _served(registry: TargetRegistry, tell: Callable[[str], None]) -> list[str]:
    """The targets that have consent; a line for each of the others."""
    names = registry.names()
    if not names:
        raise UsageError(
            f"{registry.folder}: no NAME.target in it; "
            "make one with `lipstream calibrate VIDEO -o NAME.target`"
        )
    served = []
    for name in names:
        try:
            registry.require_consent(name)
            served.append(name)
        except ConsentMissing as error:
            if len(names) == 1:
                raise
            tell(f"not served: {error}")
    if not served:
        raise ConsentMissing(f"{registry.folder}: no target there has the consent of its person")
    return served
