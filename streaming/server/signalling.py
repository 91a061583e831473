"""What WHIP and WHEP have in common: offer in, answer out, and the resource that ends it."""

from __future__ import annotations

import logging
from typing import Any, Final

from aiohttp import web

from lipstream.engine.errors import HttpError
from lipstream.engine.types import SAMPLE_RATE_HZ
from lipstream.streaming import trace
from lipstream.streaming.server.rooms import Room, Rooms
from lipstream.streaming.webrtc.ice_restart import MEDIA_TYPE
from lipstream.streaming.webrtc.ice_servers import IceServer
from lipstream.streaming.webrtc.peer import Peer, PeerOptions

logger = logging.getLogger(__name__)

_EXPOSED: Final = "ETag, Link, Lipstream-Resume, Lipstream-Resumed, Lipstream-Trace, Location"
_SAMPLES_PER_MS: Final = SAMPLE_RATE_HZ // 1000


class Endpoint:
    """Takes offers, and says beforehand what it takes."""

    def __init__(self, ice_servers: tuple[IceServer, ...], max_sdp_bytes: int) -> None:
        self.ice_servers = ice_servers
        self._max_sdp_bytes = max_sdp_bytes

    async def read_offer(self, request: web.Request) -> str:
        """The SDP of a request.

        Raises:
            HttpError: wrong type, too large, or not text.
        """
        return await self.read(request, "application/sdp")

    async def read(self, request: web.Request, content_type: str) -> str:
        """The text of a request.

        Raises: HttpError as `read_offer`.
        """
        if request.content_type != content_type:
            raise HttpError(415, f"got {request.content_type}, expected {content_type}")
        body = await request.content.read(self._max_sdp_bytes + 1)
        while len(body) <= self._max_sdp_bytes and not request.content.at_eof():
            body += await request.content.read(self._max_sdp_bytes + 1 - len(body))
        if len(body) > self._max_sdp_bytes:
            raise HttpError(413, f"the offer is over {self._max_sdp_bytes} bytes")
        try:
            return body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise HttpError(400, "the offer is not UTF-8 text") from error

    async def describe(self, request: web.Request) -> web.Response:
        """OPTIONS on an endpoint: what it accepts, and the ICE servers before an offer is made."""
        response = web.Response(status=204, headers={"Accept-Post": "application/sdp"})
        self._link(response)
        return response

    def _link(self, response: web.Response) -> None:
        for server in self.ice_servers:
            for link in server.links():
                response.headers.add("Link", link)


class Signalling(Endpoint):
    """Connects offers to conversations."""

    def __init__(
        self, rooms: Rooms, ice_servers: tuple[IceServer, ...], max_sdp_bytes: int
    ) -> None:
        super().__init__(ice_servers, max_sdp_bytes)
        self.rooms = rooms

    async def connect(
        self, request: web.Request, offer: str, options: PeerOptions, room_name: str | None
    ) -> web.Response:
        """201 with the answer.

        Raises:
            LipstreamError: no such target, no room, an offer that cannot be answered.
        """
        token = request.headers.get("Lipstream-Resume")
        kept = None
        if token is not None:
            kept = await self.rooms.resume(token, request.query.get("target", ""))
        room = kept or await enter(self.rooms, request, room_name)
        key: str | None = None
        end_reason: str | None = None

        def ended(reason: str) -> None:
            nonlocal end_reason
            end_reason = reason
            logger.info("a peer of %s left: %s", room.target, reason)
            if key is not None:
                self.rooms.leave_soon(key, reason, keep=peer.is_lost)

        peer = Peer(room.feed, options, ended)
        try:
            answer = await peer.answer(offer)
        except BaseException:  # a client that goes away cancels us here
            try:
                await peer.close()
            finally:
                await self.rooms.leave_unjoined(room)
            raise
        key = self.rooms.join(room, peer)
        if end_reason is not None:  # it ended while it was answered
            self.rooms.leave_soon(key, end_reason)
        response = web.Response(status=201, text=answer, content_type="application/sdp")
        response.headers["Location"] = f"/sessions/{key}"
        response.headers["ETag"] = peer.ice_tag
        response.headers["Lipstream-Resume"] = self.rooms.resume_token(room, key)
        if token is not None:
            response.headers["Lipstream-Resumed"] = "no" if kept is None else "yes"
        response.headers["Access-Control-Expose-Headers"] = _EXPOSED
        self._link(response)
        return response

    def routes(self) -> list[web.RouteDef]:
        """What can be done with a connection once it exists."""
        path = "/sessions/{key}"
        return [
            web.get(path, self._show),
            web.delete(path, self._end),
            web.post(path + "/interrupt", self._interrupt),
            web.patch(path, self._patch),
        ]

    def _room(self, request: web.Request) -> Room:
        key = request.match_info["key"]
        room = self.rooms.find(key)
        if room is None:
            reason = self.rooms.why_left(key)
            if reason is None:
                raise HttpError(404, "no such session")
            status = 404 if self.rooms.may_return(key) else 410
            raise HttpError(status, f"this session has ended: {reason}")
        trace.continue_with(room.trace)
        return room

    async def _show(self, request: web.Request) -> web.Response:
        return web.json_response(statistics(self._room(request)))

    async def _end(self, request: web.Request) -> web.Response:
        self._room(request)
        await self.rooms.leave(request.match_info["key"], "the client ended it")
        return web.Response(status=200)

    async def _interrupt(self, request: web.Request) -> web.Response:
        return web.json_response({"played_ms": round(self._room(request).runner.interrupt())})

    async def _patch(self, request: web.Request) -> web.Response:
        """ICE restart (RFC 9725 4.3.3). There is no trickle ICE: the answer has every candidate."""
        peer = self._room(request).members[request.match_info["key"]]
        if not isinstance(peer, Peer):
            raise HttpError(405, "this session has no ICE")
        fragment = await self.read(request, MEDIA_TYPE)
        condition = request.headers.get("If-Match")
        if condition is None:
            raise HttpError(428, 'expected If-Match: "*" and an ICE restart')
        if condition.strip('"') != "*":
            if condition != peer.ice_tag:
                raise HttpError(412, "the ICE session of this ETag is over")
            raise HttpError(422, "no trickle ICE: the answer has every candidate")
        answer, tag = await peer.answer_restart(fragment)
        response = web.Response(text=answer, content_type=MEDIA_TYPE, headers={"ETag": tag})
        response.headers["Access-Control-Expose-Headers"] = _EXPOSED
        return response


async def enter(rooms: Rooms, request: web.Request, name: str | None) -> Room:
    """A place in the conversation that a request asks for.

    Raises:
        HttpError: no target in the query, or a name that is too long.
        LipstreamError: as `Rooms.enter`.
    """
    return await rooms.enter(*asked_for(request, name))


def asked_for(request: web.Request, name: str | None) -> tuple[str, str | None]:
    """The target of a request, and `name`.

    Raises: HttpError as `enter`.
    """
    target = request.query.get("target")
    if not target:
        raise HttpError(400, "which target? expected ?target=NAME; /api/targets lists them")
    if name is not None and not (len(name) <= 64 and name.isprintable()):
        raise HttpError(400, "a session's name has at most 64 printable characters")
    return target, name


def session_name(request: web.Request, private: bool = False) -> str | None:
    """The conversation that a request asks for; a private one without a name has None."""
    name = request.query.get("session")
    return None if private and name is None else name or request.query.get("target")


def statistics(room: Room) -> dict[str, Any]:
    """What the page's meter and an operator see of a conversation; openapi.json, `Session`."""
    runner, counters = room.runner, room.runner.counters
    compute = sorted(counters.compute_ms)
    heard_s = runner.last_audio_s
    return {
        "session": room.name,
        "target": room.target,
        "age_s": round(room.age_s, 1),
        "members": len(room.members),
        "watermark": runner.marker.session_hex,
        "label": runner.marker.marking.label,
        "engine_delay_ms": room.engine.delay_ms,
        "playout_delay_ms": runner.options.playout_delay_ms,
        "compute_ms_p95": round(compute[int(0.95 * len(compute))], 2) if compute else None,
        "source_ppm": round(counters.source_ppm, 1),
        "source_margin_ms": round(1000 * counters.source_margin_s),
        "frames": counters.frames,
        "key_frames": room.feed.key_frames,
        "late_frames": counters.late_frames,
        "dropped_frames": counters.dropped_frames,
        "repeated_frames": counters.repeated_frames,
        "queued_sound_ms": counters.queue_depth // _SAMPLES_PER_MS,
        "dropped_sound_ms": counters.dropped_samples // _SAMPLES_PER_MS,
        "skipped_ms": counters.slipped_samples // _SAMPLES_PER_MS,
        "since_audio_ms": None if heard_s is None else round(1000 * (runner.clock.now() - heard_s)),
        "speaking": runner.speaking,
        "played_ms": round(runner.played_ms()),
    }
