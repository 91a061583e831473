"""The process of one call: the conversation code of `lipstream serve`, behind Ray's messages.

Its HTTP handlers are the server's own. They listen on a Unix socket that only this process can
open, and what comes by Ray is put through it. After a call the process waits for the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

import aiohttp
from aiohttp import web

from lipstream.engine.errors import LipstreamError
from lipstream.streaming import trace
from lipstream.streaming.cluster import ray_calls
from lipstream.streaming.cluster.service import Answer, Report, Request, Service, SocketClosed
from lipstream.streaming.cluster.voice_sockets import VoiceSockets
from lipstream.streaming.remote.targets import local_targets
from lipstream.streaming.server.admission import cost, expected_cores
from lipstream.streaming.server.app import local_calls, patch_aiortc, show_trace
from lipstream.streaming.server.calls import LocalCalls
from lipstream.streaming.server.error_responses import answer_errors
from lipstream.streaming.server.metrics import Sample, scrape
from lipstream.streaming.server.targets import TargetRegistry
from lipstream.streaming.session.gc_policy import few_arenas, freeze
from lipstream.streaming.session.live_engine import LiveEngine, short_turns
from lipstream.streaming.webrtc.aiortc_patches import PatchOptions

logger = logging.getLogger(__name__)

_RESERVED_S: Final = 10.0  # from a reservation to the request that it is for
_KEPT_TARGETS: Final = 2


class CallActor:
    """One conversation at a time. Every method runs on the actor's event loop."""

    def __init__(self, service: Service, name: str) -> None:
        trace.log_to_stderr(logging.getLevelName(service.log_level))
        few_arenas()
        short_turns()
        self._service, self._name = service, name
        self._controller: Any = None  # its handle; it is told when the place is free again
        self._registry = TargetRegistry(
            local_targets(service.targets), service.setting, keep=_KEPT_TARGETS
        )
        self._node = ""
        self._loaded: dict[str, float] = {}  # expected cores by target
        self._reserved_until_s = 0.0
        self._session: str | None = None
        self._requests = 0  # in progress
        self._undo = contextlib.AsyncExitStack()
        self._calls: LocalCalls
        self._http: aiohttp.ClientSession
        self._sockets: VoiceSockets

    async def begin(self, target: str | None) -> Report:
        """Get ready. `target`: loaded ahead.

        Raises: LipstreamError.
        """
        self._node, address = ray_calls.this_node()
        self._controller = await asyncio.to_thread(ray_calls.get_controller)
        options = self._service.options
        patch_aiortc(
            PatchOptions(loopback=options.local, udp_ports=options.udp_ports, address=address)
        )
        one = replace(options, sessions=1)
        self._calls = local_calls(one, self._engine, None, self._emptied)
        app = web.Application(
            middlewares=[_continue_trace, answer_errors], client_max_size=options.max_body_bytes
        )
        app.on_response_prepare.append(show_trace)
        app.add_routes(self._calls.routes())
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        self._undo.push_async_callback(runner.cleanup)
        folder = self._undo.enter_context(tempfile.TemporaryDirectory(prefix="lipstream-"))
        path = f"{folder}/calls"
        await web.UnixSite(runner, path).start()
        connector = aiohttp.UnixConnector(path, limit=0)
        self._http = aiohttp.ClientSession("http://localhost", connector=connector)
        self._undo.push_async_callback(self._http.close)
        self._sockets = VoiceSockets(self._http)
        self._undo.push_async_callback(self._sockets.close)
        if target is not None:
            try:
                await self._engine(target)
            except LipstreamError as error:  # a call to it gets the reason
                logger.warning("target %s is not loaded ahead: %s", target, error)
        freeze()
        return await self.report()

    async def _engine(self, name: str) -> LiveEngine:
        engine = await self._registry.engine(name)
        self._loaded = {
            **dict(list(self._loaded.items())[-_KEPT_TARGETS + 1 :]),
            name: expected_cores(self._registry.cores(engine)),
        }
        return engine

    # ---------------------------------------------------------------- its place

    def _is_free(self) -> bool:
        now_s = asyncio.get_running_loop().time()
        return not len(self._calls.rooms) and not self._requests and now_s > self._reserved_until_s

    async def report(self) -> Report:
        """How it is doing."""
        free = self._is_free()
        room = next(iter(self._calls.rooms), None)
        return Report(
            self._name,
            self._node,
            free,
            None if free else self._session,
            self._calls.rooms.opened,
            cost(room, self._registry.cores) if room is not None else None,
            dict(self._loaded),
        )

    async def reserve(self, session: str | None) -> bool:
        """Keep its place for the request that comes next; whether it has one for it.

        `session`: the name of the conversation, which others may join; None for a private one.
        """
        if not self._is_free() and (session is None or session != self._session):
            return False
        self._session = session
        self._reserved_until_s = asyncio.get_running_loop().time() + _RESERVED_S
        return True

    async def holds(self, token: str) -> bool:
        """Whether a conversation goes on here that a token of `Lipstream-Resume` leads to."""
        return self._calls.rooms.may_resume(token)

    def _emptied(self) -> None:
        asyncio.get_running_loop().call_soon(self._tell_if_free)

    def _tell_if_free(self) -> None:
        if self._is_free() and self._controller is not None:
            self._controller.released.remote(self._name)

    # ---------------------------------------------------------------- requests

    async def request(self, request: Request) -> Answer:
        """What the server's handlers answer."""
        self._requests += 1
        self._reserved_until_s = 0.0
        try:
            async with self._http.request(
                request.method,
                request.path,
                data=request.body or None,
                headers={**request.headers, trace.HEADER: request.trace},
                skip_auto_headers=("Content-Type",),
            ) as response:
                return Answer(
                    response.status, list(response.headers.items()), await response.read()
                )
        finally:
            self._requests -= 1
            self._tell_if_free()

    async def open_socket(self, request: Request) -> int | Answer:
        """A WebSocket to the conversation: its number, or the refusal."""
        self._requests += 1
        self._reserved_until_s = 0.0
        try:
            return await self._sockets.open(request)
        finally:
            self._requests -= 1
            self._tell_if_free()

    async def send(self, number: int, message: str | bytes) -> bool:
        """A message of the client's; whether the conversation still takes them."""
        return await self._sockets.send(number, message)

    async def receive(self, number: int) -> list[str | SocketClosed]:
        """What came for the client; waits for it, a few seconds at most."""
        return await self._sockets.receive(number)

    async def close_socket(self, number: int) -> None:
        """The client has gone."""
        await self._sockets.end(number)

    # ---------------------------------------------------------------- what an operator sees

    async def samples(self) -> tuple[Sample, ...]:
        """For `/metrics`."""
        return scrape(self._calls.rooms).samples

    async def sessions(self) -> list[dict[str, Any]]:
        """For `/api/sessions`."""
        return await self._calls.sessions()

    async def stop(self) -> None:
        """End its conversation; its clients are told."""
        await self._calls.close()
        await self._undo.aclose()


@web.middleware
async def _continue_trace(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    trace.continue_with(request.headers[trace.HEADER])
    return await handler(request)
