"""Which node takes the next call, on a scripted clock and without Ray."""

from __future__ import annotations

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("aiortc", reason="aiortc is not installed")

from lipstream.engine.errors import ServerBusy, UsageError  # noqa: E402
from lipstream.streaming.cluster.placement import (  # noqa: E402
    GONE_S,
    SILENT_S,
    SURPLUS_S,
    CallProcess,
    Node,
    Placement,
)
from lipstream.streaming.cluster.service import Report, Share  # noqa: E402
from lipstream.streaming.server.admission import Cost  # noqa: E402


class Cluster:
    """A placement with nodes `a`, `b`, …, and what their call actors answer."""

    def __init__(
        self, *cpus: float, spares: int = 1, sessions: int = 8, share: float = 1.0
    ) -> None:
        self.now_s = 100.0
        self.placement = Placement(Share(share), spares, sessions, lambda: self.now_s)
        self.nodes = [Node(chr(97 + k), f"10.0.0.{k}", n) for k, n in enumerate(cpus)]
        self.placement.see_nodes(self.nodes)

    def start(self) -> list[CallProcess]:
        """Those that are to be started, ready at once."""
        started = [self.placement.start(node) for node in self.placement.nodes_to_start_on()]
        for process in started:
            self.answers(process)
        return started

    def answers(
        self, process: CallProcess, free: bool = True, cost: Cost | None = None,
        loaded: tuple[str, ...] = ("face",), session: str | None = None,
    ) -> None:  # fmt: skip
        cores = dict.fromkeys(loaded, 0.5)
        report = Report(process.id, process.node, free, session, 0, cost, cores)
        process.take_in(report, self.now_s)

    def take(self, target: str = "face", cost: Cost | None = None) -> str:
        """The next call; returns its node."""
        process = self.placement.candidates(target)[0]
        self.answers(process, free=False, cost=cost or Cost(0.5))
        self.start()
        return process.node


def test_calls_go_to_the_node_with_the_most_free_shares() -> None:
    cluster = Cluster(2, 4)
    cluster.start()
    assert [cluster.take() for _ in range(4)] == ["a", "b", "b", "a"]


def test_a_spare_waits_on_each_node_that_has_a_share_left() -> None:
    cluster = Cluster(2, 1)
    assert [p.node for p in cluster.start()] == ["a", "b"]
    assert cluster.start() == []
    cluster.take()
    cluster.take()
    assert len(cluster.placement.of_node("a")) == 2
    assert len(cluster.placement.of_node("b")) == 1


def test_one_process_is_started_at_a_time_on_a_node() -> None:
    cluster = Cluster(4, spares=3)
    process = cluster.placement.start(cluster.placement.nodes_to_start_on()[0])
    assert cluster.placement.nodes_to_start_on() == []
    cluster.answers(process)
    assert cluster.placement.nodes_to_start_on() == ["a"]


def test_a_full_cluster_asks_ray_for_a_node_once() -> None:
    cluster = Cluster(1)
    (only,) = cluster.start()
    assert cluster.placement.nodes_to_start_on() == [], "there is a spare"
    cluster.answers(only, free=False)
    assert cluster.placement.nodes_to_start_on() == [""]
    cluster.placement.start("")
    assert cluster.placement.nodes_to_start_on() == []


def test_measured_cost_refuses_what_the_shares_would_allow() -> None:
    cluster = Cluster(2, share=0.5)
    cluster.start()
    cluster.take(cost=Cost(1.4))
    with pytest.raises(ServerBusy, match=r"1 use 1\.40 of 1\.70"):
        cluster.placement.candidates("face")
    other = Cluster(2, 2, share=0.5)
    other.start()
    other.take(cost=Cost(1.4))
    assert other.take() == "b", "another node has the time"


def test_a_node_takes_no_more_conversations_than_sessions() -> None:
    cluster = Cluster(8, sessions=1)
    cluster.start()
    cluster.take()
    assert cluster.placement.candidates("face") == []


def test_a_process_that_has_the_target_loaded_comes_first() -> None:
    cluster = Cluster(4, spares=2)
    cluster.start()
    cluster.start()
    first, second = cluster.placement.processes.values()
    cluster.answers(first, loaded=("other",))
    assert cluster.placement.candidates("face") == [second, first]
    assert cluster.placement.candidates("other") == [first, second]


def test_a_silent_node_gets_no_call_and_is_given_up_in_the_end() -> None:
    cluster = Cluster(2, 2)
    silent, well = cluster.start()
    cluster.now_s += SILENT_S - 0.5
    cluster.answers(well)
    assert cluster.placement.candidates("face") == [well, silent], "asked last while in doubt"
    cluster.now_s += 1.0
    cluster.answers(well)
    assert cluster.placement.candidates("face") == [well]
    cluster.now_s += GONE_S
    cluster.answers(well)
    assert cluster.placement.gone() == [silent.id]


def test_a_process_that_is_slow_has_not_lost_its_call() -> None:
    cluster = Cluster(2, spares=2)
    cluster.start()
    cluster.start()
    slow, well = cluster.placement.processes.values()
    cluster.answers(slow, free=False, session="stage")
    cluster.now_s += SILENT_S + 1
    assert cluster.placement.lost(slow) and cluster.placement.owner_of("stage") is None
    cluster.answers(well)
    assert not cluster.placement.lost(slow)
    assert cluster.placement.owner_of("stage") is slow


def test_a_node_that_ray_gives_up_takes_its_processes_with_it() -> None:
    cluster = Cluster(2, 2)
    first, second = cluster.start()
    assert cluster.placement.see_nodes(cluster.nodes[1:]) == [first.id]
    assert list(cluster.placement.processes) == [second.id]


def test_draining_places_nothing_and_cuts_nothing() -> None:
    cluster = Cluster(2, 2)
    cluster.start()
    assert cluster.take() == "a"
    cluster.nodes[0].draining = True
    assert [cluster.take() for _ in range(2)] == ["b", "b"]
    stopped = cluster.placement.to_stop()
    (spare,) = cluster.placement.of_node("a", "free")
    assert stopped == [spare.id], "the call's process stays"
    assert "a" not in cluster.placement.nodes_to_start_on()


def test_processes_beyond_the_spares_are_stopped_after_a_while() -> None:
    cluster = Cluster(4)
    cluster.start()
    cluster.take()
    cluster.take()
    for process in cluster.placement.processes.values():
        cluster.answers(process)
    assert cluster.placement.to_stop() == []
    cluster.now_s += SURPLUS_S + 1
    assert len(cluster.placement.to_stop()) == 2


def test_a_named_conversation_has_one_owner() -> None:
    cluster = Cluster(2)
    (process,) = cluster.start()
    assert cluster.placement.owner_of("stage") is None
    cluster.answers(process, free=False, session="stage")
    assert cluster.placement.owner_of("stage") is process
    cluster.answers(process)
    assert cluster.placement.owner_of("stage") is None


def test_what_a_process_said_before_its_reservation_does_not_undo_it() -> None:
    cluster = Cluster(2)
    (process,) = cluster.start()
    asked_s = cluster.now_s
    report = Report(process.id, process.node, True, None, 0, None, {})  # on its way
    cluster.now_s += 0.1
    process.state, process.session, process.reserved_s = "taken", "stage", cluster.now_s
    process.take_in(report, asked_s)
    assert cluster.placement.owner_of("stage") is process
    cluster.now_s += 0.1
    cluster.answers(process)
    assert process.state == "free", "its call has ended"


def test_shares_that_cannot_be_meant_are_refused() -> None:
    for cpus, gpus in ((0.0, 0.0), (float("nan"), 0.0), (1.0, 2.0), (1.0, -1.0)):
        with pytest.raises(UsageError, match="--call-"):
            Share(cpus, gpus)
