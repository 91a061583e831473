"""STUN and TURN servers: from configuration, and for aiortc, browsers and WHIP."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from lipstream.engine.errors import UsageError

if TYPE_CHECKING:
    from aiortc import RTCIceServer

logger = logging.getLogger(__name__)

# For the answers of all STUN and TURN servers, which are asked at once. STUN takes one round trip,
# TURN two; what is lost is asked for again after 0.5 s. aioice itself waits 5 s.
GATHERING_S: Final = 1.0

_URL: Final = re.compile(
    r"(?:stuns?:(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(?::\d{1,5})?)"
    r"|(?:turns?:(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(?::\d{1,5})?(?:\?transport=(?:udp|tcp))?)"
)
_EXPECTED: Final = "stun:HOST[:PORT] or turn:HOST[:PORT][?transport=udp|tcp],USERNAME,CREDENTIAL"

# aiohttp's `response.links` cuts a quoted credential at ";" and keeps its backslashes, so Link
# headers are parsed here.
_VALUE: Final = r'"(?:[^"\\]|\\.)*"|[^;,\s"]+'
_PARAMETER: Final = re.compile(rf";\s*([\w-]+)\s*=\s*({_VALUE})")
_LINK: Final = re.compile(rf"<([^>]*)>((?:\s*;\s*[\w-]+\s*=\s*(?:{_VALUE}))*)")


@dataclass(frozen=True, slots=True)
class IceServer:
    """One server; a TURN server needs a user and a password.

    Raises:
        UsageError: an address that no browser takes, or a TURN server without a user.
    """

    urls: tuple[str, ...]
    username: str | None = None
    credential: str | None = None

    def __post_init__(self) -> None:
        if not self.urls:
            raise UsageError(f"an ICE server without an address; expected {_EXPECTED}")
        for url in self.urls:
            if not _URL.fullmatch(url):
                raise UsageError(f"ICE server {url!r}: expected {_EXPECTED}")
            if url.startswith("turn") and not (self.username and self.credential):
                raise UsageError(f"ICE server {url}: TURN needs a user; expected {_EXPECTED}")
        for text in (self.username, self.credential):
            # They go into a quoted header value, which only printable ASCII leaves intact.
            if text is not None and not (text.isascii() and text.isprintable()):
                raise UsageError("an ICE server's user and password are printable ASCII")

    def as_json(self) -> dict[str, Any]:
        """An RTCIceServer for a browser."""
        out: dict[str, Any] = {"urls": list(self.urls)}
        if self.username is not None:
            out["username"] = self.username
        if self.credential is not None:
            out["credential"] = self.credential
        return out

    def links(self) -> list[str]:
        """A `Link` header for each address. Source: RFC 9725 section 4.6."""
        secret = ""
        if self.username is not None and self.credential is not None:
            secret = (
                f"; username={_quoted(self.username)}; credential={_quoted(self.credential)}"
                '; credential-type="password"'
            )
        return [f'<{url}>; rel="ice-server"{secret}' for url in self.urls]

    def for_aiortc(self) -> RTCIceServer:
        """For aiortc, which uses the first STUN and the first TURN of several servers."""
        from aiortc import RTCIceServer

        return RTCIceServer(
            urls=list(self.urls), username=self.username, credential=self.credential
        )


def parse_server(text: str) -> IceServer:
    """`URL` or `URL,username,credential`; the credential may hold commas.

    Raises:
        UsageError: anything else.
    """
    parts = text.split(",", 2)
    if len(parts) == 2:
        raise UsageError(f"ICE server {parts[0]}: a user without a password; expected {_EXPECTED}")
    return IceServer((parts[0].strip(),), *parts[1:])


def parse_json(text: str) -> tuple[IceServer, ...]:
    """A list of RTCIceServer objects, as `LIPSTREAM_ICE_SERVERS` holds it.

    Raises:
        UsageError: not such a list.
    """
    expected = 'expected a JSON list such as [{"urls": "stun:stun.example.org"}]'
    try:
        listed = json.loads(text)
    except ValueError as error:
        raise UsageError(f"LIPSTREAM_ICE_SERVERS is not JSON ({error}); {expected}") from error
    if not isinstance(listed, list):
        raise UsageError(f"LIPSTREAM_ICE_SERVERS holds a {type(listed).__name__}; {expected}")
    return tuple(_from_json(entry, expected) for entry in listed)


def all_servers(options: Iterable[str], environment: str | None) -> tuple[IceServer, ...]:
    """Those of the command line, then those of the environment.

    Raises:
        UsageError: one cannot be read.
    """
    return (*map(parse_server, options), *(parse_json(environment) if environment else ()))


def from_links(headers: Iterable[str]) -> tuple[IceServer, ...]:
    """The ICE servers of `Link` headers; other links and unusable servers are left out."""
    found = []
    for address, parameters in (m.groups() for h in headers for m in _LINK.finditer(h)):
        values = {m[1].lower(): _unquoted(m[2]) for m in _PARAMETER.finditer(parameters)}
        if values.get("rel") == "ice-server":
            try:
                found.append(
                    IceServer((address,), values.get("username"), values.get("credential"))
                )
            except UsageError as error:
                logger.info("%s", error)
    return tuple(found)


def bounded(gather: Callable[..., Awaitable[list[Any]]]) -> Callable[..., Awaitable[list[Any]]]:
    """aioice's `Connection.get_component_candidates`, waiting for servers for GATHERING_S."""

    async def get_component_candidates(
        self: Any, component: int, addresses: list[str], timeout: float = GATHERING_S
    ) -> list[Any]:
        return await gather(self, component, addresses, timeout)

    return get_component_candidates


def _from_json(entry: Any, expected: str) -> IceServer:
    if not isinstance(entry, dict):
        raise UsageError(f"LIPSTREAM_ICE_SERVERS lists a {type(entry).__name__}; {expected}")
    unknown = set(entry) - {"urls", "username", "credential", "credentialType"}
    if unknown or entry.get("credentialType", "password") != "password":
        what = sorted(unknown)[0] if unknown else "a credentialType other than password"
        raise UsageError(f"LIPSTREAM_ICE_SERVERS has {what}; {expected}")
    urls = entry.get("urls")
    urls = [urls] if isinstance(urls, str) else urls
    texts = [entry.get("username"), entry.get("credential")]
    if not isinstance(urls, list) or not all(isinstance(url, str) for url in urls):
        raise UsageError(f"LIPSTREAM_ICE_SERVERS: urls is {urls!r}; {expected}")
    if not all(text is None or isinstance(text, str) for text in texts):
        raise UsageError(f"LIPSTREAM_ICE_SERVERS: username and credential are text; {expected}")
    return IceServer(tuple(urls), *texts)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text
