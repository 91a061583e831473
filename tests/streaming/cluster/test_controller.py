"""The controller through lost processes, silent ones and new ones, without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("aiortc", reason="aiortc is not installed")

from lipstream.streaming.cluster.controller import Controller  # noqa: E402
from lipstream.streaming.cluster.placement import GONE_S  # noqa: E402
from lipstream.streaming.cluster.serve import _drain  # noqa: E402
from lipstream.streaming.cluster.service import Placed  # noqa: E402
from tests.streaming.cluster.fake_ray import (  # noqa: E402
    FakeCallActor,
    FakeIngress,
    FakeRay,
    Handle,
)


def run(ray: FakeRay, test: Coroutine[Any, Any, None]) -> None:
    ray.clock.run(test)


async def ready(ray: FakeRay, **service: Any) -> Controller:
    """One that has looked at its nodes and has a spare on each."""
    controller = ray.controller(**service)
    await controller.begin()
    await asyncio.sleep(2)
    return controller


async def place(controller: Controller, session: str | None = None) -> Placed:
    placed = await controller.place("face", session, "")
    assert isinstance(placed, Placed), placed
    return placed


def test_a_controller_that_ray_starts_anew_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray makes the object again and says nothing to it: whatever is asked first must do."""
    ray = FakeRay(monkeypatch, 4, 4)

    async def test() -> None:
        first = await ready(ray)
        call = await place(first, "stage")
        await first._tasks.cancel()
        second = ray.controller()
        assert not await second.is_lost(call.actor)
        assert await second.find(call.actor) is call.handle
        assert (await place(second, "stage")).actor == call.actor, "the one with that name"
        await asyncio.sleep(1)
        assert sorted(await second.urls()) == ["http://10.0.0.0", "http://10.0.0.1"]
        assert await second.is_lost("nobody")

    run(ray, test())


def test_a_call_may_be_the_first_question(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay(monkeypatch, 2)

    async def test() -> None:
        controller = ray.controller()
        call = await place(controller)
        assert not await controller.is_lost(call.actor)

    run(ray, test())


def test_a_node_drains_on_under_the_next_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay(monkeypatch, 2, 2)

    async def test() -> None:
        first = await ready(ray)
        call = await place(first)
        node = call.handle.actor.node
        assert await first.drain(node) == node
        await first._tasks.cancel()
        second = await ready(ray)
        assert [one.draining for one in await second.status()].count(True) == 1
        assert (await place(second)).handle.actor.node != node

    run(ray, test())


def test_care_survives_a_first_look_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay(monkeypatch, 2)
    answers = ray.call_actors

    def fails_once() -> dict[str, Any]:
        if not ray.times_asked:
            answers()
            raise ConnectionError("the cluster's directory does not answer")
        return answers()

    monkeypatch.setattr("lipstream.streaming.cluster.ray_calls.call_actors", fails_once)

    async def test() -> None:
        controller = await ready(ray)
        call = await place(controller)
        assert not await controller.is_lost(call.actor)

    run(ray, test())


def test_an_ingress_that_ray_starts_anew_takes_calls_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray = FakeRay(monkeypatch, 2, 2)

    async def test() -> None:
        controller = await ready(ray)
        await controller.drain("b")
        for node in ("a", "b"):
            ray.ingresses[node].actor = FakeIngress(ray.ingresses[node].actor.node)
        await place(controller)
        await asyncio.sleep(2)
        assert ray.ingresses["a"].actor.begun, "it listens again"
        assert not ray.ingresses["a"].actor.draining

    run(ray, test())


def test_an_ingress_of_a_draining_node_drains_when_it_starts_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray = FakeRay(monkeypatch, 1)

    async def test() -> None:
        controller = await ready(ray)
        await place(controller)
        await controller.drain("a")
        ray.ingresses["a"].actor = FakeIngress(ray.ingresses["a"].actor.node)
        await asyncio.sleep(2)
        assert ray.ingresses["a"].actor.draining

    run(ray, test())


def test_an_ingress_that_cannot_begin_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay(monkeypatch, 2)
    begins: list[FakeIngress] = []

    def no_port(actor: Any) -> None:
        if isinstance(actor, FakeIngress):
            actor.fails = "the port is taken"
            begins.append(actor)

    ray.prepare = no_port

    async def test() -> None:
        controller = await ready(ray)
        assert await controller.failure() == "the port is taken"
        assert await controller.urls() == []
        begins[0].fails = ""
        await asyncio.sleep(10)
        assert await controller.urls() == ["http://10.0.0.0"]

    run(ray, test())


def test_silent_processes_hold_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five that neither answer nor end: calls of the others are known all the while."""
    ray = FakeRay(monkeypatch, 8, 8)

    async def test() -> None:
        controller = await ready(ray, spares=5)
        await asyncio.sleep(3)
        silent = [one for one in ray.actors.values() if one.actor.node == "a"]
        assert len(silent) == 5
        call = next(one for one in ray.actors.values() if one.actor.node == "b")
        for one in silent:
            one.silent = True
        for _ in range(int(GONE_S) + 8):
            await asyncio.sleep(1)
            assert not await controller.is_lost(call.actor.name)
        assert all(one.killed for one in silent)

    run(ray, test())


def test_what_does_not_start_is_not_started_again_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray = FakeRay(monkeypatch, 2)

    def fails(actor: Any) -> None:
        if isinstance(actor, FakeCallActor):
            actor.fails = "no model"

    ray.prepare = fails

    async def test() -> None:
        controller = await ready(ray)
        await asyncio.sleep(2)
        assert len(ray.actors) == 1
        await asyncio.sleep(4)
        assert len(ray.actors) == 2
        assert "no model" in str(await controller.place("face", None, ""))

    run(ray, test())


def test_names_of_conversations_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay(monkeypatch, 8)

    async def test() -> None:
        controller = await ready(ray)
        for name in ("one", "two", "three"):
            await place(controller, name)
            await asyncio.sleep(1)
        assert len(controller._names) == 0

    run(ray, test())


def test_two_who_begin_a_conversation_at_once_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay(monkeypatch, 8)

    async def test() -> None:
        controller = await ready(ray, spares=3)
        await asyncio.sleep(2)
        one, other = await asyncio.gather(place(controller, "stage"), place(controller, "stage"))
        assert one.actor == other.actor

    run(ray, test())


def test_a_process_that_ends_while_others_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay(monkeypatch, 8, 8)

    async def test() -> None:
        controller = await ready(ray)
        first, second = controller._placement.candidates("face")
        controller._handles[first.id].silent = True  # it is tried first, and answers nothing
        placing = asyncio.ensure_future(controller.place("face", None, ""))
        await asyncio.sleep(0.5)
        controller._forget(second.id)
        assert "no node has a CPU share" in str(await placing)

    run(ray, test())


def test_draining_is_waited_for_while_the_controller_starts_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray, told = FakeRay(monkeypatch, 2), list[str]()

    async def test() -> None:
        controller = await ready(ray)
        handle = Handle(controller)
        monkeypatch.setattr("lipstream.streaming.cluster.ray_calls.get_controller", lambda: handle)
        call = await place(controller)
        await asyncio.sleep(1)
        draining = asyncio.ensure_future(_drain("a", told.append))
        await asyncio.sleep(2)
        handle.killed = True
        await asyncio.sleep(2)
        handle.killed = False
        call.handle.actor.free = True
        await draining
        assert told == [
            "node 10.0.0.0 takes no more calls; 1 go on",
            "node a has no call any more and can be stopped",
        ]

    run(ray, test())
