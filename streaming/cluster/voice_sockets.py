"""The WebSockets of one call actor: each has its other end at the ingress of some node."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from lipstream.streaming import trace
from lipstream.streaming.background_tasks import BackgroundTasks
from lipstream.streaming.cluster.service import Answer, Request, SocketClosed

_WAIT_S: Final = 5.0  # of one question for messages
_ABANDONED_S: Final = 15.0  # without a question, the ingress is gone
_QUEUED: Final = 256  # messages for the client; the server waits when there are more


@dataclass(slots=True, eq=False)
class _Socket:
    socket: aiohttp.ClientWebSocketResponse
    messages: asyncio.Queue[str | SocketClosed] = field(
        default_factory=lambda: asyncio.Queue(_QUEUED)
    )
    asked_s: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    reading: asyncio.Task[None] | None = None  # ends with the socket, also where nobody asks


class VoiceSockets:
    """Used on the event loop."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http
        self._numbers = itertools.count(1)
        self._sockets: dict[int, _Socket] = {}
        self._tasks = BackgroundTasks()

    async def open(self, request: Request) -> int | Answer:
        """Begin one; returns its number, or the refusal."""
        headers = {**request.headers, trace.HEADER: request.trace}
        try:
            socket = await self._http.ws_connect(request.path, max_msg_size=0, headers=headers)
        except aiohttp.WSServerHandshakeError as refused:
            # The reason stands in the body, which aiohttp has not kept: asked for once more.
            async with self._http.get(request.path, headers=headers) as response:
                status = refused.status if response.status < 400 else response.status
                return Answer(status, list(response.headers.items()), await response.read())
        number = next(self._numbers)
        self._sockets[number] = one = _Socket(socket)
        one.reading = self._tasks.start(self._read(one), "messages for a client")
        self._tasks.start(self._watch(number, one), "watch over an ingress")
        return number

    async def send(self, number: int, message: str | bytes) -> bool:
        """To the conversation; False where the socket is closed."""
        one = self._sockets.get(number)
        if one is None or one.socket.closed:
            return False
        try:
            if isinstance(message, bytes):
                await one.socket.send_bytes(message)
            else:
                await one.socket.send_str(message)
        except ConnectionError:
            return False
        return True

    async def receive(self, number: int) -> list[str | SocketClosed]:
        """At least one message, or none when the wait is over."""
        one = self._sockets.get(number)
        if one is None:
            return [SocketClosed(1006, "")]
        one.asked_s = asyncio.get_running_loop().time()
        try:
            found = [await asyncio.wait_for(one.messages.get(), _WAIT_S)]
        except TimeoutError:
            return []
        while not one.messages.empty():
            found.append(one.messages.get_nowait())
        return found

    async def end(self, number: int) -> None:
        """The client has gone."""
        one = self._sockets.pop(number, None)
        if one is not None and one.reading is not None:
            one.reading.cancel()  # it may wait for room in a queue that nobody empties
            await one.socket.close()

    async def close(self) -> None:
        """End all of them."""
        for number in tuple(self._sockets):
            await self.end(number)
        await self._tasks.cancel()

    async def _read(self, one: _Socket) -> None:
        while True:
            message = await one.socket.receive()
            if message.type is not aiohttp.WSMsgType.TEXT:
                break
            await one.messages.put(message.data)
        is_close = message.type is aiohttp.WSMsgType.CLOSE
        reason = str(message.extra or "") if is_close else ""
        await one.messages.put(SocketClosed(message.data if is_close else 1006, reason))

    async def _watch(self, number: int, one: _Socket) -> None:
        loop = asyncio.get_running_loop()
        while number in self._sockets and loop.time() - one.asked_s < _ABANDONED_S:
            await asyncio.sleep(1)
        await self.end(number)
