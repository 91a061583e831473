"""Requests about calls, passed by Ray to the process that owns the call.

A session's address is `/sessions/ACTOR.KEY`, and a token of `Lipstream-Resume` is `ACTOR.TOKEN`:
any node finds the owner without asking around, and no node has to remember anything.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Any, Final

from aiohttp import WSCloseCode, WSMsgType, web

from lipstream.engine.errors import HttpError, ServerBusy
from lipstream.streaming import trace
from lipstream.streaming.cluster.ray_calls import answer_of
from lipstream.streaming.cluster.service import (
    REACH_S,
    Answer,
    Placed,
    Request,
    SocketClosed,
)
from lipstream.streaming.server.app import CONVERSATION, ServerOptions
from lipstream.streaming.server.metrics import Scrape
from lipstream.streaming.server.signalling import Endpoint, asked_for, session_name
from lipstream.streaming.server.websocket import MAX_BYTES_PER_S
from lipstream.streaming.webrtc.ice_restart import MEDIA_TYPE
from lipstream.streaming.webrtc.offer import receives

logger = logging.getLogger(__name__)

_ANSWER_S: Final = 20.0  # a target may have to be loaded first
_PLACE_S: Final = 12.0
_FIND_S: Final = 5.0
_LOOK_S: Final = 0.5  # between two questions whether the owner is lost
_SILENT_S: Final = 8.0  # for messages to a client, which are waited for in 5 s at a time
_ORIGINS: Final = 4096  # nodes that are remembered
_KNOWN: Final = 4096  # handles that are kept
_ASKED: Final = ("Content-Type", "If-Match")  # headers that the owner has to see
_HOP_BY_HOP: Final = frozenset(
    ("connection", "content-length", "content-encoding", "date", "server", "transfer-encoding")
)


class ForwardedCalls:
    """The calls of a cluster, seen from the ingress of a node."""

    def __init__(self, controller: Any, options: ServerOptions, address: str) -> None:
        """`controller`: its handle; `address`: of this node."""
        self._controller, self._address = controller, address
        self._endpoint = Endpoint(options.ice_servers, options.max_sdp_bytes)
        self._known: dict[str, Any] = {}  # handles of call actors
        self._sockets: set[web.WebSocketResponse] = set()
        self.draining = False
        self.nodes: tuple[str, ...] = ()  # where the cluster takes calls, this node among them
        # Those ever seen: a page of a node that is lost comes here.
        self._origins: dict[str, None] = {}

    def routes(self) -> list[web.RouteDef]:
        """As `Calls.routes`."""
        path = "/sessions/{key}"
        return [
            web.get(path, self._about_session),
            web.delete(path, self._about_session),
            web.post(path + "/interrupt", self._about_session),
            web.patch(path, self._about_session),
            web.post("/whip", self._whip),
            web.options("/whip", self._endpoint.describe),
            web.post("/whep", self._whep),
            web.options("/whep", self._endpoint.describe),
            web.get("/ws", self._socket),
        ]

    # ---------------------------------------------------------------- new connections

    async def _whip(self, request: web.Request) -> web.Response:
        offer = await self._endpoint.read_offer(request)
        private = receives(offer)
        return await self._connect(request, offer, session_name(request, private))

    async def _whep(self, request: web.Request) -> web.Response:
        offer = await self._endpoint.read_offer(request)
        return await self._connect(request, offer, session_name(request))

    async def _connect(self, request: web.Request, offer: str, name: str | None) -> web.Response:
        target, name = asked_for(request, name)
        token = request.headers.get("Lipstream-Resume")
        asked = _asked(request, offer.encode())
        if token is not None:
            actor, _, rest = token.partition(".")
            # A token that leads nowhere is passed on: the answer says that the call is a new one.
            asked.headers["Lipstream-Resume"] = rest or "none"
            handle = await self._find(actor)
            if handle is not None and await answer_of(handle.holds.remote(rest), REACH_S):
                answer = await self._ask(actor, handle, asked)
                if answer is not None:
                    return self._with_alternates(request, _response(answer, actor))
        placed = await self._place(target, name)
        answer = await answer_of(placed.handle.request.remote(asked), _ANSWER_S)
        if answer is None:
            raise ServerBusy(f"node {placed.node} does not answer; try again")
        return self._with_alternates(request, _response(answer, placed.actor))

    def _with_alternates(self, request: web.Request, response: web.Response) -> web.Response:
        """For who asked a node by its own address: the others, for when this one is lost."""
        if f"{request.scheme}://{request.host}" in self.nodes:
            for url in self.nodes:
                if not url.endswith(f"//{request.host}"):
                    link = f'<{url}{request.path_qs}>; rel="alternate"'
                    response.headers.add("Link", link)
        return response

    async def _place(self, target: str, name: str | None) -> Placed:
        asked = self._controller.place.remote(target, name, trace.current())
        placed = await answer_of(asked, _PLACE_S)
        if not isinstance(placed, Placed):
            raise ServerBusy(placed or "the cluster's controller does not answer; try again later")
        self._keep(placed.actor, placed.handle)
        logger.info("a call from %s goes to %s on %s", self._address, placed.actor, placed.node)
        return placed

    # ---------------------------------------------------------------- connections that exist

    async def _about_session(self, request: web.Request) -> web.Response:
        actor, _, key = request.match_info["key"].partition(".")
        body = b""
        if request.method == "PATCH":
            body = (await self._endpoint.read(request, MEDIA_TYPE)).encode()
        handle = await self._find(actor) if key else None
        if handle is None:
            # 404 and not 410: the client may try again, and gets another place.
            raise HttpError(404, "no such session, or its node is lost")
        suffix = "/interrupt" if request.method == "POST" else ""
        asked = _asked(request, body, f"/sessions/{key}{suffix}")
        answer = await self._ask(actor, handle, asked)
        if answer is None:
            raise HttpError(404, "no such session: its node is lost")
        return _response(answer, actor)

    async def _find(self, actor: str) -> Any | None:
        """The handle of a call actor."""
        handle = self._known.get(actor)
        if handle is None:
            handle = await answer_of(self._controller.find.remote(actor), _FIND_S)
            if handle is not None:
                self._keep(actor, handle)
        return handle

    async def _ask(self, actor: str, handle: Any, asked: Request) -> Answer | None:
        """The owner's answer; None when it is lost, which the controller knows before Ray does."""
        work = asyncio.create_task(answer_of(handle.request.remote(asked), _ANSWER_S))
        while not (await asyncio.wait({work}, timeout=_LOOK_S))[0]:
            # A controller that is late in answering says nothing of the owner.
            if await answer_of(self._controller.is_lost.remote(actor), REACH_S):
                work.cancel()
                break
        answer = None if work.cancelled() or not work.done() else work.result()
        if answer is None:
            self._known.pop(actor, None)
        return answer

    def _keep(self, actor: str, handle: Any) -> None:
        self._known[actor] = handle
        if len(self._known) > _KNOWN:
            del self._known[next(iter(self._known))]

    # ---------------------------------------------------------------- WebSockets

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        target, name = asked_for(request, session_name(request))
        most_bytes = CONVERSATION.sound_capacity_s * MAX_BYTES_PER_S
        socket = web.WebSocketResponse(max_msg_size=most_bytes, heartbeat=20)
        if not socket.can_prepare(request):
            raise HttpError(400, "expected a WebSocket: GET with Upgrade: websocket")
        placed = await self._place(target, name)
        opened = await answer_of(placed.handle.open_socket.remote(_asked(request)), _ANSWER_S)
        if isinstance(opened, Answer):
            return _response(opened, placed.actor)
        if opened is None:
            raise ServerBusy(f"node {placed.node} does not answer; try again")
        number: int = opened
        try:
            await socket.prepare(request)
            self._sockets.add(socket)
            replies = asyncio.create_task(_replies(placed.handle, number, socket))
            try:
                async for message in socket:
                    if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                        continue
                    # One after another: sound must keep its order.
                    sent = placed.handle.send.remote(number, message.data)
                    if await answer_of(sent, None) is None:
                        await _close_lost(socket)
            finally:
                replies.cancel()
                await asyncio.gather(replies, return_exceptions=True)
        finally:
            self._sockets.discard(socket)
            await answer_of(placed.handle.close_socket.remote(number), REACH_S)
        return socket

    # ---------------------------------------------------------------- for operators

    async def sessions(self) -> list[dict[str, Any]]:
        """As `Calls.sessions`, of all nodes."""
        return await answer_of(self._controller.sessions.remote(), 2 * REACH_S) or []

    async def scrapes(self) -> list[Scrape]:
        """As `Calls.scrapes`, of all nodes."""
        return await answer_of(self._controller.scrapes.remote(), 2 * REACH_S) or []

    async def health(self) -> dict[str, Any] | None:
        """As `Calls.health`, of this node."""
        return None if self.draining else {"node": self._address}

    def see_nodes(self, urls: list[str]) -> None:
        """Where the cluster takes calls now."""
        self.nodes = tuple(urls)
        self._origins |= dict.fromkeys(urls)
        for oldest in list(self._origins)[:-_ORIGINS]:
            del self._origins[oldest]

    def siblings(self) -> Collection[str]:
        """As `Calls.siblings`."""
        return self._origins.keys()

    async def close(self) -> None:
        """Nothing of the calls: they are not this node's. WebSockets that pass here end."""
        for socket in tuple(self._sockets):
            await socket.close(code=WSCloseCode.GOING_AWAY, message=b"the server stops")


async def _replies(handle: Any, number: int, socket: web.WebSocketResponse) -> None:
    """From the conversation to the client, until either closes."""
    while not socket.closed:
        messages = await answer_of(handle.receive.remote(number), _SILENT_S)
        if messages is None:
            return await _close_lost(socket)
        for message in messages:
            if isinstance(message, SocketClosed):
                abnormal = message.code == WSCloseCode.ABNORMAL_CLOSURE
                code = WSCloseCode.INTERNAL_ERROR if abnormal else message.code
                await socket.close(code=code, message=message.reason.encode())
                return
            await socket.send_str(message)


async def _close_lost(socket: web.WebSocketResponse) -> None:
    await socket.close(
        code=WSCloseCode.INTERNAL_ERROR, message=b"the node of this conversation is lost"
    )


def _asked(request: web.Request, body: bytes = b"", path: str | None = None) -> Request:
    headers = {name: request.headers[name] for name in _ASKED if name in request.headers}
    query = f"?{request.query_string}" if request.query_string else ""
    if path is None:
        path = f"/{request.path.rsplit('/', 1)[-1]}"
    return Request(request.method, f"{path}{query}", headers, trace.current(), body)


def _response(answer: Answer, actor: str) -> web.Response:
    """The owner's answer, with the owner in its addresses and tokens."""
    response = web.Response(status=answer.status, body=answer.body)
    response.headers.popall("Content-Type", None)
    for name, value in answer.headers:
        if name.lower() in _HOP_BY_HOP:
            continue
        if name == "Location":
            value = value.replace("/sessions/", f"/sessions/{actor}.", 1)
        elif name == "Lipstream-Resume":
            value = f"{actor}.{value}"
        elif name == trace.HEADER:
            trace.continue_with(value)
        response.headers.add(name, value)
    return response
