"""Who may ask: the token, and the origin and host that a browser states.

Requests that a browser makes for another site are refused by their Origin. Without a token, those
for another host name are refused as well, so that no web page can reach a server on loopback.

Behind a proxy the Host header may be the proxy's own. An Origin is then ours if the browser says so
(`Sec-Fetch-Site: same-origin`, which no page can write) or if a trusted proxy states that host. A
trusted proxy that states none leaves nothing to compare, and the token alone decides.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import web

from lipstream.engine.errors import HttpError
from lipstream.streaming.server.proxies import ProxyOptions, same_host

_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, POST, PATCH, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match, Lipstream-Resume",
    "Access-Control-Max-Age": "600",
}


def guard(
    token: str | None,
    open_paths: Collection[str],
    proxies: ProxyOptions,
    siblings: Callable[[], Collection[str]] = tuple,
) -> Any:
    """A middleware that refuses who may not ask.

    Args:
        token: the secret; None for a server on loopback.
        open_paths: need no token.
        proxies: that are believed.
        siblings: origins of the same service's other nodes, whose pages are ours.
    """

    @web.middleware
    async def check(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        is_sibling = origin is not None and origin in siblings()
        if origin is not None and not is_sibling and not _is_ours(origin, request, proxies):
            raise HttpError(
                403,
                f"origin {origin} is not this server, {request.host}; behind a proxy, see "
                "--trusted-proxy",
            )
        if token is None and not is_loopback(_hostname(request.host)):
            raise HttpError(403, f"host {request.host} is not this machine")
        is_open = proxies.own_path(request) in open_paths
        if token is not None and not is_open and not _has(request, token):
            raise HttpError(401, "expected the header Authorization: Bearer TOKEN")
        return await handler(request)

    return check


def answer_siblings(siblings: Callable[[], Collection[str]]) -> Any:
    """A middleware that lets pages of the service's other nodes read the answers (CORS)."""

    @web.middleware
    async def allow(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        if origin is None or origin not in siblings():
            return await handler(request)
        allowed = {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return web.Response(status=204, headers={**allowed, **_PREFLIGHT})
        response = await handler(request)
        if not response.prepared:  # a WebSocket needs none
            response.headers.update(allowed)
        return response

    return allow


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


def _is_ours(origin: str, request: web.Request, proxies: ProxyOptions) -> bool:
    if any(same_host(origin, host) for host in proxies.hosts(request)):
        return True
    if request.headers.get("Sec-Fetch-Site") == "same-origin":
        return True
    return proxies.trusts(request) and not proxies.forwarded_hosts(request)


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
