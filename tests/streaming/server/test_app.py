"""The server as its clients see it: HTTP, calls, limits, refusals."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("aiortc", reason="aiortc is not installed")

from aiohttp import ClientSession  # noqa: E402

from lipstream.engine.errors import UsageError  # noqa: E402
from lipstream.streaming.server import rooms as rooms_module  # noqa: E402
from lipstream.streaming.server.app import ServerOptions  # noqa: E402
from lipstream.streaming.webrtc import aioice_patches  # noqa: E402
from lipstream.streaming.webrtc.peer import Peer  # noqa: E402
from tests.cli.conftest import Cli
from tests.cli.conftest import cli_here as cli_here
from tests.streaming.server.fake_server import AUTHORISED, SDP, TOKEN, server  # noqa: E402
from tests.streaming.waiting import eventually  # noqa: E402
from tests.streaming.webrtc.client import Client, vanish  # noqa: E402


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
            assert (await http.delete(place)).status == 410
            seen = len(client.pictures)
            state = client.pc
            await eventually(lambda: state.connectionState == "closed", what="the server left")
            assert len(client.pictures) <= seen + 2
            assert "lipstream_sessions 0.0" in await (await http.get("/metrics")).text()
            await client.close()

    asyncio.run(test())


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

    asyncio.run(test())


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

    asyncio.run(test())


def test_other_sites_and_other_names_of_this_machine_are_refused() -> None:
    async def test() -> None:
        async with server() as http:
            foreign = {"Origin": "https://example.org"}
            assert (await http.get("/api/targets", headers=foreign)).status == 403
            rebound = {"Host": "example.org"}
            assert (await http.get("/api/targets", headers=rebound)).status == 403
            own = {"Origin": f"http://127.0.0.1:{http._base_url.port}"}  # type: ignore[union-attr]
            assert (await http.get("/api/targets", headers=own)).status == 200

    asyncio.run(test())


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
            assert gone.status == 410 and "scripted end" in (await gone.json())["error"]

            async def nothing_is_left() -> bool:
                return "lipstream_sessions 0.0" in await (await http.get("/metrics")).text()

            await eventually(nothing_is_left)
            await client.close()

    asyncio.run(test())


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

    asyncio.run(test())


def test_a_killed_client_does_not_disturb_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aioice_patches, "CONSENT_EXPIRY_S", 3.5)
    monkeypatch.setattr(rooms_module, "KEEP_S", 3.5)

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

    asyncio.run(test())


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

    asyncio.run(test())


def resources() -> tuple[int, int, int]:
    """Threads that are not of a pool, open files, resident KiB."""
    threads = [t for t in threading.enumerate() if not t.name.startswith("asyncio")]
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return len(threads), len(os.listdir("/proc/self/fd")), pages * 4


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["--targets", "/nowhere"], "nowhere: no such folder"),
        (["--host", "0.0.0.0"], "--token"),
        (["--port", "99999"], "65535"),
        (["--targets", "."], "no NAME.target"),
    ],
)
def test_the_command_refuses_what_cannot_work(
    cli_here: Cli, arguments: list[str], reason: str, tmp_path: Path
) -> None:
    done = cli_here("serve", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr and done.stderr.count("\n") == 1


def test_a_server_that_others_can_reach_needs_a_token() -> None:
    with pytest.raises(UsageError, match="--token"):
        ServerOptions(host="0.0.0.0")
    with pytest.raises(UsageError, match="too short"):
        ServerOptions(host="0.0.0.0", token="abc")
    assert not ServerOptions(host="0.0.0.0", token=TOKEN).local
