"""Errors as HTTP answers: a status by the error's type, and the reason as JSON."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from aiohttp import web

from lipstream.engine.errors import (
    ConsentMissing,
    HttpError,
    LipstreamError,
    NoFreePort,
    ServerBusy,
    SessionConflict,
    UnknownTarget,
    UsageError,
    WorkerLost,
)

logger = logging.getLogger(__name__)

# The first type that fits decides; any other LipstreamError is a fault of the server's own.
_STATUS: Final[tuple[tuple[type[LipstreamError], int], ...]] = (
    (ConsentMissing, 403),
    (UnknownTarget, 404),
    (SessionConflict, 409),
    (UsageError, 400),
    (ServerBusy, 503),
    (NoFreePort, 503),
    (WorkerLost, 503),
)
_HEADERS: Final = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "10"}}


def status_of(error: LipstreamError) -> int:
    """The HTTP status that fits an error."""
    if isinstance(error, HttpError):
        return error.status
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


@web.middleware
async def answer_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Reasons as JSON; a bug answers 500 without its details and is logged with them."""
    try:
        return await handler(request)
    except LipstreamError as error:
        status = status_of(error)
        if status == 500:
            logger.error("%s %s: %s", request.method, request.path, error)
        return _not_allowed(request, str(error)) if status == 405 else _response(status, str(error))
    except web.HTTPMethodNotAllowed as error:
        return _not_allowed(request, None, error.allowed_methods)
    except web.HTTPException as error:
        return _response(error.status, error.reason)
    except Exception:
        logger.exception("a request failed")
        return _response(500, "internal error")


def _not_allowed(
    request: web.Request, reason: str | None, allowed: Iterable[str] | None = None
) -> web.Response:
    """405 with the methods that the address takes (RFC 9110, 15.5.6)."""
    if allowed is None:
        resource = request.match_info.route.resource
        allowed = {route.method for route in resource or ()} - {request.method}
    listed = ", ".join(sorted(allowed))
    response = _response(405, reason or f"{request.method} is not possible here: use {listed}")
    response.headers["Allow"] = listed
    return response


def _response(status: int, reason: str) -> web.Response:
    return web.json_response({"error": reason}, status=status, headers=_HEADERS.get(status))
