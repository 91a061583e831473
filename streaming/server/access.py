"""Who may ask: the token, and the origin and host that a browser states.

Requests that a browser makes for another site are refused by their Origin. Without a token, those
for another host name are refused as well, so that no web page can reach a server on loopback.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Collection
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from lipstream.engine.errors import HttpError


def guard(token: str | None, open_paths: Collection[str]) -> Any:
    """A middleware that refuses who may not ask; `open_paths` need no token."""

    @web.middleware
    async def check(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        if origin is not None and _netloc(origin) != request.host:
            raise HttpError(403, f"origin {origin} is not this server")
        if token is None and not is_loopback(_hostname(request.host)):
            raise HttpError(403, f"host {request.host} is not this machine")
        if token is not None and request.path not in open_paths and not _has(request, token):
            raise HttpError(401, "expected the header Authorization: Bearer TOKEN")
        return await handler(request)

    return check


def is_loopback(host: str | None) -> bool:
    """Whether a host name or address means this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _has(request: web.Request, token: str) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    # aiohttp keeps bytes that are not UTF-8 as surrogates, which a plain encode() refuses.
    same = hmac.compare_digest(_as_bytes(given.strip()), _as_bytes(token))
    return scheme.lower() == "bearer" and same


def _as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _netloc(url: str) -> str | None:
    try:
        return urlsplit(url).netloc
    except ValueError:  # such as an unclosed bracket
        return None


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
