"""Two hundred calls that are lost, taken up again and ended, on a scripted clock."""

from __future__ import annotations

import asyncio
import threading

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("aiortc", reason="aiortc is not installed")

from lipstream.streaming.server import rooms as rooms_module  # noqa: E402
from lipstream.streaming.server.resumption import KEEP_S  # noqa: E402
from lipstream.streaming.server.rooms import Rooms  # noqa: E402
from lipstream.streaming.session.live_engine import LiveEngine  # noqa: E402
from tests.clock import ScriptedClock  # noqa: E402
from tests.streaming.live_engine import LiveFakeEngine  # noqa: E402


class Caller:
    """A member whose network may go away."""

    def __init__(self, silent_s: float = 0.0) -> None:
        self.silent_s = silent_s

    async def close(self, reason: str) -> None:
        pass


async def fake_engine(name: str) -> LiveEngine:
    return LiveFakeEngine()


def threads() -> int:
    return sum(t.name == "lipstream-session" for t in threading.enumerate())


def test_two_hundred_calls_with_outages_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each four: resumed while it is there, resumed after, never resumed, ended."""
    monkeypatch.setattr(rooms_module, "collect", lambda: None)  # 0.1 s each

    async def test() -> None:
        rooms = Rooms(fake_engine, capacity=4)
        for k in range(200):
            room = await rooms.enter("face")
            key = rooms.join(room, Caller(silent_s=4.0))
            token = rooms.resume_token(room, key)
            if k % 4 == 3:
                await rooms.leave(key, "the client ended it")
                assert await rooms.resume(token, "face") is None
                continue
            if k % 4:
                await rooms.leave(key, "connection failed", keep=True)
                assert room in list(rooms)
            if k % 4 == 2:
                await asyncio.sleep(KEEP_S - 4.0 + 0.1)
                assert await rooms.resume(token, "face") is None
                continue
            assert await rooms.resume(token, "another") is None
            assert await rooms.resume(token, "face") is room
            again = rooms.join(room, Caller())
            assert await rooms.resume(token, "face") is None, "once"
            await rooms.leave(again, "the client ended it")
        assert (len(rooms), threads()) == (0, 0)
        await rooms.close()
        assert rooms._places._places == {}
        assert len(asyncio.all_tasks()) == 1

    ScriptedClock(threads="none of them").run(test())
