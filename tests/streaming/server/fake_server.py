"""The server with a fake engine, on a port of its own, and what its clients send."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import ClientSession, web

from lipstream.engine.errors import UnknownTarget
from lipstream.streaming.server.app import ServerOptions, make_app
from lipstream.streaming.server.targets import TargetRegistry
from lipstream.streaming.session.live_engine import LiveEngine
from tests.streaming.live_engine import LiveFakeEngine

SDP = {"Content-Type": "application/sdp"}
TOKEN = "a-secret-token"
AUTHORISED = {"Authorization": f"Bearer {TOKEN}"}


async def fake_engine(name: str) -> LiveEngine:
    if name != "face":
        raise UnknownTarget(f"no target {name!r}")
    return LiveFakeEngine()


@asynccontextmanager
async def server(
    registry: TargetRegistry | None = None,
    engine: Callable[[str], Awaitable[LiveEngine]] = fake_engine,
    cores: Callable[[LiveEngine], float] = lambda engine: 0.0,
    **options: object,
) -> AsyncIterator[ClientSession]:
    """With the targets of `registry`, or with one target `face` and what `engine` makes for it."""
    made = ServerOptions(**options)  # type: ignore[arg-type]
    if registry is None:
        app = make_app(made, lambda: ["face"], engine, cores=cores)
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
