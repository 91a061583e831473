"""A page in Chromium whose microphone plays a file, and a server for it in a thread."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lipstream.engine.errors import UsageError

if TYPE_CHECKING:
    from aiohttp import web

CHROMIUM: Final = Path(os.environ.get("LIPSTREAM_CHROMIUM", "/usr/bin/chromium"))
FLAGS: Final = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required", "--allow-loopback-in-peer-connection",
)  # fmt: skip


@contextmanager
def serving(make: Callable[[], web.Application]) -> Iterator[str]:
    """An application in a thread of its own, on a free port; yields its URL.

    make: called on the loop that serves it.
    """
    from aiohttp import web

    async def begin() -> tuple[web.AppRunner, int]:
        runner = web.AppRunner(make())
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner, int(runner.addresses[0][1])

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runner = None
    try:
        runner, port = asyncio.run_coroutine_threadsafe(begin(), loop).result(20)
        yield f"http://127.0.0.1:{port}/"
    finally:
        if runner is not None:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@contextmanager
def browser(voice: Path, size: tuple[int, int]) -> Iterator[Any]:
    """A page of Playwright's whose microphone plays the file `voice`. size: width, height, px.

    Raises: UsageError without Playwright or Chromium.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise UsageError(
            f"{error}; the browser measurement needs: pip install playwright"
        ) from error
    if not CHROMIUM.exists():
        raise UsageError(f"no Chromium at {CHROMIUM}: install it, or set LIPSTREAM_CHROMIUM")
    with sync_playwright() as start:
        chromium = start.chromium.launch(
            executable_path=str(CHROMIUM),
            args=[*FLAGS, f"--use-file-for-fake-audio-capture={voice}"],
        )
        try:
            yield chromium.new_page(viewport={"width": size[0], "height": size[1]})
        finally:
            chromium.close()
