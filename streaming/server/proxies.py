"""Behind a reverse proxy: which host a request was made to, and under which path the server lies.

A proxy is believed only when its address is listed (`ProxyOptions.trusted`): anybody else could
write the same headers.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from aiohttp import web

from lipstream.engine.errors import UsageError

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")


@dataclass(frozen=True, slots=True)
class ProxyOptions:
    """What the operator says of the proxies in front.

    Raises:
        UsageError: a root path that is none.
    """

    root_path: str = ""  # such as /avatar; requests may come with it or without
    trusted: tuple[Network, ...] = ()  # of proxies whose X-Forwarded-* and Forwarded are believed

    def __post_init__(self) -> None:
        if self.root_path and not _PATH.fullmatch(self.root_path):
            raise UsageError(f"root path {self.root_path!r}: expected a path such as /avatar")

    @classmethod
    def parse(cls, root_path: str, trusted: Iterable[str]) -> ProxyOptions:
        """From the command line: a path, and addresses or networks.

        Raises:
            UsageError: something else.
        """
        return cls(root_path.rstrip("/"), tuple(map(_network, trusted)))

    def trusts(self, request: web.Request) -> bool:
        """Whether a request comes from one of the listed proxies."""
        try:
            address = ipaddress.ip_address((request.remote or "").partition("%")[0])
        except ValueError:  # a Unix socket
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self.trusted)

    def hosts(self, request: web.Request) -> list[str]:
        """The hosts under which the client may have asked, each as in a Host header."""
        return [request.host, *self.forwarded_hosts(request)]

    def forwarded_hosts(self, request: web.Request) -> list[str]:
        """Those that a trusted proxy states; source: RFC 7239, and X-Forwarded-Host and -Port."""
        if not self.trusts(request):
            return []
        headers = request.headers
        hosts = _listed(headers.getall("X-Forwarded-Host", []))
        hosts += [one["host"] for one in request.forwarded if one.get("host")]
        ports = _listed(headers.getall("X-Forwarded-Port", []))
        return [*hosts, *(f"{host}:{port}" for host in [*hosts, request.host] for port in ports)]

    def root(self, request: web.Request) -> str:
        """What clients must put before a path of ours: "" or such as /avatar."""
        if self.trusts(request):
            stated = request.headers.get("X-Forwarded-Prefix", "").rstrip("/")
            if _PATH.fullmatch(stated):
                return stated
        return self.root_path

    def own_path(self, request: web.Request) -> str:
        """The path without the root path, whether the proxy has left it there or not."""
        if self.root_path and f"{request.path}/".startswith(self.root_path + "/"):
            return request.path.removeprefix(self.root_path) or "/"
        return request.path

    def under_root(self, routes: Iterable[web.RouteDef]) -> list[web.RouteDef]:
        """The routes; with a root path, also under it, for proxies that leave it in the path."""
        routes = list(routes)
        if not self.root_path:
            return routes

        async def add_slash(request: web.Request) -> web.Response:
            return web.Response(status=308, headers={"Location": "/"})

        prefixed = [
            web.RouteDef(route.method, self.root_path + route.path, route.handler, route.kwargs)
            for route in routes
        ]
        return [*routes, web.get(self.root_path, add_slash), *prefixed]

    def locate(self) -> Any:
        """A middleware that puts the root before a `Location` of ours."""

        @web.middleware
        async def prefixed(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            response = await handler(request)
            location = response.headers.get("Location", "")
            if location.startswith("/"):
                response.headers["Location"] = self.root(request) + location
            return response

        return prefixed


def same_host(origin: str, host: str) -> bool:
    """Whether an Origin names a host, given as in a Host header; default ports may be left out."""
    try:
        ours, theirs = urlsplit(f"//{host}"), urlsplit(origin)
        default = _DEFAULT_PORTS.get(theirs.scheme)
        return (
            theirs.hostname is not None
            and ours.hostname == theirs.hostname
            and (ours.port or default) == (theirs.port or default)
        )
    except ValueError:  # such as an unclosed bracket
        return False


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text.strip(), strict=False)
    except ValueError as error:
        raise UsageError(
            f"trusted proxy {text!r}: expected an address or a network, such as 127.0.0.1 or "
            "10.0.0.0/8"
        ) from error


def _listed(values: Iterable[str]) -> list[str]:
    return [part.strip() for value in values for part in value.split(",") if part.strip()]
