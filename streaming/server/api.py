"""What the page and programs ask under /api: targets, sessions, version, this API itself."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from importlib.metadata import version
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from aiohttp import web

from lipstream.engine.errors import LipstreamError, UnknownTarget
from lipstream.streaming.server.calls import Calls
from lipstream.streaming.server.proxies import ProxyOptions
from lipstream.streaming.server.targets import TargetDescriptions
from lipstream.streaming.webrtc.ice_servers import IceServer

logger = logging.getLogger(__name__)


def openapi_document() -> dict[str, Any]:
    """openapi.json with the installed version in it."""
    text = files("lipstream.streaming.server").joinpath("openapi.json").read_text("utf-8")
    document: dict[str, Any] = json.loads(text)
    document["info"]["version"] = version("lipstream")
    return document


def routes(
    names: Callable[[], list[str]],
    descriptions: TargetDescriptions | None,
    calls: Calls,
    ice_servers: tuple[IceServer, ...],
    proxies: ProxyOptions,
) -> list[web.RouteDef]:
    """Everything under /api; without descriptions, targets have only names."""

    def describe(name: str, root: str) -> dict[str, Any]:
        if descriptions is None:
            if name not in names():
                raise UnknownTarget(f"no target {name!r}; /api/targets lists those that are here")
            return {"name": name}
        poster = f"{root}/api/targets/{quote(name, safe='')}/poster"
        return {**descriptions.describe(name).as_json(), "poster": poster}

    def describe_all(root: str) -> list[dict[str, Any]]:
        described = []
        for name in names():
            try:
                described.append(describe(name, root))
            except LipstreamError as error:
                # One damaged bundle must not hide the others; a call to it gets the reason.
                logger.warning("target %s: %s", name, error)
        return described

    async def targets(request: web.Request) -> web.Response:
        root = proxies.root(request)
        return web.json_response({"targets": await asyncio.to_thread(describe_all, root)})

    async def target(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        root = proxies.root(request)
        return web.json_response(await asyncio.to_thread(describe, name, root))

    async def poster(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if descriptions is None:
            raise UnknownTarget(f"no poster of {name!r}")
        picture = await asyncio.to_thread(descriptions.poster, name)
        headers = {"Cache-Control": "private, max-age=60"}
        return web.Response(body=picture, content_type="image/jpeg", headers=headers)

    async def sessions(request: web.Request) -> web.Response:
        return web.json_response({"sessions": await calls.sessions()})

    async def show_version(request: web.Request) -> web.Response:
        return web.json_response({"version": version("lipstream")})

    async def config(request: web.Request) -> web.Response:
        servers = [server.as_json() for server in ice_servers]
        return web.json_response({"iceServers": servers})

    async def openapi(request: web.Request) -> web.Response:
        document = openapi_document()
        if root := proxies.root(request):
            document["servers"] = [{"url": root}]
        return web.json_response(document)

    async def index(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/api.html"})

    return [
        web.get("/api", index),
        web.get("/api/openapi.json", openapi),
        web.get("/api/version", show_version),
        web.get("/api/config", config),
        web.get("/api/sessions", sessions),
        web.get("/api/targets", targets),
        web.get("/api/targets/{name}", target),
        web.get("/api/targets/{name}/poster", poster),
    ]
