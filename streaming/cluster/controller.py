"""The one actor that knows the nodes and call actors of a cluster, and places each call.

It holds nothing that the others could not tell it again: when its process ends, Ray starts it anew
and it asks the call actors who they are. Calls that go on do not need it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from typing import Any, Final

from lipstream.engine.errors import LipstreamError, ServerBusy
from lipstream.streaming import trace
from lipstream.streaming.background_tasks import BackgroundTasks
from lipstream.streaming.cluster import ray_calls
from lipstream.streaming.cluster.placement import CallProcess, Node, Placement
from lipstream.streaming.cluster.ray_calls import answer_of
from lipstream.streaming.cluster.service import (
    REACH_S,
    START_S,
    NodeStatus,
    Placed,
    Report,
    Service,
)
from lipstream.streaming.server.metrics import Sample, Scrape

logger = logging.getLogger(__name__)

_LOOK_S: Final = 0.5  # between two looks at the nodes and the call actors
_PLACE_S: Final = 8.0  # that a call waits for a process that is being started
_TRIES_S: Final = 0.1


class Controller:
    """Every method runs on the actor's event loop."""

    def __init__(self, service: Service) -> None:
        trace.log_to_stderr(logging.getLevelName(service.log_level))
        self._service = service
        self._placement = Placement(
            service.share, service.spares, service.options.sessions, time.monotonic
        )
        self._handles: dict[str, Any] = {}  # of call actors
        self._ingresses: dict[str, Any] = {}  # by node
        self._urls: dict[str, str] = {}  # of the ingresses that take calls, by node
        self._names: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._asked: set[str] = set()  # call actors that have not answered yet
        self._last_target: str | None = None
        self._tasks = BackgroundTasks()
        self._looks: asyncio.Task[None] | None = None
        self._failed = ""  # why the last call actor or ingress did not start
        self._stopped = False

    async def service(self) -> Service:
        """What it serves."""
        return self._service

    async def begin(self, target: str | None) -> None:
        """Take over what runs already, and look after it. `target`: loaded ahead."""
        if self._looks is not None:
            return
        self._last_target = target
        self._looks = self._tasks.start(self._look_after(), "care of the cluster")

    # ---------------------------------------------------------------- the next call

    async def place(self, target: str, session: str | None, trace_id: str) -> Placed | str:
        """A process that keeps its place for a call, or why there is none.

        `session`: the name of the conversation, of which there is one; None for a private one.
        """
        trace.continue_with(trace_id)
        try:
            if session is None:
                return await self._reserve_one(target, None)
            async with self._names[session]:  # two who begin it at once find each other
                owner = self._placement.owner_of(session)
                if owner is not None and await self._reserve(owner, session):
                    return self._placed(owner)
                return await self._reserve_one(target, session)
        except ServerBusy as error:
            return str(error)

    async def _reserve_one(self, target: str, session: str | None) -> Placed:
        until_s = time.monotonic() + _PLACE_S
        while True:
            unanswered: set[str] = set()  # nodes
            for process in self._placement.candidates(target):
                if process.node in unanswered:
                    continue
                if await self._reserve(process, session):
                    node = self._placement.nodes.get(process.node)
                    if node is not None:
                        node.opened += 1
                    self._start_actors()
                    return self._placed(process)
                if not process.answered_s:
                    unanswered.add(process.node)
            starting = any(p.state == "starting" for p in self._placement.processes.values())
            if self._stopped or time.monotonic() > until_s or not starting:
                processes = self._placement.processes.values()
                calls = sum(p.state == "taken" and not self._placement.lost(p) for p in processes)
                why = f" ({self._failed})" if self._failed else ""
                raise ServerBusy(
                    f"{calls} conversations are going on, and no node has a CPU share for "
                    f"another{why}; try again later"
                )
            await asyncio.sleep(_TRIES_S)

    async def _reserve(self, process: CallProcess, session: str | None) -> bool:
        before, process.state = process.state, "taken"  # nobody else tries it meanwhile
        handle = self._handles[process.id]
        kept = await answer_of(handle.reserve.remote(session), REACH_S)
        if kept:
            process.session = session
            return True
        process.state = before
        if kept is None:  # no answer: its node may be gone
            process.answered_s = 0.0
        return False

    def _placed(self, process: CallProcess) -> Placed:
        node = self._placement.nodes.get(process.node)
        address = node.address if node is not None else "?"
        logger.info("call actor %s on %s takes it", process.id, address)
        return Placed(process.id, self._handles[process.id], address)

    async def find(self, actor: str) -> Any | None:
        """The handle of a call actor."""
        return None if await self.is_lost(actor) else self._handles.get(actor)

    async def is_lost(self, actor: str) -> bool:
        """Whether there is no such call actor, or nothing on its node answers."""
        process = self._placement.processes.get(actor)
        lost = process is None or self._placement.lost(process)
        if lost:
            logger.info("call actor %s is %s", actor, "lost" if process else "not known")
        return lost

    async def released(self, report: Report) -> None:
        """A call actor is free again."""
        process = self._placement.processes.get(report.actor)
        if process is not None:
            process.take_in(report, time.monotonic())

    # ---------------------------------------------------------------- care

    async def _look_after(self) -> None:
        for name, handle in (await asyncio.to_thread(ray_calls.call_actors)).items():
            report = await answer_of(handle.report.remote(), START_S)
            if report is not None:
                self._handles[name] = handle
                process = CallProcess(name, report.node)
                process.take_in(report, time.monotonic())
                self._placement.processes[name] = process
        while True:
            try:
                await self._look()
            except Exception:  # one bad look must not be the last
                logger.exception("the cluster could not be looked after")
            await asyncio.sleep(_LOOK_S)

    async def _look(self) -> None:
        for lost in self._placement.see_nodes(await asyncio.to_thread(ray_calls.nodes)):
            self._forget(lost)
        for gone in self._ingresses.keys() - self._placement.nodes.keys():
            del self._ingresses[gone]
            self._urls.pop(gone, None)
        for node in self._placement.nodes.values():
            if node.id not in self._ingresses and not node.draining:
                self._ingresses[node.id] = ray_calls.start_ingress(self._service, node)
                self._tasks.start(self._begin_ingress(node), f"ingress of {node.address}")
        for process in self._placement.processes.values():
            if process.state != "starting" and process.id not in self._asked:
                # Each by itself: those that answer must not wait for one that does not.
                self._asked.add(process.id)
                self._tasks.start(self._ask(process), "question to a call actor")
        for name in (*self._placement.to_stop(), *self._placement.gone()):
            await self._stop(name)
        self._start_actors()
        for node in self._placement.nodes.values():
            ingress = self._ingresses.get(node.id)
            if node.draining and ingress is not None and not self._placement.of_node(node.id):
                self._urls.pop(node.id, None)
                del self._ingresses[node.id]
                await answer_of(ingress.stop.remote(), REACH_S)
                ray_calls.kill(ingress)

    async def _ask(self, process: CallProcess) -> None:
        asked_s = time.monotonic()
        report = await answer_of(self._handles[process.id].report.remote(), REACH_S)
        self._asked.discard(process.id)
        if report is not None:
            process.take_in(report, asked_s)
            if report.cost is not None and report.expected_cores:
                self._last_target = list(report.expected_cores)[-1]

    def _start_actors(self) -> None:
        if self._stopped:
            return
        for where in self._placement.nodes_to_start_on():
            process = self._placement.start(where)
            handle = ray_calls.start_call_actor(self._service, process.id, where)
            self._handles[process.id] = handle
            self._tasks.start(self._begin_actor(process, handle), "start of a call actor")

    async def _begin_actor(self, process: CallProcess, handle: Any) -> None:
        trace.continue_with("")  # whichever call asked for it, it is nobody's yet
        began_s = time.monotonic()
        try:
            # Without a limit of time: Ray starts it when its node has the share free.
            report = await handle.begin.remote(self._last_target)
        except Exception as error:
            self._failed = ray_calls.in_one_line(error)
            logger.warning("a call actor did not start: %s", self._failed)
            self._forget(process.id)
            ray_calls.kill(handle)
            await asyncio.sleep(5)  # not again at once
            return
        self._failed = ""
        logger.info("call actor %s ready in %.1f s", process.id, time.monotonic() - began_s)
        process.take_in(report, time.monotonic())

    async def _begin_ingress(self, node: Node) -> None:
        ingress = self._ingresses[node.id]
        try:
            self._urls[node.id] = await ingress.begin.remote()
        except Exception as error:
            self._failed = ray_calls.in_one_line(error)
            logger.error("no calls are taken at %s: %s", node.address, self._failed)

    def _forget(self, name: str) -> None:
        self._placement.processes.pop(name, None)
        self._handles.pop(name, None)

    async def _stop(self, name: str) -> None:
        handle = self._handles.get(name)
        self._forget(name)
        if handle is not None:
            await answer_of(handle.stop.remote(), REACH_S)
            ray_calls.kill(handle)

    # ---------------------------------------------------------------- for operators

    async def failure(self) -> str:
        """Why the last process did not start; "" when it did."""
        return self._failed

    async def drain(self, node: str) -> str | None:
        """Place no more calls on a node, by address or by Ray's id; its id, None for no such."""
        found = [n for n in self._placement.nodes.values() if node in (n.id, n.address)]
        for one in found:
            one.draining = True
            if one.id in self._ingresses:
                await answer_of(self._ingresses[one.id].drain.remote(), REACH_S)
        return found[0].id if found else None

    async def status(self) -> list[NodeStatus]:
        """Of each node."""
        return [self._status(node) for node in self._placement.nodes.values()]

    def _status(self, node: Node) -> NodeStatus:
        processes = self._placement.of_node(node.id)
        return NodeStatus(
            node.id,
            node.address,
            self._urls.get(node.id),
            sum(p.state == "taken" for p in processes),
            sum(p.state == "free" for p in processes),
            node.draining,
            bool(processes) and all(map(self._placement.lost, processes)),
        )

    async def urls(self) -> list[str]:
        """Where calls are taken, nodes that drain or answer nothing left out."""
        usable = (one for one in map(self._status, self._placement.nodes.values()))
        return [one.url for one in usable if one.url and not one.draining and not one.lost]

    async def scrapes(self) -> list[Scrape]:
        """For `/metrics`, a node each."""
        samples = await self._samples()
        return [
            Scrape(
                node.opened,
                tuple(sample for one in samples.get(node.id, ()) for sample in one),
                node.address,
                len(self._placement.of_node(node.id, "free", "taken")),
            )
            for node in self._placement.nodes.values()
        ]

    async def _samples(self) -> dict[str, list[tuple[Sample, ...]]]:
        taken = [p for p in self._placement.processes.values() if p.state == "taken"]
        asked = (answer_of(self._handles[p.id].samples.remote(), REACH_S) for p in taken)
        found: dict[str, list[tuple[Sample, ...]]] = {}
        for process, samples in zip(taken, await asyncio.gather(*asked), strict=True):
            if samples is not None:
                found.setdefault(process.node, []).append(samples)
        return found

    async def sessions(self) -> list[dict[str, Any]]:
        """For `/api/sessions`."""
        taken = [p for p in self._placement.processes.values() if p.state == "taken"]
        asked = (answer_of(self._handles[p.id].sessions.remote(), REACH_S) for p in taken)
        return [one for some in await asyncio.gather(*asked) for one in some or ()]

    async def stop(self) -> None:
        """End every call in order, and all processes but this one."""
        self._stopped = True
        if self._looks is not None:
            self._looks.cancel()
        await asyncio.gather(*map(self._stop, tuple(self._handles)))
        for ingress in self._ingresses.values():
            with contextlib.suppress(LipstreamError):
                await answer_of(ingress.stop.remote(), REACH_S)
            ray_calls.kill(ingress)
        await self._tasks.cancel()
