"""A cluster in place of Ray's: nodes, and actors that answer, fail, are silent or start anew."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

from lipstream.streaming.cluster import ray_calls
from lipstream.streaming.cluster.controller import Controller
from lipstream.streaming.cluster.placement import Node
from lipstream.streaming.cluster.service import Report, Service, Share
from lipstream.streaming.server.app import ServerOptions
from tests.clock import ScriptedClock


class RayError(Exception):
    """Stands for the base of Ray's errors."""


class Handle:
    """Of an actor: `handle.method.remote(...)` is what it will answer."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.silent = self.killed = False

    def __getattr__(self, name: str) -> Any:
        return types.SimpleNamespace(remote=lambda *given: self._ask(name, given))

    def _ask(self, name: str, given: tuple[Any, ...]) -> asyncio.Future[Any]:
        async def answer() -> Any:
            if self.silent:
                await asyncio.sleep(3600)
            if self.killed:
                raise RayError("the actor is dead")
            try:
                return await getattr(self.actor, name)(*given)
            except Exception as error:
                raise RayError(str(error)) from error

        task = asyncio.ensure_future(answer())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task


class FakeCallActor:
    """Answers as `CallActor` does."""

    def __init__(self, name: str, node: str) -> None:
        self.name, self.node = name, node
        self.free, self.session, self.stopped = True, None, False
        self.fails = ""  # why it does not begin

    async def begin(self, target: str | None) -> Report:
        if self.fails:
            raise RuntimeError(self.fails)
        return await self.report()

    async def report(self) -> Report:
        return Report(self.name, self.node, self.free, self.session, 0, None, {})

    async def reserve(self, session: str | None) -> bool:
        if not self.free and (session is None or session != self.session):
            return False
        self.free, self.session = False, session
        return True

    async def stop(self) -> None:
        self.stopped = True


class FakeIngress:
    """Answers as `Ingress` does."""

    def __init__(self, node: Node) -> None:
        self.node, self.begun, self.draining, self.fails = node, 0, False, ""

    async def begin(self) -> tuple[str, bool]:
        if self.fails:
            raise RuntimeError(self.fails)
        self.begun += 1
        return f"http://{self.node.address}", self.draining

    async def drain(self) -> None:
        self.draining = True

    async def stop(self) -> None:
        pass


class FakeRay:
    """The functions of `ray_calls`, for a controller on a scripted clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *cpus: float) -> None:
        self.clock = ScriptedClock()
        self.alive = [Node(chr(97 + k), f"10.0.0.{k}", n) for k, n in enumerate(cpus)]
        self.actors: dict[str, Handle] = {}
        self.ingresses: dict[str, Handle] = {}
        self.prepare: Callable[[Any], None] = lambda actor: None  # each new one
        self.times_asked = 0  # who runs already
        exceptions = types.ModuleType("ray.exceptions")
        exceptions.RayError = RayError  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "ray.exceptions", exceptions)
        monkeypatch.setitem(sys.modules, "ray", types.ModuleType("ray"))
        monkeypatch.setattr("lipstream.streaming.trace.log_to_stderr", lambda level: None)
        for name in ("nodes", "call_actors", "start_ingress", "start_call_actor", "kill"):
            monkeypatch.setattr(ray_calls, name, getattr(self, name))

    def controller(self, **service: Any) -> Controller:
        """A new process of it."""
        options = ServerOptions("node", 8080, "a-secret-token", sessions=8)
        return Controller(Service("targets", None, options, Share(1.0), **service), "face")  # type: ignore[arg-type]

    def nodes(self) -> list[Node]:
        return [Node(one.id, one.address, one.cpus) for one in self.alive]

    def call_actors(self) -> dict[str, Handle]:
        self.times_asked += 1
        return {name: one for name, one in self.actors.items() if not one.killed}

    def start_ingress(self, service: Service, node: Node) -> Handle:
        if node.id not in self.ingresses:
            self.ingresses[node.id] = Handle(FakeIngress(node))
            self.prepare(self.ingresses[node.id].actor)
        return self.ingresses[node.id]

    def start_call_actor(self, service: Service, name: str, node: str) -> Handle:
        self.actors[name] = Handle(FakeCallActor(name, node))
        self.prepare(self.actors[name].actor)
        return self.actors[name]

    def kill(self, handle: Handle) -> None:
        handle.killed = True
