"""Which node takes the next call, and how many processes wait on each. Knows nothing of Ray.

A node carries as many call actors as its CPUs (and GPUs) hold shares of. Of those, `spares` are
started ahead, so that a call does not wait for imports and models. A call goes to the node with
the most free shares that also has time by the measured cost of its calls.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

from lipstream.engine.errors import ServerBusy
from lipstream.streaming.cluster.service import Report, Share
from lipstream.streaming.server.admission import Cost, check_costs, usable

DOUBT_S: Final = 1.2  # without an answer from a node, others are tried first
SILENT_S: Final = 2.5  # without an answer, nothing is placed in a process
GONE_S: Final = 30.0  # without an answer, it is given up
SURPLUS_S: Final = 60.0  # a process beyond the spares waits so long for another call


@dataclass(slots=True)
class Node:
    """A machine of the cluster."""

    id: str
    address: str
    cpus: float
    gpus: float = 0.0
    draining: bool = False
    opened: int = 0  # conversations placed here


@dataclass(slots=True)
class CallProcess:
    """A call actor, as far as the controller knows."""

    id: str
    node: str
    state: Literal["starting", "free", "taken"] = "starting"
    session: str | None = None
    report: Report | None = None
    answered_s: float = 0.0
    free_since_s: float = 0.0
    reserved_s: float = 0.0  # when its place was last asked for

    def take_in(self, report: Report, asked_s: float) -> None:
        """It has answered what was asked then."""
        self.answered_s = max(asked_s, self.answered_s)
        if report.free and asked_s < self.reserved_s:
            return  # it did not know yet of the call that it is kept for
        if report.free and self.state != "free":
            self.free_since_s = asked_s
        self.report, self.node = report, report.node
        self.state = "free" if report.free else "taken"
        self.session = report.session

    @property
    def cost(self) -> Cost:
        """Of its call."""
        if self.report is None:
            return Cost(0.0)
        return self.report.cost or Cost(max(self.report.expected_cores.values(), default=0.0))


class Placement:
    """The nodes and call actors of a cluster. `clock`: monotonic, s."""

    def __init__(
        self, share: Share, spares: int, sessions: int, clock: Callable[[], float]
    ) -> None:
        """`sessions`: conversations of one node at most."""
        self._share, self._spares, self._sessions, self._clock = share, spares, sessions, clock
        self.nodes: dict[str, Node] = {}
        self.processes: dict[str, CallProcess] = {}

    # ---------------------------------------------------------------- what there is

    def see_nodes(self, found: Iterable[Node]) -> list[str]:
        """The nodes that Ray lists now; returns the call actors that are gone with theirs."""
        listed = {node.id: node for node in found}
        for gone in self.nodes.keys() - listed.keys():
            del self.nodes[gone]
        for new, node in listed.items():
            self.nodes.setdefault(new, node)
        lost = [p.id for p in self.processes.values() if p.node and p.node not in self.nodes]
        for process in lost:
            del self.processes[process]
        return lost

    def start(self, node: str) -> CallProcess:
        """A new call actor on a node; "" for any, new ones included."""
        process = CallProcess(secrets.token_hex(6), node, answered_s=self._clock())
        self.processes[process.id] = process
        return process

    def adopt(self, name: str) -> CallProcess:
        """A call actor that runs already; it counts as taken until it says where and what it is."""
        process = CallProcess(name, "", "taken", answered_s=self._clock())
        self.processes[name] = process
        return process

    def silent(self, process: CallProcess) -> bool:
        """Whether it answers nothing; Ray may take a quarter of a minute to call it dead."""
        return process.state != "starting" and self._clock() - process.answered_s > SILENT_S

    def lost(self, process: CallProcess) -> bool:
        """Whether nothing on its node answers. One that is only slow has not lost its call."""
        answered_s = [p.answered_s for p in self.of_node(process.node)]
        return process.state != "starting" and self._clock() - max(answered_s) > SILENT_S

    def gone(self) -> list[str]:
        """Call actors that have answered nothing for so long that nobody waits for them."""
        return [
            p.id
            for p in self.processes.values()
            if p.state != "starting" and self._clock() - p.answered_s > GONE_S
        ]

    def of_node(self, node: str, *states: str) -> list[CallProcess]:
        """The call actors of a node, in these states or in any."""
        return [
            p
            for p in self.processes.values()
            if p.node == node and (not states or p.state in states)
        ]

    # ---------------------------------------------------------------- the next call

    def candidates(self, target: str) -> list[CallProcess]:
        """Free call actors on nodes that have time for one more call, the best first.

        Raises:
            ServerBusy: there is a free one, and its node's cores or conversations are used up.
        """
        found: list[tuple[bool, float, bool, CallProcess]] = []
        refusal: ServerBusy | None = None
        for node in self.nodes.values():
            taken = self.of_node(node.id, "taken")
            free = [p for p in self.of_node(node.id, "free") if not self.silent(p)]
            if node.draining or not free:
                continue
            try:
                self._check(node, taken, free, target)
            except ServerBusy as error:
                refusal = error
                continue
            load = len(taken) / self._capacity(node)
            doubt = self._in_doubt(node)
            found += [(doubt, load, not self._has_loaded(p, target), p) for p in free]
        if refusal is not None and not found:
            raise refusal
        return [process for *_, process in sorted(found, key=lambda one: one[:3])]

    def _in_doubt(self, node: Node) -> bool:
        """Whether nothing on a node has answered for a while: it is asked last."""
        answered_s = [p.answered_s for p in self.of_node(node.id, "free", "taken")]
        return self._clock() - max(answered_s, default=0.0) > DOUBT_S

    def _check(
        self, node: Node, taken: list[CallProcess], free: list[CallProcess], target: str
    ) -> None:
        if len(taken) >= self._sessions:
            raise ServerBusy(f"{self._sessions} conversations are going on; try again later")
        reports = [p.report for p in (*free, *taken) if p.report is not None]
        needed = max((r.expected_cores.get(target, 0.0) for r in reports), default=0.0)
        check_costs(usable(node.cpus), needed, [p.cost for p in taken])

    def owner_of(self, session: str) -> CallProcess | None:
        """The call actor of the conversation of this name."""
        return next(
            (
                p
                for p in self.processes.values()
                if p.session == session and p.state == "taken" and not self.lost(p)
            ),
            None,
        )

    # ---------------------------------------------------------------- spares

    def _capacity(self, node: Node) -> int:
        """How many call actors a node holds."""
        held = node.cpus / self._share.cpus
        if self._share.gpus:
            held = min(held, node.gpus / self._share.gpus)
        return max(1, int(held + 1e-6)) if held >= 1 - 1e-6 else 0

    def nodes_to_start_on(self) -> list[str]:
        """Where one more call actor is to be started. "": a call has no place on any node."""
        active = [node for node in self.nodes.values() if not node.draining]
        wanted = [
            node.id
            for node in active
            if not self.of_node(node.id, "starting")  # one after another: calls need the cores
            and len(self.of_node(node.id, "free")) < self._wanted(node)
            and len(self.of_node(node.id)) < self._capacity(node)
        ]
        full = all(
            len(self.of_node(node.id)) >= self._capacity(node) for node in self.nodes.values()
        )
        has_spare = any(p.state in ("starting", "free") for p in self.processes.values())
        # Ray's autoscaler adds a node when it sees an actor that fits nowhere.
        return wanted if wanted or not full or has_spare else [""]

    def _wanted(self, node: Node) -> int:
        return min(self._spares, self._sessions - len(self.of_node(node.id, "taken")))

    def to_stop(self) -> list[str]:
        """Free call actors that nobody needs: on draining nodes, and beyond the spares."""
        stopped = []
        for node in self.nodes.values():
            free = self.of_node(node.id, "free")
            if node.draining:
                stopped += [p.id for p in free]
                continue
            idle = [p for p in free if self._clock() - p.free_since_s > SURPLUS_S]
            idle.sort(key=lambda p: p.free_since_s)
            stopped += [p.id for p in idle[: max(0, len(free) - self._spares)]]
        return stopped

    def _has_loaded(self, process: CallProcess, target: str) -> bool:
        return process.report is not None and target in process.report.expected_cores
