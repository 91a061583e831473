"""What the page and programs ask under /api: targets, sessions, version, this API itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from importlib.metadata import version
from typing import Any
from urllib.parse import quote

from aiohttp import web

from lipstream.engine.errors import HttpError, LipstreamError, UsageError
from lipstream.streaming.server.openapi import document
from lipstream.streaming.server.signalling import Signalling, figures
from lipstream.streaming.server.targets import Gallery

logger = logging.getLogger(__name__)


def routes(
    names: Callable[[], list[str]], gallery: Gallery | None, signalling: Signalling
) -> list[web.RouteDef]:
    """Everything under /api; without a gallery, targets have only names."""

    def about(name: str) -> dict[str, Any]:
        if name not in names():
            raise HttpError(404, f"no target {name!r}; /api/targets lists those that are here")
        if gallery is None:
            return {"name": name}
        poster = f"/api/targets/{quote(name, safe='')}/poster"
        return {**gallery.about(name).as_json(), "poster": poster}

    def all_targets() -> list[dict[str, Any]]:
        listed = []
        for name in names():
            try:
                listed.append(about(name))
            except LipstreamError as error:
                # One damaged bundle must not hide the others; a call with it says what is wrong.
                logger.warning("target %s: %s", name, error)
        return listed

    async def targets(request: web.Request) -> web.Response:
        return web.json_response({"targets": await asyncio.to_thread(all_targets)})

    async def target(request: web.Request) -> web.Response:
        try:
            found = await asyncio.to_thread(about, request.match_info["name"])
        except LipstreamError as error:
            raise HttpError(500, str(error)) from error
        return web.json_response(found)

    async def poster(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if gallery is None:
            raise HttpError(404, f"no poster of {name!r}")
        try:
            picture = await asyncio.to_thread(gallery.poster, name)
        except UsageError as error:
            raise HttpError(404, str(error)) from error
        except LipstreamError as error:
            raise HttpError(500, str(error)) from error
        return web.Response(body=picture, content_type="image/jpeg")

    async def sessions(request: web.Request) -> web.Response:
        return web.json_response({"sessions": [figures(room) for room in signalling.rooms]})

    async def told_version(request: web.Request) -> web.Response:
        return web.json_response({"version": version("lipstream")})

    async def config(request: web.Request) -> web.Response:
        servers = [server.as_json() for server in signalling.ice_servers]
        return web.json_response({"iceServers": servers})

    async def openapi(request: web.Request) -> web.Response:
        return web.json_response(document(version("lipstream")))

    async def index(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/api.html"})

    return [
        web.get("/api", index),
        web.get("/api/openapi.json", openapi),
        web.get("/api/version", told_version),
        web.get("/api/config", config),
        web.get("/api/sessions", sessions),
        web.get("/api/targets", targets),
        web.get("/api/targets/{name}", target),
        web.get("/api/targets/{name}/poster", poster),
    ]
