"""Into an SFU: Janus itself, and an endpoint that refuses, redirects and breaks off."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("aiortc", reason="aiortc is not installed")

from aiohttp import web  # noqa: E402
from aiohttp.test_utils import TestServer  # noqa: E402
from aiortc import RTCPeerConnection, RTCSessionDescription  # noqa: E402
from aiortc.mediastreams import MediaStreamError  # noqa: E402

from lipstream.engine.errors import LipstreamError, UsageError  # noqa: E402
from lipstream.streaming.publish import PublishError, PublishOptions, _publish  # noqa: E402
from lipstream.streaming.webrtc import aiortc_patches  # noqa: E402
from lipstream.streaming.webrtc.ice_servers import IceServer, from_links  # noqa: E402
from tests.streaming.janus import ROOM, Janus, janus, whip  # noqa: E402
from tests.streaming.live_engine import LiveFakeEngine  # noqa: E402
from tests.streaming.sound_files import write_wav  # noqa: E402
from tests.streaming.waiting import eventually  # noqa: E402

SLOW = bool(os.environ.get("LIPSTREAM_SLOW"))
RENDERER = "auto" if SLOW else "none"  # a short run has to fit a busy machine


def run(test: Coroutine[Any, Any, None]) -> None:
    aiortc_patches.apply(aiortc_patches.PatchOptions(loopback=True))
    asyncio.run(test)


class Received:
    """Pictures and sounds of a connection, with the time of their coming."""

    def __init__(self) -> None:
        self.pc = RTCPeerConnection()
        self.pictures: list[tuple[float, tuple[int, int], float]] = []
        self.sounds: list[tuple[float, float]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.pc.on("track", lambda t: self._tasks.append(asyncio.create_task(self._read(t))))

    async def _read(self, track: Any) -> None:
        try:
            while True:
                got = await track.recv()
                if track.kind == "video":
                    luma = got.to_ndarray(format="gray")
                    size = (got.width, got.height)
                    self.pictures.append((time.monotonic(), size, float(luma.mean())))
                else:
                    loud = float(np.abs(got.to_ndarray()).max()) / 32768
                    self.sounds.append((time.monotonic(), loud))
        except MediaStreamError:
            pass

    async def answer(self, offer: str) -> str:
        await self.pc.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await self.pc.setLocalDescription(await self.pc.createAnswer())
        return self.pc.localDescription.sdp

    async def close(self) -> None:
        await self.pc.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def watch(server: Janus) -> tuple[Received, int]:
    """Subscribe to whoever publishes in the room."""
    handle = await server.attach()
    listed: list[dict[str, Any]] = []

    async def is_published() -> bool:
        nonlocal listed
        request = {"request": "listparticipants", "room": ROOM}
        listed = (await server.ask(handle, request))["participants"]
        return bool(listed and listed[0]["publisher"])

    await eventually(is_published, 20)
    offer = await server.ask(
        handle,
        {"request": "join", "ptype": "subscriber", "room": ROOM,
         "streams": [{"feed": listed[0]["id"]}]},
    )  # fmt: skip
    seen = Received()
    answer = await seen.answer(offer["jsep"]["sdp"])
    await server.ask(handle, {"request": "start"}, {"type": "answer", "sdp": answer})
    return seen, handle


def test_janus_fans_out_what_the_command_publishes(target: Path, tmp_path: Path) -> None:
    async def test() -> None:
        from lipstream.calibration.demo import demo_speech

        speech = demo_speech(tmp_path)
        async with janus(tmp_path) as server, whip(server, "secret") as url:
            began_s = time.monotonic()
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "lipstream", "publish", str(target), "--whip", url,
                "--token", "secret", "--audio", str(speech), "--json", "--renderer", RENDERER,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            (first, one), (second, _) = await watch(server), await watch(server)
            stdout, stderr = await asyncio.wait_for(process.communicate(), 60)
            took_s = time.monotonic() - began_s
            await first.close()
            await second.close()
            await server.detach(one)
            assert process.returncode == 0, stderr.decode()
            report = json.loads(stdout)
            for seen in (first, second):
                times_s = [at_s for at_s, _, _ in seen.pictures]
                assert {size for _, size, _ in seen.pictures} == {(512, 512)}
                fps = (len(times_s) - 1) / (times_s[-1] - times_s[0])
                # A busy machine renders fewer frames; those that it renders in time arrive.
                assert len(times_s) > 0.8 * (report["frames"] - report["dropped_frames"]) - 50
                assert fps > (24 if SLOW else 5)
                assert times_s[-1] - times_s[0] > 7
                assert max(loud for _, loud in seen.sounds) > 0.1
            print(
                f"\nJanus: {len(first.pictures)} and {len(second.pictures)} pictures at two "
                f"viewers, {fps:.2f} fps, {report['kbps']} kb/s, {report['key_frames']} key frames"
            )
            assert report["connections"] == 1
            assert took_s < 40
            assert "on the air" in stderr.decode()

    run(test())


class Endpoint:
    """A WHIP endpoint that accepts, refuses, redirects or is busy."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.ended = 0
        self.asked: list[str] = []
        self.busy = 0  # times

    async def _moved(self, request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "/here"})

    async def _post(self, request: web.Request) -> web.Response:
        self.asked.append(await request.text())
        if self.busy:
            self.busy -= 1
            return web.Response(status=503, text="busy")
        one = Received()
        self.received.append(one)
        answer = await one.answer(self.asked[-1])
        return web.Response(
            status=201, text=answer, content_type="application/sdp",
            headers={"Location": "session/1"},
        )  # fmt: skip

    async def _delete(self, request: web.Request) -> web.Response:
        self.ended += 1
        return web.Response()

    async def _refuse(self, request: web.Request) -> web.Response:
        return web.Response(status=403, text="not\nyou")

    async def _garbage(self, request: web.Request) -> web.Response:
        return web.Response(status=201, text="hello", content_type="application/sdp")

    @asynccontextmanager
    async def here(self) -> AsyncIterator[TestServer]:
        app = web.Application()
        app.add_routes(
            [web.post("/moved", self._moved), web.post("/here", self._post),
             web.delete("/session/1", self._delete), web.post("/refuse", self._refuse),
             web.post("/garbage", self._garbage)]
        )  # fmt: skip
        async with TestServer(app, host="127.0.0.1") as server:
            try:
                yield server
            finally:
                for one in self.received:
                    await one.close()


def test_a_connection_that_breaks_is_made_again_and_a_redirect_is_followed() -> None:
    async def test() -> None:
        endpoint, lines = Endpoint(), []
        async with endpoint.here() as server:
            options = PublishOptions(str(server.make_url("/moved")), seconds=9, tell=lines.append)

            async def break_off() -> None:
                await eventually(
                    lambda: endpoint.received and len(endpoint.received[0].pictures) > 5
                )
                endpoint.busy = 1
                await endpoint.received[0].close()

            breaking = asyncio.create_task(break_off())
            report = await _publish(LiveFakeEngine(), options)
            await breaking
            assert report["connections"] == 2, lines
            assert len(endpoint.received[1].pictures) > 25
            assert endpoint.ended == 2, "each session was ended by DELETE"
            assert any("503" in line for line in lines)
            assert sum("on the air" in line for line in lines) == 2

    run(test())


def test_a_file_is_played_once_to_its_end(tmp_path: Path) -> None:
    async def test() -> None:
        endpoint = Endpoint()
        loud = 0.9 * np.sin(np.arange(48_000) * 0.3).astype(np.float32)
        async with endpoint.here() as server:
            options = PublishOptions(
                str(server.make_url("/here")), audio=write_wav(tmp_path / "a.wav", loud)
            )
            report = await _publish(LiveFakeEngine(), options)
        assert 3 < report["seconds"] < 8
        (seen,) = endpoint.received
        white = sum(luma > 128 for _, _, luma in seen.pictures)
        assert white == pytest.approx(75, abs=4), "three seconds, none of it before the start"

    run(test())


@pytest.mark.parametrize(
    "path, reason",
    [("/refuse", "refuses: 403 Forbidden: not you; see --token"), ("/nowhere", "refuses: 404"),
     ("/garbage", "the answer cannot be used")],
)  # fmt: skip
def test_a_refusal_is_reported_and_ends_it(path: str, reason: str) -> None:
    async def test() -> None:
        async with Endpoint().here() as server:
            with pytest.raises(LipstreamError, match=reason):
                await _publish(LiveFakeEngine(), PublishOptions(str(server.make_url(path))))
        assert len(asyncio.all_tasks()) == 1

    run(test())


def test_a_server_that_is_not_there_is_reported() -> None:
    with pytest.raises(PublishError, match="Cannot connect"):
        asyncio.run(_publish(LiveFakeEngine(), PublishOptions("http://127.0.0.1:9/whip")))


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(UsageError, match="expected the http"):
        PublishOptions("janus")
    with pytest.raises(UsageError, match="one voice at a time"):
        PublishOptions("http://x/", microphone="default", audio=Path("a.wav"))


def test_ice_servers_are_read_from_link_headers() -> None:
    turn = IceServer(("turn:turn.example.org?transport=udp",), 'me"', "a, b; c")
    stun = IceServer(("stun:stun.example.org:3478",))
    other = '<https://example.org/>; rel="next"'
    joined = ", ".join([*turn.links(), other, *stun.links()])
    assert from_links([joined]) == (turn, stun)
    assert from_links([*turn.links(), *stun.links()]) == (turn, stun)
    assert from_links(["<turn:nobody.example.org>; rel=ice-server", "", "<", "a,;b"]) == ()
