"""One conversation too many is refused by what the others cost."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("aiortc", reason="aiortc is not installed")

from lipstream.engine.errors import ServerBusy  # noqa: E402
from lipstream.streaming.server import admission as module  # noqa: E402
from lipstream.streaming.server.admission import Admission  # noqa: E402
from tests.streaming.live_engine import LiveFakeEngine  # noqa: E402
from tests.streaming.server.fake_server import SDP, server  # noqa: E402
from tests.streaming.webrtc.client import Client  # noqa: E402

ENGINE = LiveFakeEngine()


def room(age_s: float, cpu_s: float = 0.0, compute_ms: float = 5.0) -> Any:
    counters = SimpleNamespace(cpu_s=cpu_s, compute_ms=[compute_ms] * 100)
    return SimpleNamespace(age_s=age_s, engine=ENGINE, runner=SimpleNamespace(counters=counters))


def admission(cores: float, budget_cores: float = 1.7) -> Admission:
    return Admission(budget_cores, lambda engine: cores)


def test_conversations_begin_until_the_cores_are_used() -> None:
    """By the warm-up while they are new: all may come within a second."""
    rooms: list[Any] = []
    with pytest.raises(ServerBusy, match=r"about 0\.48 cores, and 3 use 1\.44 of 1\.70"):
        while len(rooms) < 10:
            admission(0.4).check(ENGINE, rooms)
            rooms.append(room(0.1))
    assert len(rooms) == 3


def test_what_a_conversation_is_measured_to_take_counts_more_than_its_warm_up() -> None:
    admission(0.7).check(ENGINE, [room(10.0, cpu_s=2.0)] * 4)  # 0.2 each, not 0.78
    with pytest.raises(ServerBusy, match=r"2 use 1\.80"):
        admission(0.1).check(ENGINE, [room(10.0, cpu_s=9.0)] * 2)


def test_the_first_conversation_is_never_refused() -> None:
    admission(5.0).check(ENGINE, [])


def test_conversations_that_are_held_up_by_something_else_count_as_a_busy_machine() -> None:
    admission(0.1).check(ENGINE, [room(10.0, 1.0, compute_ms=15.0)])
    with pytest.raises(ServerBusy, match="85 % of its time"):
        admission(0.1).check(ENGINE, [room(10.0, 1.0, compute_ms=17.0)])
    admission(0.1).check(ENGINE, [room(1.0, 1.0, compute_ms=40.0)])  # its first frames are slow


def test_one_process_is_not_given_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "usable_cores", lambda: 8)
    budgets = [Admission.for_processes(n, lambda engine: 0.0).budget_cores for n in (0, 1, 4, 16)]
    assert budgets == pytest.approx([0.85 * 1.4, 0.85, 0.85 * 4, 0.85 * 8])


def test_the_refusal_has_a_reason_and_a_time_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MEASURED_S", 60.0)  # a slow test is no measured conversation

    async def test() -> None:
        async with server(sessions=8, cores=lambda engine: 0.7) as http:
            first, second = Client(), Client()
            answer = await http.post("/whip?target=face", data=await first.offer(), headers=SDP)
            assert answer.status == 201
            refused = await http.post("/whip?target=face", data=await second.offer(), headers=SDP)
            assert refused.status == 503 and int(refused.headers["Retry-After"]) > 0
            assert "0.78 cores" in (await refused.json())["error"]
            joined = await http.post("/whep?target=face", data=await second.offer(), headers=SDP)
            assert joined.status == 503, "a conversation of its own"
            place = answer.headers["Location"]
            assert (await http.delete(place)).status == 200
            again = await http.post("/whip?target=face", data=await second.offer(), headers=SDP)
            assert again.status == 201
            await first.close()
            await second.close()

    asyncio.run(test())
