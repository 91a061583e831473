"""The server as its clients see it: HTTP, calls, WebSocket, limits, refusals."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("aiortc", reason="aiortc is not installed")

from aiohttp import ClientSession, WSMsgType, web  # noqa: E402

from lipstream.engine.errors import UnknownTarget, UsageError  # noqa: E402
from lipstream.streaming.server import rooms as rooms_module  # noqa: E402
from lipstream.streaming.server.app import ServerOptions, make_app  # noqa: E402
from lipstream.streaming.server.rooms import Rooms  # noqa: E402
from lipstream.streaming.server.targets import TargetRegistry  # noqa: E402
from lipstream.streaming.session.runner import LiveEngine  # noqa: E402
from lipstream.streaming.webrtc.peer import Peer  # noqa: E402
from tests.streaming.live_engine import LiveFakeEngine  # noqa: E402
from tests.streaming.waiting import eventually  # noqa: E402
from tests.streaming.webrtc.test_peer import Client, run, vanish  # noqa: E402

SDP = {"Content-Type": "application/sdp"}
TOKEN = "a-secret-token"
AUTHORISED = {"Authorization": f"Bearer {TOKEN}"}


async def fake_engine(name: str) -> LiveEngine:
    if name != "face":
        raise UnknownTarget(f"no target {name!r}")
    return LiveFakeEngine()


@asynccontextmanager
async def server(
    registry: TargetRegistry | None = None, **options: object
) -> AsyncIterator[ClientSession]:
    made = ServerOptions(**options)  # type: ignore[arg-type]
    if registry is None:
        app = make_app(made, lambda: ["face"], fake_engine)
    else:
        app = make_app(made, registry.names, registry.engine, registry)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with ClientSession(f"http://127.0.0.1:{port}") as session:
            yield session
    finally:
        await runner.cleanup()
        assert not [t for t in threading.enumerate() if t.name == "lipstream-session"]


def test_a_call_is_one_post_and_ends_with_delete() -> None:
    async def test() -> None:
        async with server() as http:
            client = Client()
            answer = await http.post("/whip?target=face", data=await client.offer(), headers=SDP)
            assert answer.status == 201
            assert answer.content_type == "application/sdp"
            place = answer.headers["Location"]
            await client.accept(await answer.text())
            await eventually(lambda: len(client.pictures) > 20)
            figures = await (await http.get(place)).json()
            assert figures["target"] == "face" and figures["frames"] > 20
            metrics = await (await http.get("/metrics")).text()
            assert "lipstream_sessions 1.0" in metrics
            assert (await http.delete(place)).status == 200
            assert (await http.delete(place)).status == 404
            seen = len(client.pictures)
            state = client.pc
            await eventually(lambda: state.connectionState == "closed", what="the server left")
            assert len(client.pictures) <= seen + 2
            assert "lipstream_sessions 0.0" in await (await http.get("/metrics")).text()
            await client.close()

    run(test())


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

    run(test())


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

    run(test())


def test_a_socket_whose_conversation_fails_gets_the_reason_and_is_closed() -> None:
    async def engine(name: str) -> LiveEngine:
        return LiveFakeEngine(fail_after=5)

    async def test() -> None:
        runner = web.AppRunner(make_app(ServerOptions(), lambda: ["face"], engine))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with ClientSession(url) as http, http.ws_connect("/ws?target=face") as socket:
            message = await asyncio.wait_for(socket.receive_json(), 5)
            assert message == {"type": "error", "reason": "ValueError: scripted failure"}
            assert (await asyncio.wait_for(socket.receive(), 5)).type is WSMsgType.CLOSE
            assert socket.close_code == 1011
        await runner.cleanup()

    run(test())


def test_speech_beyond_a_minute_is_refused_and_what_is_queued_is_played() -> None:
    async def test() -> None:
        async with server() as http, http.ws_connect("/ws?target=face") as socket:
            await socket.send_json({"type": "start", "rate": 16_000})
            assert (await socket.receive_json())["type"] == "started"
            ten_s = b"\0\0" * 160_000
            for _ in range(7):
                await socket.send_bytes(ten_s)
            message = await socket.receive_json()
            while message["type"] == "played":
                message = await socket.receive_json()
            assert message["type"] == "error" and "60 are the most" in message["reason"]
            (session,) = (await (await http.get("/api/sessions")).json())["sessions"]
            assert 50_000 < session["queued_sound_ms"] <= 60_000
            assert session["dropped_sound_ms"] == 0
            while (message := await socket.receive_json())["played_ms"] == 0:
                pass
            assert message["type"] == "played", "the queued sound is played from its beginning"

    run(test())


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

    run(test())


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

    run(test())


@pytest.mark.parametrize(
    "path, body, headers, status, reason",
    [
        ("/whip?target=face", b"hello", SDP, 400, "offer"),
        ("/whep?target=face", b"", SDP, 400, "offer"),
        ("/whep?target=face", b"\xff\xfe", SDP, 400, "UTF-8"),
        ("/whep?target=face", b"v=0", {"Content-Type": "text/plain"}, 415, "application/sdp"),
        ("/whep?target=face", b"v" * 100_000, SDP, 413, "65536"),
        ("/whep?target=nobody", b"v=0", SDP, 404, "nobody"),
        ("/whep?target=../etc", b"v=0", SDP, 404, "etc"),
        ("/whep", b"v=0", SDP, 400, "target"),
    ],
)
def test_a_bad_offer_is_refused_with_a_reason(
    path: str, body: bytes, headers: dict[str, str], status: int, reason: str
) -> None:
    async def test() -> None:
        async with server() as http:
            answer = await http.post(path, data=body, headers=headers)
            assert answer.status == status
            assert reason in (await answer.json())["error"]
            assert "lipstream_sessions 0.0" in await (await http.get("/metrics")).text()

    run(test())


def test_with_a_token_everything_but_page_and_health_needs_it() -> None:
    async def test() -> None:
        async with server(token=TOKEN) as http:
            for path in ("/", "/app.js", "/call.js", "/meter.js", "/style.css", "/healthz"):
                assert (await http.get(path)).status == 200, path
            for path in ("/api/targets", "/metrics", "/ws?target=face", "/sessions/x", "/nothing"):
                assert (await http.get(path)).status == 401, path
                wrong = {"Authorization": "Bearer another-token"}
                assert (await http.get(path, headers=wrong)).status == 401, path
            for path in ("/whip?target=face", "/whep?target=face"):
                assert (await http.post(path, data="v=0", headers=SDP)).status == 401
            assert (await http.delete("/sessions/x")).status == 401
            listed = await (await http.get("/api/targets", headers=AUTHORISED)).json()
            assert listed == {"targets": [{"name": "face"}]}

    run(test())


def test_other_sites_and_other_names_of_this_machine_are_refused() -> None:
    async def test() -> None:
        async with server() as http:
            foreign = {"Origin": "https://example.org"}
            assert (await http.get("/api/targets", headers=foreign)).status == 403
            rebound = {"Host": "example.org"}
            assert (await http.get("/api/targets", headers=rebound)).status == 403
            own = {"Origin": f"http://127.0.0.1:{http._base_url.port}"}  # type: ignore[union-attr]
            assert (await http.get("/api/targets", headers=own)).status == 200

    run(test())


def test_a_connection_that_ends_while_it_is_answered_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer_offer = Peer.answer

    async def answer_and_end(self: Peer, offer_sdp: str) -> str:
        answer = await answer_offer(self, offer_sdp)
        self.end("scripted end")
        return answer

    monkeypatch.setattr(Peer, "answer", answer_and_end)

    async def test() -> None:
        async with server() as http:
            client = Client()
            answer = await http.post("/whip?target=face", data=await client.offer(), headers=SDP)
            assert answer.status == 201
            gone = await http.get(answer.headers["Location"])
            assert gone.status == 404 and "scripted end" in (await gone.json())["error"]

            async def nothing_is_left() -> bool:
                return "lipstream_sessions 0.0" in await (await http.get("/metrics")).text()

            await eventually(nothing_is_left)
            await client.close()

    run(test())


def test_one_session_too_many_is_answered_503_with_retry_after() -> None:
    async def test() -> None:
        async with server(sessions=1) as http:
            first, second = Client(), Client()
            answer = await http.post("/whip?target=face", data=await first.offer(), headers=SDP)
            assert answer.status == 201
            refused = await http.post("/whip?target=face", data=await second.offer(), headers=SDP)
            assert refused.status == 503 and "Retry-After" in refused.headers
            await http.delete(answer.headers["Location"])
            again = await http.post("/whip?target=face", data=await second.offer(), headers=SDP)
            assert again.status == 201
            await first.close()
            await second.close()

    run(test())


def test_a_killed_client_does_not_disturb_the_others() -> None:
    async def test() -> None:
        async with server() as http:
            killed, other = Client(), Client()
            for client in (killed, other):
                answer = await http.post(
                    "/whip?target=face", data=await client.offer(), headers=SDP
                )
                await client.accept(await answer.text())
            await eventually(lambda: killed.pictures and other.pictures)
            await vanish(killed)
            place = answer.headers["Location"]
            before, rendered = len(other.pictures), await frames_of(http, place)
            await eventually(lambda: len(other.pictures) >= before + 20)
            rendered = await frames_of(http, place) - rendered
            assert 0.7 * rendered - 3 < 20, "the other call loses no frames"

            async def one_is_left() -> bool:
                return "lipstream_sessions 1.0" in await (await http.get("/metrics")).text()

            await eventually(one_is_left, 15)
            seen = len(other.pictures)
            await eventually(lambda: len(other.pictures) > seen + 8, 3, "the other call goes on")
            await killed.close()
            await other.close()

    run(test())


async def frames_of(http: ClientSession, place: str) -> int:
    return int((await (await http.get(place)).json())["frames"])


@pytest.mark.slow
def test_fifty_calls_leave_threads_files_and_memory_as_they_were() -> None:
    async def test() -> None:
        async with server() as http:
            for k in range(55):
                client = Client()
                answer = await http.post(
                    "/whip?target=face", data=await client.offer(), headers=SDP
                )
                assert answer.status == 201
                await client.accept(await answer.text())
                await eventually(lambda c=client: len(c.pictures) > 3)  # type: ignore[misc]
                assert (await http.delete(answer.headers["Location"])).status == 200
                await client.close()
                if k == 4:  # pools and caches have filled
                    before = resources()
            await eventually(lambda: all(map(int.__le__, resources()[:2], before[:2])))
            gc.collect()
            _, _, memory_kib = resources()
            print(f"\nmemory {before[2]} KiB, 50 calls later {memory_kib} KiB")
            assert memory_kib < 1.1 * before[2]

    run(test())


def resources() -> tuple[int, int, int]:
    """Threads that are not of a pool, open files, resident KiB."""
    threads = [t for t in threading.enumerate() if not t.name.startswith("asyncio")]
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return len(threads), len(os.listdir("/proc/self/fd")), pages * 4


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["--targets", "/nowhere"], "not a folder"),
        (["--host", "0.0.0.0"], "--token"),
        (["--port", "99999"], "65535"),
        (["--targets", "."], "no NAME.target"),
    ],
)
def test_the_command_refuses_what_cannot_work(
    arguments: list[str], reason: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lipstream", "serve", *arguments],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr and done.stderr.count("\n") == 1


def test_a_server_that_others_can_reach_needs_a_token() -> None:
    with pytest.raises(UsageError, match="--token"):
        ServerOptions(host="0.0.0.0")
    with pytest.raises(UsageError, match="too short"):
        ServerOptions(host="0.0.0.0", token="abc")
    assert not ServerOptions(host="0.0.0.0", token=TOKEN).local


def test_the_registry_lists_bundles_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path
    (folder / "b.target").mkdir()
    (folder / "a.target").mkdir()
    (folder / ".c.target").mkdir()
    (folder / "d.target").write_text("")
    (folder / "notes").mkdir()
    assert TargetRegistry(folder).names() == ["a", "b"]
    with pytest.raises(UsageError, match="not a folder"):
        TargetRegistry(folder / "nowhere")
