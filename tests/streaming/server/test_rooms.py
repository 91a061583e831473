"""Conversations begin, share and end; what fails to end leaves no thread and no slot."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("aiortc", reason="aiortc is not installed")

from lipstream.engine.errors import ServerBusy, SessionConflict  # noqa: E402
from lipstream.streaming.server import rooms as rooms_module  # noqa: E402
from lipstream.streaming.server.rooms import Rooms  # noqa: E402
from lipstream.streaming.session.live_engine import LiveEngine  # noqa: E402
from tests.streaming.live_engine import LiveFakeEngine  # noqa: E402
from tests.streaming.waiting import eventually  # noqa: E402


class FakeMember:
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.closed = False
        self.reason = ""
        self.silent_s = 0.0

    async def close(self, reason: str) -> None:
        self.closed, self.reason = True, reason
        if self.error is not None:
            raise self.error


async def fake_engine(name: str) -> LiveEngine:
    return LiveFakeEngine()


def session_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "lipstream-session"]


def test_a_member_that_cannot_be_closed_frees_its_slot_and_its_thread(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        rooms = Rooms(fake_engine, capacity=1)
        key = rooms.join(await rooms.enter("face"), FakeMember(OSError("broken pipe")))
        assert await rooms.leave(key, "the client ended it")
        assert (len(rooms), session_threads()) == (0, [])
        assert rooms.why_left(key) == "the client ended it"
        await rooms.leave_unjoined(await rooms.enter("face"))  # the slot is free
        await rooms.close()

    with caplog.at_level(logging.ERROR):
        asyncio.run(test())
    assert "broken pipe" in caplog.text


def test_close_ends_every_conversation_though_members_fail() -> None:
    async def test() -> None:
        rooms = Rooms(fake_engine, capacity=4)
        members = [FakeMember(OSError("broken pipe")), FakeMember(ValueError()), FakeMember()]
        for member in members:
            rooms.join(await rooms.enter("face"), member)
        both = await rooms.enter("face", "both")
        rooms.join(both, FakeMember(OSError()))
        rooms.join(both, last := FakeMember())
        await rooms.close()
        assert all(member.closed for member in members) and last.closed
        assert (len(rooms), session_threads()) == (0, [])

    asyncio.run(test())


def test_close_ends_a_conversation_that_nobody_has_joined_yet() -> None:
    async def test() -> None:
        rooms = Rooms(fake_engine, capacity=1)
        room = await rooms.enter("face")
        await rooms.close()
        assert (len(rooms), session_threads()) == (0, [])
        await rooms.leave_unjoined(room)  # as a client does that comes too late
        with pytest.raises(ServerBusy, match="the server stops"):
            await rooms.enter("face")

    asyncio.run(test())


def test_a_runner_that_cannot_be_closed_frees_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        rooms = Rooms(fake_engine, capacity=1)
        room = await rooms.enter("face")
        close = room.runner.close

        def fail() -> None:
            close()
            raise RuntimeError("scripted failure")

        monkeypatch.setattr(room.runner, "close", fail)
        await rooms.leave_unjoined(room)
        assert list(rooms) == [], "the slot is free"
        await rooms.leave_unjoined(await rooms.enter("face"))
        await rooms.close()

    asyncio.run(test())


def test_limits_are_refused_by_type() -> None:
    async def test() -> None:
        rooms = Rooms(fake_engine, capacity=1, members_capacity=1)
        room = await rooms.enter("face", "talk")
        with pytest.raises(ServerBusy, match="1 members"):
            await rooms.enter("face", "talk")
        with pytest.raises(ServerBusy, match="1 conversations"):
            await rooms.enter("face", "another")
        with pytest.raises(SessionConflict, match="speaks as 'face', not 'other'"):
            await rooms.enter("other", "talk")
        await rooms.leave_unjoined(room)
        await rooms.close()

    asyncio.run(test())


def test_a_target_that_loads_holds_up_nobody_else() -> None:
    async def test() -> None:
        asked, loading = asyncio.Event(), asyncio.Event()

        async def engine(name: str) -> LiveEngine:
            if name == "slow":
                asked.set()
                await loading.wait()
            return LiveFakeEngine()

        rooms = Rooms(engine, 4)
        slow = asyncio.create_task(rooms.enter("slow"))
        await asyncio.wait_for(asked.wait(), 2)
        quick = await asyncio.wait_for(rooms.enter("quick"), 2)
        assert not slow.done()
        loading.set()
        for room in (quick, await slow):
            await rooms.leave_unjoined(room)
        assert len(rooms) == 0

    asyncio.run(test())


def test_free_memory_is_returned_while_a_conversation_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[float] = []
    monkeypatch.setattr(rooms_module, "_TRIM_INTERVAL_S", 0.02)
    monkeypatch.setattr(rooms_module, "trim", lambda: given.append(time.monotonic()))

    async def test() -> None:
        async def engine(name: str) -> LiveEngine:
            return LiveFakeEngine()

        rooms = Rooms(engine, 4)
        for _ in range(2):  # the second conversation begins after the first one's end
            given.clear()
            room = await rooms.enter("face")
            await eventually(lambda: len(given) > 2)
            await rooms.leave_unjoined(room)
            trimmer = rooms._trimmer
            assert trimmer is not None
            await asyncio.wait_for(trimmer, 5)  # it ends with the last conversation
        await rooms.close()

    asyncio.run(test())
