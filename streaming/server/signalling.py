"""What WHIP and WHEP have in common: offer in, answer out, and the resource that ends it."""

from __future__ import annotations

import logging
import time
from typing import Any

from aiohttp import web

from lipstream.engine.errors import HttpError, NoFreePort, ServerBusy, TargetError, UsageError
from lipstream.streaming.server.rooms import Room, Rooms
from lipstream.streaming.webrtc.ice_servers import IceServer
from lipstream.streaming.webrtc.peer import Peer, PeerOptions

logger = logging.getLogger(__name__)


class Signalling:
    """Connects offers to conversations."""

    def __init__(
        self, rooms: Rooms, ice_servers: tuple[IceServer, ...], max_sdp_bytes: int
    ) -> None:
        self.rooms = rooms
        self.ice_servers = ice_servers
        self._max_sdp_bytes = max_sdp_bytes

    async def read_offer(self, request: web.Request) -> str:
        """The SDP of a request.

        Raises:
            Refused: wrong type, too large, or not text.
        """
        if request.content_type != "application/sdp":
            raise HttpError(415, f"got {request.content_type}, expected application/sdp")
        body = await request.content.read(self._max_sdp_bytes + 1)
        while len(body) <= self._max_sdp_bytes and not request.content.at_eof():
            body += await request.content.read(self._max_sdp_bytes + 1 - len(body))
        if len(body) > self._max_sdp_bytes:
            raise HttpError(413, f"the offer is over {self._max_sdp_bytes} bytes")
        try:
            return body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise HttpError(400, "the offer is not UTF-8 text") from error

    async def connect(
        self, request: web.Request, offer: str, options: PeerOptions, room_name: str | None
    ) -> web.Response:
        """201 with the answer.

        Raises:
            Refused: no such target, no room, an offer that cannot be answered.
        """
        room = await enter(self.rooms, request, room_name)
        key: list[str] = []

        def ended(reason: str) -> None:
            logger.info("a peer of %s left: %s", room.target, reason)
            for known in key:
                self.rooms.leave_soon(known, reason)

        peer = Peer(room.feed, options, ended)
        try:
            answer = await peer.answer(offer)
        except BaseException as error:  # a client that goes away cancels us here
            await peer.close()
            await self.rooms.leave_unjoined(room)
            if isinstance(error, UsageError):
                raise HttpError(400, str(error)) from error
            if isinstance(error, NoFreePort):
                raise HttpError(503, str(error)) from error
            raise
        key.append(self.rooms.join(room, peer))
        response = web.Response(status=201, text=answer, content_type="application/sdp")
        response.headers["Location"] = f"/sessions/{key[0]}"
        self._link(response)
        return response

    async def describe(self, request: web.Request) -> web.Response:
        """OPTIONS on an endpoint: what it takes, and the ICE servers before an offer is made."""
        response = web.Response(status=204, headers={"Accept-Post": "application/sdp"})
        self._link(response)
        return response

    def _link(self, response: web.Response) -> None:
        for server in self.ice_servers:
            for link in server.links():
                response.headers.add("Link", link)

    def routes(self) -> list[web.RouteDef]:
        """What can be done with a connection once it is there."""
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
            raise HttpError(
                404, f"this session has ended: {reason}" if reason else "no such session"
            )
        return room

    async def _show(self, request: web.Request) -> web.Response:
        return web.json_response(figures(self._room(request)))

    async def _end(self, request: web.Request) -> web.Response:
        self._room(request)
        await self.rooms.leave(request.match_info["key"], "the client ended it")
        return web.Response(status=200)

    async def _interrupt(self, request: web.Request) -> web.Response:
        return web.json_response({"played_ms": round(self._room(request).runner.interrupt())})

    async def _patch(self, request: web.Request) -> web.Response:
        raise HttpError(405, "no trickle ICE and no restarts: the answer has every candidate")


async def enter(rooms: Rooms, request: web.Request, name: str | None) -> Room:
    """A place in the conversation that a request asks for.

    Raises:
        Refused: with the status that fits.
    """
    target = request.query.get("target")
    if not target:
        raise HttpError(400, "which target? expected ?target=NAME; /api/targets lists them")
    if name is not None and not (len(name) <= 64 and name.isprintable()):
        raise HttpError(400, "a session's name has at most 64 printable characters")
    try:
        return await rooms.enter(target, name)
    except ServerBusy as error:
        raise HttpError(503, str(error)) from error
    except TargetError as error:
        raise HttpError(500, str(error)) from error
    except UsageError as error:
        raise HttpError(404 if "no target" in str(error) else 409, str(error)) from error


def figures(room: Room) -> dict[str, Any]:
    """What the page's meter and a curious person want to know about a conversation."""
    runner, counters = room.runner, room.runner.counters
    compute = sorted(counters.compute_ms)
    heard_s = runner.last_audio_s
    return {
        "session": room.name,
        "target": room.target,
        "age_s": round(time.monotonic() - room.began_s, 1),
        "members": len(room.members),
        "engine_delay_ms": room.delay_ms,
        "lead_ms": runner.options.playout_delay_ms,
        "compute_ms_p95": round(compute[int(0.95 * len(compute))], 2) if compute else None,
        "source_ppm": round(counters.source_ppm, 1),
        "frames": counters.frames,
        "key_frames": room.feed.key_frames,
        "late_frames": counters.late_frames,
        "dropped_frames": counters.dropped_frames,
        "unpainted_frames": counters.repeated_frames,
        "queued_sound_ms": counters.queue_depth // 16,
        "dropped_sound_ms": counters.dropped_samples // 16,
        "skipped_ms": counters.slipped_samples // 16,
        "unheard_ms": None if heard_s is None else round(1000 * (runner.clock.now() - heard_s)),
        "speaking": runner.speaking,
        "played_ms": round(runner.played_ms()),
    }
