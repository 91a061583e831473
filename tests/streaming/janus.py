"""A Janus daemon for a test, and what publishing and watching need of its HTTP API.

`whip` is what stands between a WHIP client and Janus: the body of an offer goes into the
`videoroom` plugin, its answer comes back.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.streaming.ports import free_port
from tests.streaming.waiting import eventually

ROOM = 4711


class Janus:
    """A session with the running daemon."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http, self._url = http, url
        self._session = 0
        self._count = 0
        self._answers: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self.events: list[dict[str, Any]] = []
        self._poll: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self._session = (await self._post(self._url, {"janus": "create"}))["data"]["id"]
        self._poll = asyncio.create_task(self._listen())

    async def close(self) -> None:
        if self._poll is not None:
            self._poll.cancel()
            await asyncio.gather(self._poll, return_exceptions=True)

    async def attach(self) -> int:
        reply = await self._post(
            f"{self._url}/{self._session}",
            {"janus": "attach", "plugin": "janus.plugin.videoroom"},
        )
        return int(reply["data"]["id"])

    async def ask(
        self, handle: int, body: dict[str, Any], jsep: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """What the plugin answers, at once or as an event."""
        message: dict[str, Any] = {"janus": "message", "body": body}
        if jsep is not None:
            message["jsep"] = jsep
        event = asyncio.get_running_loop().create_future()
        name = f"t{self._count}"
        self._answers[name] = event
        reply = await self._post(f"{self._url}/{self._session}/{handle}", message, name)
        if reply["janus"] == "ack":
            reply = await asyncio.wait_for(event, 10)
        data: dict[str, Any] = reply["plugindata"]["data"]
        assert "error" not in data, data
        return {**data, "jsep": reply.get("jsep")}

    async def detach(self, handle: int) -> None:
        await self._post(f"{self._url}/{self._session}/{handle}", {"janus": "detach"})

    async def _post(
        self, url: str, message: dict[str, Any], transaction: str | None = None
    ) -> dict[str, Any]:
        self._count += 1
        message = {**message, "transaction": transaction or f"t{self._count}x"}
        async with self._http.post(url, json=message) as response:
            reply: dict[str, Any] = await response.json()
        assert reply["janus"] != "error", reply
        return reply

    async def _listen(self) -> None:
        while True:
            url = f"{self._url}/{self._session}?maxev=1"
            async with self._http.get(url, timeout=aiohttp.ClientTimeout(60)) as response:
                event: dict[str, Any] = await response.json()
            self.events.append(event)
            waiting = self._answers.pop(event.get("transaction", ""), None)
            if waiting is not None and not waiting.done():
                waiting.set_result(event)


@asynccontextmanager
async def janus(folder: Path) -> AsyncIterator[Janus]:
    program = shutil.which("janus")
    if program is None:
        pytest.skip("no janus: apt-get install janus")
    port = free_port()
    (folder / "janus.jcfg").write_text(
        "general: { debug_level = 4; }\n"
        'media: { rtp_port_range = "20000-40000"; }\n'
        'nat: { ice_lite = false; ice_enforce_list = "lo"; ice_ignore_list = "vmnet"; }\n'
        'plugins: { disable = "" }\ntransports: { disable = "" }\n'
    )
    (folder / "janus.transport.http.jcfg").write_text(
        f'general: {{ json = "compact"; base_path = "/janus"; http = true; port = {port}; '
        'ip = "127.0.0.1"; https = false; }\nadmin: { admin_http = false; }\n'
    )
    (folder / "janus.plugin.videoroom.jcfg").write_text(
        f'room-{ROOM}: {{ description = "test"; publishers = 4; '
        'bitrate = 0; videocodec = "h264"; audiocodec = "opus"; fir_freq = 0; }\n'
    )
    log = (folder / "janus.log").open("wb")
    daemon = subprocess.Popen([program, "-F", str(folder)], stdout=log, stderr=log)
    try:
        async with aiohttp.ClientSession() as http:
            url = f"http://127.0.0.1:{port}/janus"

            async def answers() -> bool:
                try:
                    async with http.get(f"{url}/info"):
                        return True
                except aiohttp.ClientError:
                    return False

            try:
                await eventually(answers)
            except AssertionError:
                pytest.skip(
                    f"janus does not start here: {(folder / 'janus.log').read_text()[-400:]}"
                )
            session = Janus(http, url)
            await session.open()
            try:
                yield session
            finally:
                await session.close()
    finally:
        daemon.terminate()
        daemon.wait(10)
        log.close()


@asynccontextmanager
async def whip(server: Janus, token: str) -> AsyncIterator[str]:
    """The address of a WHIP endpoint that publishes into the room."""
    handles: dict[str, int] = {}

    async def post(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {token}":
            return web.Response(status=401, text="who are you?")
        handle = await server.attach()
        body = {"request": "joinandconfigure", "ptype": "publisher", "room": ROOM, "display": "ls"}
        reply = await server.ask(handle, body, {"type": "offer", "sdp": await request.text()})
        handles[str(handle)] = handle
        return web.Response(
            status=201,
            text=reply["jsep"]["sdp"],
            content_type="application/sdp",
            headers={"Location": f"/resource/{handle}"},
        )

    async def delete(request: web.Request) -> web.Response:
        await server.detach(handles.pop(request.match_info["handle"]))
        return web.Response()

    app = web.Application()
    app.add_routes([web.post("/whip", post), web.delete("/resource/{handle}", delete)])
    async with TestServer(app, host="127.0.0.1") as http:
        yield str(http.make_url("/whip"))
    assert not handles, "every session was ended by DELETE"
