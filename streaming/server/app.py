"""`lipstream serve`: the page, WHIP, WHEP, the WebSocket and what an operator watches.

Everything but the page's own files and `/healthz` needs the token, when there is one; see `access`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Final

from aiohttp import web

from lipstream.engine.errors import ConsentMissing, UsageError
from lipstream.streaming import trace
from lipstream.streaming.marking.marker import Marking
from lipstream.streaming.server import api
from lipstream.streaming.server.access import answer_siblings, guard, is_loopback
from lipstream.streaming.server.admission import Admission
from lipstream.streaming.server.calls import Calls, LocalCalls
from lipstream.streaming.server.error_responses import answer_errors
from lipstream.streaming.server.metrics import exposition
from lipstream.streaming.server.proxies import ProxyOptions
from lipstream.streaming.server.rooms import Rooms
from lipstream.streaming.server.signalling import Signalling
from lipstream.streaming.server.start_message import start_message
from lipstream.streaming.server.targets import EngineSetting, TargetDescriptions, TargetRegistry
from lipstream.streaming.server.tls import Tls
from lipstream.streaming.session.gc_policy import few_arenas, freeze
from lipstream.streaming.session.live_engine import LiveEngine, short_turns
from lipstream.streaming.session.runner import RunnerOptions
from lipstream.streaming.shutdown import on_sigterm
from lipstream.streaming.webrtc import aiortc_patches
from lipstream.streaming.webrtc.aioice_patches import PortRange
from lipstream.streaming.webrtc.h264 import Encoding
from lipstream.streaming.webrtc.ice_servers import IceServer
from lipstream.streaming.workers.pool import Workers

logger = logging.getLogger(__name__)

PAGE: Final = {
    "/": ("index.html", "text/html"),
    "/style.css": ("style.css", "text/css"),
    "/stage.css": ("stage.css", "text/css"),
    "/app.js": ("app.js", "text/javascript"),
    "/call.js": ("call.js", "text/javascript"),
    "/call_bar.js": ("call_bar.js", "text/javascript"),
    "/connection.js": ("connection.js", "text/javascript"),
    "/http.js": ("http.js", "text/javascript"),
    "/lobby.js": ("lobby.js", "text/javascript"),
    "/meter.js": ("meter.js", "text/javascript"),
    "/microphone_test.js": ("microphone_test.js", "text/javascript"),
    "/targets.js": ("targets.js", "text/javascript"),
    "/voices.js": ("voices.js", "text/javascript"),
    "/words.js": ("words.js", "text/javascript"),
    "/api.html": ("api.html", "text/html"),
    "/api.js": ("api.js", "text/javascript"),
}
# What is synthesised faster than it is said waits here, 38 MB at most: ten minutes at once.
CONVERSATION: Final = RunnerOptions(sound_capacity_s=600)
_OPEN: Final = frozenset(PAGE) | {"/healthz"}
_SAFE_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_POLICY: Final = (
    "default-src 'self'; img-src data: blob:; media-src 'self' blob:; connect-src {connect}; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How to serve."""

    host: str = "127.0.0.1"
    port: int = 8080
    token: str | None = None
    sessions: int = 4
    processes: int = 0  # worker processes that compute; 0: none but the server itself
    ice_servers: tuple[IceServer, ...] = ()
    udp_ports: PortRange | None = None  # None: as the system chooses
    encoding: Encoding = field(default_factory=Encoding)
    proxies: ProxyOptions = field(default_factory=ProxyOptions)
    max_body_bytes: int = 1 << 20
    max_sdp_bytes: int = 64 << 10
    tls: Tls | None = None  # None: http
    marking: Marking = field(default_factory=Marking)  # of every call

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise UsageError(f"port {self.port}: expected 0 to 65535")
        if self.token is not None and len(self.token) < 8:
            raise UsageError("the token is too short to be a secret; expected 8 characters or more")
        if self.token is None and not self.local:
            raise UsageError(
                f"host {self.host}: other machines can reach the server, so it needs --token "
                "SECRET or LIPSTREAM_TOKEN (or --host 127.0.0.1)"
            )
        if self.token is None and self.proxies.trusted:
            raise UsageError("--trusted-proxy: others reach it by the proxy, so it needs --token")

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)


def make_app(
    options: ServerOptions,
    names: Callable[[], list[str]],
    engine: Callable[[str], Awaitable[LiveEngine]],
    descriptions: TargetDescriptions | None = None,
    cores: Callable[[LiveEngine], float] = lambda engine: 0.0,
) -> web.Application:
    """The application.

    Args:
        options: where and for whom.
        names: of the targets.
        engine: of a target by its name; `TargetRegistry.engine`, or a test's own.
        descriptions: for /api/targets and the page; None shows names alone.
        cores: that a conversation of an engine keeps busy, 0 for unknown; `TargetRegistry.cores`.

    Raises:
        UsageError: a range of UDP ports with versions of aiortc that cannot keep to it.
    """
    patches = aiortc_patches.PatchOptions(loopback=options.local, udp_ports=options.udp_ports)
    patch_aiortc(patches)
    admission = Admission.for_processes(options.processes, cores)
    return make_site(options, names, local_calls(options, engine, admission), descriptions)


def patch_aiortc(patches: aiortc_patches.PatchOptions) -> None:
    """Patch the process.

    Raises: UsageError for a range of UDP ports with versions of aiortc that cannot keep to it.
    """
    if not aiortc_patches.apply(patches) and patches.udp_ports is not None:
        raise UsageError("--udp-ports needs the versions of aiortc and aioice in constraints.txt")


def local_calls(
    options: ServerOptions,
    engine: Callable[[str], Awaitable[LiveEngine]],
    admission: Admission | None,
    emptied: Callable[[], None] = lambda: None,
) -> LocalCalls:
    """Conversations of this process; `emptied` is called when one of them has ended."""
    rooms = Rooms(
        engine,
        options.sessions,
        options=replace(CONVERSATION, marking=options.marking),
        encoding=options.encoding,
        admission=admission,
    )
    rooms.emptied = emptied
    return LocalCalls(rooms, Signalling(rooms, options.ice_servers, options.max_sdp_bytes))


def make_site(
    options: ServerOptions,
    names: Callable[[], list[str]],
    calls: Calls,
    descriptions: TargetDescriptions | None = None,
) -> web.Application:
    """The application round calls that go on here or elsewhere; see `make_app`."""
    proxies = options.proxies
    app = web.Application(
        middlewares=[
            trace_request, answer_siblings(calls.siblings), answer_errors, proxies.locate(),
            guard(options.token, _OPEN, proxies, calls.siblings),
        ],
        client_max_size=options.max_body_bytes,
    )  # fmt: skip
    app.on_response_prepare.append(show_trace)

    async def health(request: web.Request) -> web.Response:
        about = await calls.health()
        if about is None:
            return web.json_response({"status": "draining"}, status=503)
        return web.json_response({"status": "ok", **about})

    async def metrics(request: web.Request) -> web.Response:
        body = exposition(await calls.scrapes())
        return web.Response(body=body, headers={"Content-Type": "text/plain"})

    async def page(request: web.Request) -> web.Response:
        name, kind = PAGE[proxies.own_path(request)]
        body = files("lipstream.streaming.server").joinpath("web", name).read_text("utf-8")
        policy = _POLICY.format(connect=" ".join(["'self'", *sorted(calls.siblings())]))
        headers = {**_SAFE_HEADERS, "Content-Security-Policy": policy}
        return web.Response(text=body, content_type=kind, headers=headers)

    async def end_all(app: web.Application) -> None:
        await calls.close()

    routes = [
        *(web.get(path, page) for path in PAGE),
        web.get("/healthz", health),
        web.get("/metrics", metrics),
        *api.routes(names, descriptions, calls, options.ice_servers, proxies),
        *calls.routes(),
    ]
    app.add_routes(proxies.under_root(routes))
    app.on_shutdown.append(end_all)
    return app


@web.middleware
async def trace_request(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """A trace id for each request; one about a conversation takes over that one's."""
    trace.begin()
    return await handler(request)


async def show_trace(request: web.Request, response: web.StreamResponse) -> None:
    """The trace id, in every answer."""
    response.headers[trace.HEADER] = trace.current()


def serve(
    folder: str | Path,
    setting: EngineSetting,
    options: ServerOptions,
    tell: Callable[[str], None] = logger.info,
) -> None:
    """Serve until SIGINT or SIGTERM; targets are loaded and warmed before the port opens.

    Args:
        folder: with NAME.target bundles in it.
        setting: of the engines.
        options: where and for whom.
        tell: called with each line of the start message when calls are taken.

    Raises:
        LipstreamError: no targets, a bad bundle, or a port that cannot be had.
    """
    few_arenas()
    short_turns()
    workers = Workers(options.processes) if options.processes else None
    try:
        registry = TargetRegistry(Path(folder), setting, workers, keep=options.sessions)
        asyncio.run(_serve(registry, options, tell))
    finally:
        if workers is not None:
            workers.close()


async def _serve(
    registry: TargetRegistry, options: ServerOptions, tell: Callable[[str], None]
) -> None:
    context = options.tls.context() if options.tls is not None else None
    found = registry.names()
    if not found:
        raise UsageError(
            f"{registry.folder}: no NAME.target in it; "
            "make one with `lipstream calibrate VIDEO -o NAME.target`"
        )
    _refuse_taken(options)
    found = await _load_first(registry, found, options.sessions, tell)
    freeze()
    app = make_app(options, registry.names, registry.engine, registry, registry.cores)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await listen(runner, options, context)
        port = runner.addresses[0][1]
        for line in start_message(found, options.host, port, options.tls):
            tell(line)
        stop = asyncio.Event()
        with on_sigterm(stop.set):
            await stop.wait()
    finally:
        await runner.cleanup()


def _refuse_taken(options: ServerOptions) -> None:
    """Before the targets are loaded, which takes seconds. Raises: UsageError for a port in use."""
    if options.port:
        with contextlib.suppress(socket.gaierror):  # not IPv4: `listen` says what is wrong
            try:
                socket.create_server((options.host, options.port)).close()
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise _cannot_listen(options, error) from error


def _cannot_listen(options: ServerOptions, error: OSError) -> UsageError:
    why = error.strerror or str(error)
    if error.errno == errno.EADDRINUSE:
        why = "another program listens there; choose another port with --port"
    return UsageError(f"cannot listen on {options.host}:{options.port}: {why}")


async def listen(
    runner: web.AppRunner, options: ServerOptions, context: ssl.SSLContext | None
) -> None:
    """Take requests at the address of the options.

    Raises: UsageError where it cannot.
    """
    try:
        await web.TCPSite(runner, options.host, options.port, ssl_context=context).start()
    except OSError as error:
        raise _cannot_listen(options, error) from error


async def _load_first(
    registry: TargetRegistry, names: list[str], count: int, tell: Callable[[str], None]
) -> list[str]:
    """Load `count` targets, the others when they are first asked for; returns those to serve.

    A target without consent is left out, with a line that says so.

    Raises:
        ConsentMissing: no target has the consent of the person shown.
    """
    loaded, refused = 0, set()
    for name in names:
        if loaded == count:
            break
        try:
            await registry.engine(name)
            loaded += 1
        except ConsentMissing as error:
            refused.add(name)
            if len(refused) == len(names):
                raise
            tell(f"not served: {error}")
    return [name for name in names if name not in refused]
