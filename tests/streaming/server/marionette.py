"""Firefox without a window, driven by its own protocol, Marionette.

A message is its length, a colon and JSON. A command is `[0, id, name, parameters]`, its answer
`[1, id, error, value]`. Source: firefox-source-docs.mozilla.org/testing/marionette/Protocol.html.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tests.streaming.ports import free_port

FIREFOX = Path(os.environ.get("LIPSTREAM_FIREFOX", "/usr/bin/firefox-esr"))
PREFERENCES = {
    "media.navigator.streams.fake": True,  # a microphone that hums
    "media.navigator.permission.disabled": True,
    "media.peerconnection.ice.loopback": True,
    "media.autoplay.default": 0,
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "toolkit.telemetry.enabled": False,
}


class Firefox:
    """One window of a running browser."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._count = 0

    async def command(self, name: str, **parameters: Any) -> Any:
        """The value of a command; fails with what the browser says."""
        self._count += 1
        body = json.dumps([0, self._count, name, parameters]).encode()
        self._writer.write(b"%d:%s" % (len(body), body))
        _, number, error, value = await self.message()
        assert number == self._count and error is None, error
        return value["value"] if isinstance(value, dict) and "value" in value else value

    async def close(self) -> None:
        """End the connection to the browser."""
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()

    async def message(self) -> Any:
        size = await self._reader.readuntil(b":")
        return json.loads(await self._reader.readexactly(int(size[:-1])))

    async def run(self, script: str, *arguments: Any) -> Any:
        """What the body of an asynchronous function returns, in the page that is open."""
        body = f"""
            const done = arguments[arguments.length - 1];
            (async (...args) => {{ {script} }})(...arguments)
                .then((value) => done({{value}}), (error) => done({{error: String(error)}}));
        """
        result = await self.command("WebDriver:ExecuteAsyncScript", script=body, args=arguments)
        assert "error" not in result, result["error"]
        return result.get("value")


@asynccontextmanager
async def firefox() -> AsyncIterator[Firefox]:
    """A browser with a profile of its own."""
    port = free_port()
    with tempfile.TemporaryDirectory() as profile:
        said = {**PREFERENCES, "marionette.port": port}
        lines = [f"user_pref({json.dumps(k)}, {json.dumps(v)});" for k, v in said.items()]
        Path(profile, "user.js").write_text("\n".join(lines))
        process = await asyncio.create_subprocess_exec(
            FIREFOX, "--marionette", "--headless", "--no-remote", "--profile", profile,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "HOME": profile, "MOZ_DISABLE_CONTENT_SANDBOX": "1"},
        )  # fmt: skip
        try:
            browser = await asyncio.wait_for(_connect(process, port), 120)
            try:
                await browser.command("WebDriver:NewSession", timeouts={"script": 60_000})
                yield browser
            finally:
                await browser.close()
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def _connect(process: asyncio.subprocess.Process, port: int) -> Firefox:
    while True:
        assert process.returncode is None, "Firefox has ended"
        try:
            browser = Firefox(*await asyncio.open_connection("127.0.0.1", port))
        except OSError:
            await asyncio.sleep(0.1)  # it has not begun to listen
            continue
        try:
            await browser.message()  # who it is
        except BaseException:
            await browser.close()
            raise
        return browser
