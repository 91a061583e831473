"""WHIP (RFC 9725): a voice comes in; and the page's call, where the picture goes back at once.

One POST with an offer, answered 201 with the answer and a Location; DELETE on that ends it. An
offer that also receives (sound `sendrecv`, video `recvonly`) is a call: it gets the avatar in the
same connection and a conversation of its own. An offer that only sends feeds the conversation
named by `session` (by default the target's name), which WHEP viewers watch.
"""

from __future__ import annotations

from aiohttp import web

from lipstream.streaming.server.signalling import Signalling, session_name
from lipstream.streaming.webrtc.offer import receives
from lipstream.streaming.webrtc.peer import PeerOptions


def routes(signalling: Signalling) -> list[web.RouteDef]:
    """POST /whip?target=NAME, and OPTIONS for what it accepts."""

    async def whip(request: web.Request) -> web.Response:
        offer = await signalling.read_offer(request)
        is_call = receives(offer)
        options = PeerOptions(listens=True, shows=is_call, ice_servers=signalling.ice_servers)
        return await signalling.connect(request, offer, options, session_name(request, is_call))

    return [web.post("/whip", whip), web.options("/whip", signalling.describe)]
