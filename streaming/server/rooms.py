"""The conversations of the server, and who takes part in them."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from lipstream.engine.errors import ServerBusy, SessionConflict
from lipstream.streaming import trace
from lipstream.streaming.background_tasks import BackgroundTasks
from lipstream.streaming.server.admission import Admission
from lipstream.streaming.server.resumption import KEEP_S, Places
from lipstream.streaming.session.gc_policy import collect, trim
from lipstream.streaming.session.live_engine import LiveEngine
from lipstream.streaming.session.runner import RunnerOptions, SessionRunner
from lipstream.streaming.webrtc.h264 import Encoding, PictureFormat
from lipstream.streaming.webrtc.video_feed import VideoFeed

logger = logging.getLogger(__name__)

_MAX_REASONS: Final = 256
_TRIM_INTERVAL_S: Final = 60.0
_SILENT_S: Final = 3.5  # so long without an answer, a conversation gives way to a new one


class Member(Protocol):
    """A participant of a conversation: a WebRTC peer, a WebSocket."""

    @property
    def silent_s(self) -> float:
        """How long the other side has answered nothing."""
        ...

    async def close(self, reason: str) -> None:
        """End its connection, and tell the other side why where that is possible."""
        ...


@dataclass(slots=True, eq=False)
class Room:
    """One conversation and its members; it ends when the last one leaves."""

    name: str
    target: str
    engine: LiveEngine  # in use for as long as the conversation lasts
    runner: SessionRunner
    feed: VideoFeed
    members: dict[str, Member] = field(default_factory=dict)
    joining: int = 0  # members that have entered and not joined yet
    began_s: float = field(init=False)  # by the runner's clock
    trace: str = field(default_factory=lambda: trace.current() or trace.begin())

    def __post_init__(self) -> None:
        self.began_s = self.runner.clock.now()

    @property
    def age_s(self) -> float:
        """Time since it began."""
        return self.runner.clock.now() - self.began_s


class Rooms:
    """Every conversation of the server. Used on the event loop only."""

    def __init__(
        self,
        engine: Callable[[str], Awaitable[LiveEngine]],
        capacity: int,
        members_capacity: int = 16,
        options: RunnerOptions | None = None,
        encoding: Encoding | None = None,
        admission: Admission | None = None,
    ) -> None:
        """`capacity`: conversations at most; `members_capacity`: members of each."""
        self._admission = admission
        self._engine = engine
        self._capacity = capacity
        self._members_capacity = members_capacity
        self._options = options
        self._encoding = encoding
        self._rooms: dict[str, Room] = {}
        self._entry = asyncio.Lock()
        self._reasons: dict[str, str] = {}  # why each of the last members left
        self._places: Places[Room] = Places()
        self._departures = BackgroundTasks()
        self._expiries = BackgroundTasks()
        self._trimming = BackgroundTasks()
        self._trimmer: asyncio.Task[None] | None = None
        self._closed = False
        self.opened = 0  # conversations ever begun
        self.emptied: Callable[[], None] = lambda: None  # called when a conversation has ended

    def __iter__(self) -> Iterator[Room]:
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
            ServerBusy: too many conversations, too many members in this one, or the server stops.
            SessionConflict: the conversation of this name speaks as another target.
            LipstreamError: the target cannot be loaded.
        """
        engine = await self._engine(target)  # outside the lock: loading delays nobody else
        async with self._entry:
            if self._closed:
                raise ServerBusy("the server stops")
            room = self._rooms.get(name) if name else None
            if room is not None and room.target != target:
                raise SessionConflict(f"session {name!r} speaks as {room.target!r}, not {target!r}")
            if room is None:
                if len(self._rooms) >= self._capacity:
                    await self._make_way()
                room = self._open(target, name or secrets.token_urlsafe(12), engine)
            if len(room.members) + room.joining >= self._members_capacity:
                raise ServerBusy(
                    f"session {room.name!r} has {self._members_capacity} members; try again later"
                )
            room.joining += 1
            trace.continue_with(room.trace)
            return room

    def _open(self, target: str, name: str, engine: LiveEngine) -> Room:
        if len(self._rooms) >= self._capacity:
            raise ServerBusy(f"{self._capacity} conversations are going on; try again later")
        if self._admission is not None:
            self._admission.check(engine, self._rooms.values())
        runner = SessionRunner(engine, self._options)
        runner.start()
        room = Room(
            name,
            target,
            engine,
            runner,
            VideoFeed(runner, self._encoding, PictureFormat.of(engine)),
        )
        self._rooms[name] = room
        self.opened += 1
        logger.info("a conversation of %s begins", target)
        if self._trimmer is None or self._trimmer.done():
            self._trimmer = self._trimming.start(self._trim(), "return of free memory")
        return room

    def join(self, room: Room, member: Member) -> str:
        """Take part; returns the secret key to leave by."""
        room.joining -= 1
        key = secrets.token_urlsafe(18)
        room.members[key] = member
        return key

    def resume_token(self, room: Room, key: str) -> str:
        """A secret by which this member can come back for 30 s after its connection is lost."""
        return self._places.offer(room, key)

    def may_resume(self, token: str) -> bool:
        """Whether a token leads to a conversation that goes on."""
        place = self._places.find(token)
        return place is not None and self._rooms.get(place.room.name) is place.room

    async def resume(self, token: str, target: str) -> Room | None:
        """A place in the conversation that a token was given for; None when it has ended.

        As with `enter`, who gets one joins or gives it back. A member that is still there is lost
        without knowing it, and leaves.
        """
        place = self._places.find(token)
        if place is None or place.room.target != target or self._closed:
            return None
        room = place.room
        if self._rooms.get(room.name) is not room or room.runner.error is not None:
            return None
        room.joining += 1
        trace.continue_with(room.trace)
        self._places.drop(place.key)
        if place.key in room.members:
            await self.leave(place.key, "it came back by another connection")
        return room

    async def _make_way(self) -> None:
        """End the conversation that has been without any answer the longest, if there is one."""
        silent = [(self._silent_s(room), room) for room in self]
        silence_s, room = max(silent, key=lambda pair: pair[0])
        if silence_s >= _SILENT_S:
            await self._leave_all(room, "another call needed its place")

    def _silent_s(self, room: Room) -> float:
        """How long nobody of a conversation has answered; longest where nobody is there."""
        if room.joining or room.members:
            return 0.0 if room.joining else min(one.silent_s for one in room.members.values())
        now_s = asyncio.get_running_loop().time()
        left_s = [place.expires_s - now_s for place in self._places.kept(room) if place.expires_s]
        return _SILENT_S + KEEP_S - max(left_s, default=0.0)

    async def _leave_all(self, room: Room, reason: str) -> None:
        for place in self._places.kept(room):
            self._reasons[place.key] = reason
            self._places.drop(place.key)
        for key in tuple(room.members):
            await self.leave(key, reason)
        await self._end(room)  # also one that its first member has not joined yet

    async def leave_unjoined(self, room: Room) -> None:
        """Give back the place of one that entered and could not join."""
        room.joining -= 1
        await self._end_if_empty(room)

    async def leave(self, key: str, reason: str, keep: bool = False) -> bool:
        """Leave; ends the conversation when nobody is left. False when there is no such member.

        `keep`: its connection was lost. For 30 s since then it can come back by its token.
        """
        room = self.find(key)
        if room is None:
            return False
        member = room.members.pop(key)
        kept_s = KEEP_S - member.silent_s
        if keep and kept_s > 0 and not self._closed:
            until_s = asyncio.get_running_loop().time() + kept_s
            if self._places.keep(key, until_s):
                self._expiries.start(self._expire(room, key, kept_s), "end of a kept place")
        else:
            self._places.drop(key)
        self._reasons[key] = reason
        if len(self._reasons) > _MAX_REASONS:
            del self._reasons[next(iter(self._reasons))]
        try:
            await member.close(reason)
        except Exception:
            logger.exception("a member of %s could not be closed", room.target)
        finally:
            await self._end_if_empty(room)
        return True

    def why_left(self, key: str) -> str | None:
        """The reason, for one of the last members that left."""
        return self._reasons.get(key)

    def may_return(self, key: str) -> bool:
        """Whether a member that left may come back: here, or where this server starts again."""
        return self._closed or self._places.keeps(key)

    def leave_soon(self, key: str, reason: str, keep: bool = False) -> None:
        """`leave`, from a callback."""
        self._departures.start(self.leave(key, reason, keep), "departure of a member")

    async def _expire(self, room: Room, key: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._places.drop(key)
        await self._end_if_empty(room)

    async def _end_if_empty(self, room: Room) -> None:
        if not room.members and not room.joining and not self._places.kept(room):
            await self._end(room)

    async def _end(self, room: Room) -> None:
        """Free the slot, and end the conversation's thread."""
        if self._rooms.get(room.name) is not room:
            return
        del self._rooms[room.name]
        for work in (room.runner.close, collect):
            try:
                await asyncio.to_thread(work)
            except Exception:
                logger.exception("a conversation of %s did not end cleanly", room.target)
        self.emptied()

    async def _trim(self) -> None:
        """While a conversation goes on: bursts leave free memory scattered, and it adds up."""
        while self._rooms:
            await asyncio.sleep(_TRIM_INTERVAL_S)
            await asyncio.to_thread(trim)  # without a collection, which would hold sound up

    async def close(self) -> None:
        """End every conversation, whatever fails on the way, and let nobody enter."""
        self._closed = True
        await self._trimming.cancel()
        for room in self:
            await self._leave_all(room, "the server stops")
        await self._expiries.cancel()
        await self._departures.finish()
