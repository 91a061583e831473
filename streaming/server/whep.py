"""WHEP (draft-ietf-wish-whep): any player watches a conversation.

The viewer joins the conversation named by `session`, by default the target's name, and begins it
if it is the first: without a voice it shows the target at rest.
"""

from __future__ import annotations

from aiohttp import web

from lipstream.streaming.server.signalling import Signalling, session_name
from lipstream.streaming.webrtc.peer import PeerOptions


def routes(signalling: Signalling) -> list[web.RouteDef]:
    """POST /whep?target=NAME, and OPTIONS for what it accepts."""

    async def whep(request: web.Request) -> web.Response:
        offer = await signalling.read_offer(request)
        options = PeerOptions(listens=False, shows=True, ice_servers=signalling.ice_servers)
        return await signalling.connect(request, offer, options, session_name(request))

    return [web.post("/whep", whep), web.options("/whep", signalling.describe)]
