"""URLs as places to read from, by whatever file system fsspec has for them.

A URL comes from who runs the command, and from nobody else: no request to a server, and no bundle,
names one. Nothing shown or logged holds its user, password or query.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from lipstream.engine.errors import LipstreamError, TargetError, UsageError
from lipstream.engine.extras import require

# Two letters at least: "C:" is a drive. "::" chains file systems, as in simplecache::s3://...
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(://|::)")
_BLOCK_BYTES: Final = 1 << 20
_SILENT_S: Final = 60.0  # after which a web server is given up


class Location(NamedTuple):
    """Where a URL leads to."""

    url: str  # to be shown: without user, password and query
    system: Any  # an fsspec file system
    path: str  # in it

    def below(self, name: str) -> str:
        """The path of a file in it."""
        return f"{self.path}/{name}"


def is_url(target: str) -> bool:
    """Whether a target is elsewhere; what lies on this machine under that name goes first."""
    return _URL.match(target) is not None and not Path(target).exists()


def locate(url: str) -> Location:
    """Raises: UsageError without fsspec, or without a file system for this kind of URL."""
    require("remote", "a target's URL", "fsspec")
    from fsspec.core import url_to_fs

    shown = _without_secrets(url).rstrip("/")
    options: dict[str, Any] = {}
    if _is_http(url.partition("://")[0].lower()):
        from aiohttp import ClientTimeout

        # Not of the whole file, which may be large.
        options["client_kwargs"] = {"timeout": ClientTimeout(total=None, sock_read=_SILENT_S)}
    try:
        system, path = url_to_fs(url, **options)
    except (ImportError, ValueError) as error:  # each says which package it needs
        raise UsageError(f"{shown}: {' '.join(str(error).split())}") from error
    return Location(shown, system, str(path).rstrip("/"))


@contextlib.contextmanager
def reading(location: Location) -> Iterator[None]:
    """What any file system raises, as one line about the URL."""
    try:
        with about(location):
            yield
    except LipstreamError:
        raise
    except Exception as error:  # the errors of file systems have no common base
        # fsspec calls whatever keeps it from opening a web address a missing file.
        cause = error.__cause__ or error
        if isinstance(cause, FileNotFoundError) or getattr(cause, "status", None) == 404:
            name = safe_name(str(error)) or "a file"
            raise TargetError(f"{location.url}: no target there: {name} is missing") from error
        why = " ".join(_without_secrets(str(cause)).split()) or type(cause).__name__
        raise TargetError(f"{location.url}: cannot be read ({why[:200]})") from error


@contextlib.contextmanager
def about(location: Location) -> Iterator[None]:
    """A bundle's errors name its URL."""
    try:
        yield
    except TargetError as error:
        raise TargetError(f"{location.url}: {error}") from error


def blocks(system: Any, path: str, limit: int) -> Iterator[bytes]:
    """A file from its beginning, at most `limit` bytes of it."""
    # Many web servers know no ranges: 0 is one request, read as it comes.
    whole = {"block_size": 0} if _is_http(system.protocol) else {}
    with system.open(path, "rb", **whole) as file:
        while limit and (block := file.read(min(_BLOCK_BYTES, limit))):
            yield block
            limit -= len(block)


def safe_name(path: str) -> str:
    """Of the bundle's folder: the last part of its path, without what could lead elsewhere."""
    name = re.sub(r"[^\w. +=@,()-]", "_", unquote(path).rstrip("/").rpartition("/")[2])[:100]
    return name.lstrip(".") or "remote"


def _is_http(protocol: str | Sequence[str]) -> bool:
    names = [protocol] if isinstance(protocol, str) else protocol
    return any(name in ("http", "https") for name in names)


def _without_secrets(text: str) -> str:
    """Without the user, the password and the query of a URL."""
    return re.sub(r"\?\S*", "", re.sub(r"//[^/@\s]*@", "//", text))
