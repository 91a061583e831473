"""The one actor that knows the nodes and call actors of a cluster, and places each call.

It holds nothing that the others could not tell it again: when its process ends, Ray starts it anew,
and with the first question that reaches it, it asks the call actors who they are. Calls that go on
do not need it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final
from weakref import WeakValueDictionary

from lipstream.engine.errors import ServerBusy
from lipstream.streaming import trace
from lipstream.streaming.background_tasks import BackgroundTasks
from lipstream.streaming.cluster import ray_calls
from lipstream.streaming.cluster.connection import in_one_line
from lipstream.streaming.cluster.placement import CallProcess, Node, Placement
from lipstream.streaming.cluster.ray_calls import answer_of
from lipstream.streaming.cluster.service import REACH_S, NodeStatus, Placed, Report, Service
from lipstream.streaming.server.metrics import Sample, Scrape

logger = logging.getLogger(__name__)

_LOOK_S: Final = 0.5  # between two looks at the nodes and the call actors
_PLACE_S: Final = 8.0  # that a call waits for a process that is being started
_TRIES_S: Final = 0.1
_AGAIN_S: Final = 5.0  # until what did not start is started again


def _now_s() -> float:
    """Monotonic."""
    return asyncio.get_running_loop().time()


class Controller:
    """Every method runs on the actor's event loop."""

    def __init__(self, service: Service, target: str) -> None:
        """`target`: loaded ahead, until another one is called."""
        trace.log_to_stderr(logging.getLevelName(service.log_level))
        self._service, self._last_target = service, target
        self._placement = Placement(service.share, service.spares, service.options.sessions, _now_s)
        self._handles: dict[str, Any] = {}  # of call actors
        self._ingresses: dict[str, Any] = {}  # by node
        self._urls: dict[str, str] = {}  # of the ingresses that take calls, by node
        # Of conversations that are being placed.
        self._names: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._asked: set[str] = set()  # call actors and nodes that have not answered yet
        self._tasks, self._ends = BackgroundTasks(), BackgroundTasks()
        self._care: asyncio.Task[None] | None = None
        self._informed = asyncio.Event()  # of what ran before this process
        self._failed = ""  # why the last call actor did not start
        self._deaf: dict[str, str] = {}  # nodes whose ingress takes no calls, and why
        self._stopped = False

    async def begin(self) -> None:
        """Look after the cluster from now on. Any question begins it: Ray only starts processes."""
        if self._care is None and not self._stopped:
            self._care = self._tasks.start(self._take_care(), "care of the cluster")

    async def _ready(self) -> None:
        await self.begin()
        await self._informed.wait()

    # ---------------------------------------------------------------- the next call

    async def place(self, target: str, session: str | None, trace_id: str) -> Placed | str:
        """A process that keeps its place for a call, or why there is none.

        `session`: the name of the conversation, of which there is one; None for a private one.
        """
        await self._ready()
        trace.continue_with(trace_id)
        try:
            if session is None:
                return await self._reserve_one(target, None)
            lock = self._names.setdefault(session, asyncio.Lock())
            async with lock:  # two who begin it at once find each other
                owner = self._placement.owner_of(session)
                if owner is not None and await self._reserve(owner, session):
                    return self._placed(owner)
                return await self._reserve_one(target, session)
        except ServerBusy as error:
            return str(error)

    async def _reserve_one(self, target: str, session: str | None) -> Placed:
        until_s = _now_s() + _PLACE_S
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
            if self._stopped or _now_s() > until_s or not starting:
                processes = self._placement.processes.values()
                calls = sum(p.state == "taken" and not self._placement.lost(p) for p in processes)
                why = f" ({self._failed})" if self._failed else ""
                raise ServerBusy(
                    f"{calls} conversations are going on, and no node has a CPU share for "
                    f"another{why}; try again later"
                )
            await asyncio.sleep(_TRIES_S)

    async def _reserve(self, process: CallProcess, session: str | None) -> bool:
        handle = self._handles.get(process.id)
        if handle is None:  # it was let go while others were asked
            return False
        before, process.state = process.state, "taken"  # nobody else tries it meanwhile
        process.reserved_s = _now_s()
        kept = await answer_of(handle.reserve.remote(session), REACH_S)
        if kept:
            process.state, process.session = "taken", session
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
        await self._ready()
        process = self._placement.processes.get(actor)
        lost = process is None or self._placement.lost(process)
        if lost:
            logger.info("call actor %s is %s", actor, "lost" if process else "not known")
        return lost

    async def released(self, actor: str) -> None:
        """A call actor may be free again; it is asked, for it may have been reserved since."""
        process = self._placement.processes.get(actor)
        if process is not None:
            await self._ask(process)

    # ---------------------------------------------------------------- care

    async def _take_care(self) -> None:
        trace.continue_with("")  # whichever call began it
        while True:
            try:
                if not self._informed.is_set():
                    await self._adopt()
                await self._look()
                self._informed.set()
            except Exception:  # one bad look must not be the last
                logger.exception("the cluster could not be looked after")
            await asyncio.sleep(_LOOK_S)

    async def _adopt(self) -> None:
        for name, handle in (await asyncio.to_thread(ray_calls.call_actors)).items():
            if name not in self._handles:
                self._handles[name] = handle
                self._placement.adopt(name)
        await asyncio.gather(*map(self._ask, tuple(self._placement.processes.values())))

    async def _look(self) -> None:
        """Nothing here waits for any one process: those that answer must not wait for others."""
        for lost in self._placement.see_nodes(await asyncio.to_thread(ray_calls.nodes)):
            self._forget(lost)
        for gone in self._ingresses.keys() - self._placement.nodes.keys():
            del self._ingresses[gone]
            self._urls.pop(gone, None)
            self._deaf.pop(gone, None)
        for node in self._placement.nodes.values():
            if node.id not in self._ingresses and not node.draining:
                self._ingresses[node.id] = ray_calls.start_ingress(self._service, node)
            if node.id in self._ingresses:
                self._ask_once(node.id, self._ask_ingress(node))
        for process in self._placement.processes.values():
            if process.state != "starting":
                self._ask_once(process.id, self._ask(process))
        for name in (*self._placement.to_stop(), *self._placement.gone()):
            handle = self._handles.get(name)
            self._forget(name)
            if handle is not None:
                self._ends.start(self._end(handle), "end of a call actor")
        self._start_actors()
        for node in self._placement.nodes.values():
            if node.draining and not self._placement.of_node(node.id):
                ingress = self._ingresses.pop(node.id, None)
                self._urls.pop(node.id, None)
                if ingress is not None:
                    self._ends.start(self._end(ingress), "end of an ingress")

    def _ask_once(self, name: str, question: Coroutine[Any, Any, None]) -> None:
        """Unless it has not answered the last one yet."""
        if name in self._asked:
            question.close()
            return
        self._asked.add(name)
        task = self._tasks.start(question, f"question to {name}")
        task.add_done_callback(lambda _: self._asked.discard(name))

    async def _ask(self, process: CallProcess) -> None:
        asked_s, handle = _now_s(), self._handles.get(process.id)
        if handle is None:
            return
        report: Report | None = await answer_of(handle.report.remote(), REACH_S)
        if report is not None:
            process.take_in(report, asked_s)
            if report.cost is not None and report.expected_cores:
                self._last_target = list(report.expected_cores)[-1]

    async def _ask_ingress(self, node: Node) -> None:
        """Have it take calls, also where it could not before or was started anew by Ray."""
        ingress = self._ingresses.get(node.id)
        if ingress is None:
            return
        try:
            url, draining = await ingress.begin.remote()
            if node.draining and not draining:
                await ingress.drain.remote()
            node.draining = node.draining or draining  # what a controller before this one was told
        except Exception as error:
            if self._ingresses.get(node.id) is not ingress:
                return  # it was ended, as its node's last call had
            self._deaf[node.id] = in_one_line(error)
            self._urls.pop(node.id, None)
            logger.error("no calls are taken at %s: %s", node.address, self._deaf[node.id])
            await asyncio.sleep(_AGAIN_S)
            return
        if self._ingresses.get(node.id) is ingress:
            self._deaf.pop(node.id, None)
            self._urls[node.id] = url

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
        began_s = _now_s()
        try:
            # Without a limit of time: Ray starts it when its node has the share free.
            report = await handle.begin.remote(self._last_target)
        except Exception as error:
            self._failed = in_one_line(error)
            logger.warning("a call actor did not start: %s", self._failed)
            ray_calls.kill(handle)
            await asyncio.sleep(_AGAIN_S)  # in its place no other one starts meanwhile
            self._forget(process.id)
            return
        self._failed = ""
        logger.info("call actor %s ready in %.1f s", process.id, _now_s() - began_s)
        process.take_in(report, _now_s())

    def _forget(self, name: str) -> None:
        self._placement.processes.pop(name, None)
        self._handles.pop(name, None)

    async def _end(self, handle: Any) -> None:
        """Of a call actor, or of an ingress."""
        await answer_of(handle.stop.remote(), REACH_S)
        ray_calls.kill(handle)

    # ---------------------------------------------------------------- for operators

    async def failure(self) -> str:
        """Why the last call actor, or the ingress of a node, did not start; "" when they did."""
        return self._failed or next(iter(self._deaf.values()), "")

    async def drain(self, node: str) -> str | None:
        """Place no more calls on a node, by address or by Ray's id; its id, None for no such."""
        await self._ready()
        found = [n for n in self._placement.nodes.values() if node in (n.id, n.address)]
        for one in found:
            one.draining = True
            if one.id in self._ingresses:
                await answer_of(self._ingresses[one.id].drain.remote(), REACH_S)
        return found[0].id if found else None

    async def status(self) -> list[NodeStatus]:
        """Of each node."""
        await self.begin()
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
        await self.begin()
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
        if self._care is not None:
            self._care.cancel()
        for handle in (*self._handles.values(), *self._ingresses.values()):
            self._ends.start(self._end(handle), "end of the service")
        await self._ends.finish()
        await self._tasks.cancel()
