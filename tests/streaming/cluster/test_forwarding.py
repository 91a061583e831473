"""WebSockets of a cluster, through a process that is lost and clients that are gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("aiortc", reason="aiortc is not installed")

from aiohttp import ClientSession, ClientWebSocketResponse, web  # noqa: E402

from lipstream.streaming.cluster.forwarding import ForwardedCalls  # noqa: E402
from lipstream.streaming.cluster.service import Placed, Request, SocketClosed  # noqa: E402
from lipstream.streaming.cluster.voice_sockets import VoiceSockets  # noqa: E402
from lipstream.streaming.server.app import ServerOptions  # noqa: E402
from tests.streaming.cluster.fake_ray import FakeRay, Handle  # noqa: E402
from tests.streaming.waiting import eventually  # noqa: E402


class Owner:
    """The call actor of one WebSocket."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[str | SocketClosed] = asyncio.Queue()
        self.heard: list[str | bytes] = []
        self.ended = False

    async def open_socket(self, request: Request) -> int:
        return 1

    async def send(self, number: int, message: str | bytes) -> bool:
        self.heard.append(message)
        return True

    async def receive(self, number: int) -> list[str | SocketClosed]:
        return [await self.messages.get()]

    async def close_socket(self, number: int) -> None:
        self.ended = True


class Placing:
    """A controller that knows one call actor."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle

    async def place(self, target: str, session: str | None, trace: str) -> Placed:
        return Placed("owner", self.handle, "10.0.0.1")


@asynccontextmanager
async def site(*routes: web.RouteDef) -> AsyncIterator[str]:
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def voice(owner: Owner, handle: Handle) -> AsyncIterator[ClientWebSocketResponse]:
    options = ServerOptions("127.0.0.1", 0, "a-secret-token")
    calls = ForwardedCalls(Handle(Placing(handle)), options, "10.0.0.2")
    async with (
        site(*calls.routes()) as url,
        ClientSession() as http,
        http.ws_connect(url + "/ws?target=face") as socket,
    ):
        yield socket
    assert owner.ended or handle.killed


def test_a_voice_passes_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeRay(monkeypatch)

    async def test() -> None:
        owner = Owner()
        async with voice(owner, Handle(owner)) as socket:
            await socket.send_str("start")
            await socket.send_bytes(b"12")
            owner.messages.put_nowait("started")
            assert await socket.receive_str(timeout=5) == "started"
            owner.messages.put_nowait(SocketClosed(4001, "enough"))
            end: Any = await socket.receive(timeout=5)
            assert (end.data, end.extra) == (4001, "enough")
            assert owner.heard == ["start", b"12"]

    asyncio.run(test())


@pytest.mark.parametrize("speaks", [False, True])
def test_a_client_is_told_when_its_conversation_is_lost(
    speaks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that only listens: it would wait for ever."""
    FakeRay(monkeypatch)

    async def test() -> None:
        owner = Owner()
        handle = Handle(owner)
        async with voice(owner, handle) as socket:
            owner.messages.put_nowait("started")
            assert await socket.receive_str(timeout=5) == "started"
            handle.killed = True
            if speaks:
                await socket.send_bytes(b"12")
            else:
                owner.messages.put_nowait("unheard")
                assert await socket.receive_str(timeout=5) == "unheard"  # it was asked for before
            end: Any = await socket.receive(timeout=5)
            assert (end.data, end.extra) == (1011, "the node of this conversation is lost")

    asyncio.run(test())


def test_what_nobody_fetches_ends_with_its_client() -> None:
    """More messages than are kept: who reads them waits for room until the client is gone."""

    async def chatter(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for number in range(3000):
            await socket.send_str(str(number))
        await socket.receive()
        return socket

    async def test() -> None:
        async with site(web.get("/ws", chatter)) as url, ClientSession(url) as http:
            sockets = VoiceSockets(http)
            number = await sockets.open(Request("GET", "/ws", {}, ""))
            assert isinstance(number, int)
            assert (await sockets.receive(number))[0] == "0"
            await asyncio.sleep(0.1)
            await sockets.end(number)
            await eventually(lambda: not sockets._tasks._others(), 3, "all of its tasks end")
            assert await sockets.receive(number) == [SocketClosed(1006, "")]
            assert not await sockets.send(number, "late")
            await sockets.close()

    asyncio.run(test())


def test_a_socket_whose_ingress_is_gone_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The conversation closes it, and nobody comes for the news."""
    monkeypatch.setattr("lipstream.streaming.cluster.voice_sockets._ABANDONED_S", 0.5)

    async def closes(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.close(code=4001)
        return socket

    async def test() -> None:
        async with site(web.get("/ws", closes)) as url, ClientSession(url) as http:
            sockets = VoiceSockets(http)
            await sockets.open(Request("GET", "/ws", {}, ""))
            await eventually(lambda: not sockets._sockets, 5, "it is let go")
            await sockets.close()

    asyncio.run(test())
