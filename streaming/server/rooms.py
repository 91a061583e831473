"""The conversations that go on, and who takes part in them."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from lipstream.engine.errors import ServerBusy, UsageError
from lipstream.streaming.session.gc_policy import collect, trim
from lipstream.streaming.session.live_engine import LiveEngine
from lipstream.streaming.session.runner import RunnerOptions, SessionRunner
from lipstream.streaming.webrtc.h264 import Encoding
from lipstream.streaming.webrtc.video_feed import VideoFeed

logger = logging.getLogger(__name__)

_REMEMBERED: Final = 256  # members that left, with the reason
_TIDY_S: Final = 60.0


class Closable(Protocol):
    """What takes part in a conversation: a WebRTC peer, a WebSocket."""

    async def close(self) -> None:
        """End it."""
        ...


@dataclass(slots=True, eq=False)
class Room:
    """One conversation and who takes part in it; it ends when the last one leaves."""

    name: str
    target: str
    delay_ms: float
    runner: SessionRunner
    feed: VideoFeed
    members: dict[str, Closable] = field(default_factory=dict)
    expected: int = 0  # members on their way in
    began_s: float = field(default_factory=time.monotonic)


class Rooms:
    """Every conversation of the server. Used on the event loop only."""

    def __init__(
        self,
        engine: Callable[[str], Awaitable[LiveEngine]],
        capacity: int,
        viewers_capacity: int = 16,
        options: RunnerOptions | None = None,
        encoding: Encoding | None = None,
    ) -> None:
        self._engine = engine
        self._capacity = capacity
        self._viewers_capacity = viewers_capacity
        self._options = options
        self._encoding = encoding
        self._rooms: dict[str, Room] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._entry = asyncio.Lock()
        self._reasons: dict[str, str] = {}  # why each of the last members left
        self._tidying: asyncio.Task[None] | None = None
        self.opened = 0  # ever

    def __iter__(self) -> Any:
        return iter(tuple(self._rooms.values()))

    def __len__(self) -> int:
        return len(self._rooms)

    def find(self, member: str) -> Room | None:
        """The room that a member is in."""
        return next((room for room in self._rooms.values() if member in room.members), None)

    async def enter(self, target: str, name: str | None = None) -> Room:
        """The conversation of this name, begun if there is none; a private one without a name.

        Whoever enters either joins (`join`) or gives the place back (`leave_unjoined`).

        Raises:
            ServerBusy: too many conversations, or too many in this one.
            LipstreamError: the target cannot be had.
        """
        engine = await self._engine(target)  # may take its time: nobody else's entry waits for it
        async with self._entry:
            room = self._rooms.get(name) if name else None
            if room is not None and room.target != target:
                raise UsageError(f"session {name!r} speaks as {room.target!r}, not {target!r}")
            if room is None:
                if len(self._rooms) >= self._capacity:
                    raise ServerBusy(
                        f"{self._capacity} conversations are going on; try again later"
                    )
                runner = SessionRunner(engine, self._options)
                runner.start()
                name = name or secrets.token_urlsafe(12)
                room = self._rooms[name] = Room(
                    name, target, engine.delay_ms, runner, VideoFeed(runner, self._encoding)
                )
                self.opened += 1
                if self._tidying is None or self._tidying.done():
                    self._tidying = asyncio.get_running_loop().create_task(self._tidy())
            if len(room.members) + room.expected >= self._viewers_capacity:
                raise ServerBusy(
                    f"{self._viewers_capacity} take part in {room.name!r}; try again later"
                )
            room.expected += 1
            return room

    def join(self, room: Room, member: Closable) -> str:
        """Take part; returns the secret name to leave by."""
        room.expected -= 1
        key = secrets.token_urlsafe(18)
        room.members[key] = member
        return key

    async def leave_unjoined(self, room: Room) -> None:
        """Entered, but could not join."""
        room.expected -= 1
        await self._end_if_empty(room)

    async def leave(self, key: str, reason: str) -> bool:
        """Leave; ends the conversation when nobody is left. False when there is no such member."""
        room = self.find(key)
        if room is None:
            return False
        member = room.members.pop(key)
        self._reasons[key] = reason
        if len(self._reasons) > _REMEMBERED:
            del self._reasons[next(iter(self._reasons))]
        await member.close()
        await self._end_if_empty(room)
        return True

    def why_left(self, key: str) -> str | None:
        """The reason, for one of the last members that left."""
        return self._reasons.get(key)

    def leave_soon(self, key: str, reason: str) -> None:
        """`leave`, from a callback."""

        async def leave() -> None:
            await self.leave(key, reason)

        task = asyncio.get_running_loop().create_task(leave())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end_if_empty(self, room: Room) -> None:
        if not room.members and not room.expected and self._rooms.get(room.name) is room:
            del self._rooms[room.name]
            await asyncio.to_thread(room.runner.close)
            await asyncio.to_thread(collect)

    async def _tidy(self) -> None:
        """While anybody talks: bursts leave free memory scattered, and hours of them add up."""
        while self._rooms:
            await asyncio.sleep(_TIDY_S)
            await asyncio.to_thread(trim)  # no collection: nobody's sound may wait for one

    async def close(self) -> None:
        """End all."""
        if self._tidying is not None:
            self._tidying.cancel()
        for room in self:
            for key in tuple(room.members):
                await self.leave(key, "the server stops")
        await asyncio.gather(*self._ending, return_exceptions=True)
