"""A voice over a WebSocket: its protocol, its limits, and conversations that fail."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("aiortc", reason="aiortc is not installed")

from aiohttp import WSMsgType  # noqa: E402

from lipstream.streaming.session.live_engine import LiveEngine  # noqa: E402
from tests.streaming.live_engine import LiveFakeEngine  # noqa: E402
from tests.streaming.server.fake_server import SDP, server  # noqa: E402
from tests.streaming.waiting import eventually  # noqa: E402
from tests.streaming.webrtc.client import Client  # noqa: E402


def test_a_voice_by_websocket_is_watched_by_whep() -> None:
    async def test() -> None:
        async with server() as http:
            viewer = Client(speaks=False)
            answer = await http.post("/whep?target=face", data=await viewer.offer(), headers=SDP)
            await viewer.accept(await answer.text())
            await eventually(lambda: viewer.pictures)
            async with http.ws_connect("/ws?target=face") as socket:
                await socket.send_json({"type": "start", "rate": 24_000})
                assert await socket.receive_json() == {"type": "started", "played_ms": 0}
                loud = (np.sin(np.arange(24_000 * 10)) * 30_000).astype("<i2")
                await socket.send_bytes(loud.tobytes())
                while (message := await socket.receive_json())["played_ms"] < 500:
                    assert message["type"] == "played"
                await socket.send_json({"type": "interrupt"})
                while (message := await socket.receive_json())["type"] == "played":
                    pass
                assert message["type"] == "interrupted"
                assert 500 <= message["played_ms"] < 2000
                await socket.send_json({"type": "start", "rate": 16_000})
                await socket.send_bytes(loud[: 16_000 // 2].tobytes())
                await socket.send_json({"type": "end"})
                messages = []
                while not messages or messages[-1]["type"] != "ended":
                    messages.append(await socket.receive_json())
                assert messages[-1]["played_ms"] == 500
            assert max(luma for _, luma in viewer.pictures) > 128
            await viewer.close()

    asyncio.run(test())


@pytest.mark.parametrize(
    "message, reason",
    [
        ("{}", "type"),
        ("nonsense", "type"),
        ("[1]", "type"),
        ('{"type": "start", "rate": 8000}', "16000, 24000, 48000"),
        ('{"type": "sing"}', "start, end or interrupt"),
        ('{"type": "end"}', "without start"),
        (b"\0\0", "outside a turn"),
    ],
)
def test_a_wrong_message_is_answered_and_the_socket_lives(
    message: str | bytes, reason: str
) -> None:
    async def test() -> None:
        async with server() as http, http.ws_connect("/ws?target=face") as socket:
            await (socket.send_bytes if isinstance(message, bytes) else socket.send_str)(message)  # type: ignore[operator]
            answer = await socket.receive_json()
            assert answer["type"] == "error" and reason in answer["reason"]
            await socket.send_json({"type": "start"})
            assert (await socket.receive_json())["type"] == "started"

    asyncio.run(test())


def test_a_socket_whose_conversation_fails_gets_the_reason_and_is_closed() -> None:
    async def engine(name: str) -> LiveEngine:
        return LiveFakeEngine(fail_after=5)

    async def test() -> None:
        async with server(engine=engine) as http, http.ws_connect("/ws?target=face") as socket:
            message = await asyncio.wait_for(socket.receive_json(), 5)
            assert message == {"type": "error", "reason": "ValueError: scripted failure"}
            assert (await asyncio.wait_for(socket.receive(), 5)).type is WSMsgType.CLOSE
            assert socket.close_code == 1011

    asyncio.run(test())


def test_speech_beyond_ten_minutes_is_refused_and_what_is_queued_is_played() -> None:
    async def test() -> None:
        async with server() as http, http.ws_connect("/ws?target=face") as socket:
            await socket.send_json({"type": "start", "rate": 16_000})
            assert (await socket.receive_json())["type"] == "started"
            two_minutes = b"\0\0" * 16_000 * 120
            for _ in range(6):
                await socket.send_bytes(two_minutes)
            message = await socket.receive_json()
            while message["type"] == "played":
                message = await socket.receive_json()
            assert message["type"] == "error" and "600 are the most" in message["reason"]
            (session,) = (await (await http.get("/api/sessions")).json())["sessions"]
            assert 450_000 < session["queued_sound_ms"] <= 600_000
            assert session["dropped_sound_ms"] == 0
            while (message := await socket.receive_json())["played_ms"] == 0:
                pass
            assert message["type"] == "played", "the queued sound is played from its beginning"

    asyncio.run(test())


def test_a_minute_at_once_in_pieces_of_odd_length_plays_whole() -> None:
    """One message of 2.9 MB less a byte, which the next brings."""

    async def test() -> None:
        async with server() as http, http.ws_connect("/ws?target=face") as socket:
            await socket.send_json({"type": "start", "rate": 24_000})
            assert (await socket.receive_json())["type"] == "started"
            minute = b"\0\1" * 24_000 * 60
            await socket.send_bytes(minute[:-1])
            await socket.send_bytes(minute[-1:])
            await socket.send_json({"type": "end"})
            for _ in range(2):
                message = await socket.receive_json()
                assert message["type"] == "played"
            (session,) = (await (await http.get("/api/sessions")).json())["sessions"]
            played_ms = session["played_ms"] + session["queued_sound_ms"]
            assert 59_000 < played_ms <= 60_010 and session["dropped_sound_ms"] == 0

    asyncio.run(test())


def test_turns_that_are_sent_without_waiting_all_end() -> None:
    async def test() -> None:
        async with server() as http, http.ws_connect("/ws?target=face") as socket:
            for samples in (3200, 1600, 0):
                await socket.send_json({"type": "start", "rate": 16_000})
                for byte in range(0, 2 * samples, 321):
                    await socket.send_bytes(bytes(min(321, 2 * samples - byte)))
                await socket.send_json({"type": "end"})
            ended = []
            while len(ended) < 3:
                message = await asyncio.wait_for(socket.receive_json(), 10)
                assert message["type"] in ("started", "played", "ended")
                if message["type"] == "ended":
                    ended.append(message["played_ms"])
            assert ended == [200, 100, 0]

    asyncio.run(test())
