"""Where the conversations of a server go on: in this process, or in actors of a cluster."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

from aiohttp import web

from lipstream.streaming.server import websocket, whep, whip
from lipstream.streaming.server.metrics import Scrape, scrape
from lipstream.streaming.server.rooms import Rooms
from lipstream.streaming.server.signalling import Signalling, statistics


class Calls(Protocol):
    """What the site needs of the conversations."""

    def routes(self) -> list[web.RouteDef]:
        """WHIP, WHEP, the WebSocket, and what can be done with a connection."""
        ...

    async def sessions(self) -> list[dict[str, Any]]:
        """The statistics of each conversation."""
        ...

    async def scrapes(self) -> list[Scrape]:
        """What `/metrics` shows."""
        ...

    async def health(self) -> dict[str, Any] | None:
        """Whether new calls should come here: what `/healthz` says beside ok; None for no."""
        ...

    def siblings(self) -> Collection[str]:
        """Origins of the other nodes of the same service."""
        ...

    async def close(self) -> None:
        """End all of them."""
        ...


class LocalCalls:
    """Conversations of this very process."""

    def __init__(self, rooms: Rooms, signalling: Signalling) -> None:
        self.rooms, self._signalling = rooms, signalling

    def routes(self) -> list[web.RouteDef]:
        """As `Calls.routes`."""
        return [
            *self._signalling.routes(),
            *whip.routes(self._signalling),
            *whep.routes(self._signalling),
            *websocket.routes(self.rooms),
        ]

    async def sessions(self) -> list[dict[str, Any]]:
        """As `Calls.sessions`."""
        return [statistics(room) for room in self.rooms]

    async def scrapes(self) -> list[Scrape]:
        """As `Calls.scrapes`."""
        return [scrape(self.rooms)]

    async def health(self) -> dict[str, Any] | None:
        """As `Calls.health`."""
        return {}

    def siblings(self) -> Collection[str]:
        """As `Calls.siblings`: there are none."""
        return ()

    async def close(self) -> None:
        """As `Calls.close`."""
        await self.rooms.close()
