"""Where a node takes requests: the site of `lipstream serve`, whose calls go on in call actors."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from typing import Any, Final

from aiohttp import web

from lipstream.streaming import trace
from lipstream.streaming.background_tasks import BackgroundTasks
from lipstream.streaming.cluster import ray_calls
from lipstream.streaming.cluster.forwarding import ForwardedCalls
from lipstream.streaming.cluster.ray_calls import answer_of
from lipstream.streaming.cluster.service import OWN_ADDRESS, REACH_S, Service
from lipstream.streaming.remote.targets import local_targets
from lipstream.streaming.server.app import listen, make_site
from lipstream.streaming.server.start_message import netloc
from lipstream.streaming.server.targets import TargetRegistry

logger = logging.getLogger(__name__)

_DRAIN_S: Final = 2.0  # for requests that are being answered when the ingress ends
_FOLLOW_S: Final = 1.0


class Ingress:
    """Every method runs on the actor's event loop."""

    def __init__(self, service: Service, address: str) -> None:
        """`address`: the node's, in the cluster."""
        trace.log_to_stderr(logging.getLevelName(service.log_level))
        self._service, self._address = service, address
        self._undo = contextlib.AsyncExitStack()
        self._calls: ForwardedCalls | None = None
        self._url: str | None = None
        self._controller: Any = None  # its handle
        self._tasks = BackgroundTasks()
        self._beginning = asyncio.Lock()

    async def begin(self) -> tuple[str, bool]:
        """Take requests, unless it does; returns the address for clients, and whether it drains.

        Raises: UsageError where it cannot listen.
        """
        async with self._beginning:
            if self._calls is None or self._url is None:
                try:
                    self._calls, self._url = await self._listen()
                except BaseException:
                    await self.stop()  # the next attempt begins anew
                    raise
            return self._url, self._calls.draining

    async def _listen(self) -> tuple[ForwardedCalls, str]:
        options = self._service.options
        if options.host == OWN_ADDRESS:
            options = replace(options, host=self._address)
        registry = TargetRegistry(await asyncio.to_thread(local_targets, self._service.targets))
        self._controller = await asyncio.to_thread(ray_calls.get_controller)
        calls = ForwardedCalls(self._controller, options, self._address)
        app = make_site(options, registry.names, calls, registry)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_DRAIN_S)
        await runner.setup()
        self._undo.push_async_callback(runner.cleanup)
        context = options.tls.context() if options.tls is not None else None
        await listen(runner, options, context)
        scheme = "https" if context is not None else "http"
        port = runner.addresses[0][1]
        self._tasks.start(self._follow_nodes(calls), "addresses of the other nodes")
        return calls, f"{scheme}://{netloc(self._reachable(options.host), port)}"

    async def _follow_nodes(self, calls: ForwardedCalls) -> None:
        while True:
            urls = await answer_of(self._controller.urls.remote(), REACH_S)
            if urls is not None:
                calls.see_nodes(urls)
            await asyncio.sleep(_FOLLOW_S)

    def _reachable(self, host: str) -> str:
        return self._address if host in ("0.0.0.0", "::") else host

    async def drain(self) -> None:
        """Say on `/healthz` that new requests should go elsewhere."""
        if self._calls is not None:
            self._calls.draining = True

    async def stop(self) -> None:
        """Take no more requests."""
        await self._tasks.cancel()
        await self._undo.aclose()
