"""Statuses by the type of an error; and requests that are made to break the checks of access."""

from __future__ import annotations

import asyncio
import logging

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("aiortc", reason="aiortc is not installed")

from lipstream.engine.errors import (  # noqa: E402
    HttpError,
    LipstreamError,
    NoFreePort,
    ServerBusy,
    SessionConflict,
    TargetError,
    UnknownTarget,
    UsageError,
    WorkerLost,
)
from lipstream.streaming.server.error_responses import status_of  # noqa: E402
from lipstream.streaming.session.live_engine import LiveEngine  # noqa: E402
from tests.streaming.server.fake_server import SDP, TOKEN, server  # noqa: E402


@pytest.mark.parametrize(
    "error, status",
    [
        (UnknownTarget("x"), 404),
        (SessionConflict("no target"), 409),
        (UsageError("no target"), 400),
        (ServerBusy("no target"), 503),
        (NoFreePort("x"), 503),
        (WorkerLost("x"), 503),
        (TargetError("x"), 500),
        (LipstreamError("x"), 500),
        (HttpError(405, "x"), 405),
    ],
)
def test_the_type_decides_and_not_the_words(error: LipstreamError, status: int) -> None:
    assert status_of(error) == status


@pytest.mark.parametrize(
    "method, path, allowed",
    [
        ("GET", "/whip?target=face", {"POST", "OPTIONS"}),
        ("PUT", "/whep?target=face", {"POST", "OPTIONS"}),
        ("DELETE", "/api/targets", {"GET", "HEAD"}),
        ("POST", "/", {"GET", "HEAD"}),
    ],
)
def test_a_wrong_method_is_answered_with_those_that_are_right(
    method: str, path: str, allowed: set[str]
) -> None:
    async def test() -> None:
        async with server() as http:
            answer = await http.request(method, path)
            assert answer.status == 405
            assert set(answer.headers["Allow"].split(", ")) == allowed
            error = (await answer.json())["error"]
            assert error.startswith(f"{method} is not possible here: use ")

    asyncio.run(test())


@pytest.mark.parametrize(
    "error, status",
    [
        (UnknownTarget("not here"), 404),
        (TargetError("no target.json"), 500),
        (WorkerLost("x"), 503),
    ],
)
def test_a_target_that_cannot_be_had_is_answered_with_its_reason(
    error: LipstreamError, status: int
) -> None:
    async def engine(name: str) -> LiveEngine:
        raise error

    async def test() -> None:
        async with server(engine=engine) as http:
            for path in ("/whip", "/whep"):
                answer = await http.post(f"{path}?target=face", data="v=0\r\n", headers=SDP)
                assert answer.status == status, path
                assert (await answer.json())["error"] == str(error)

    asyncio.run(test())


async def raw_status(port: int, *lines: bytes) -> int:
    """The status of a GET of /api/targets with these header lines, sent as they are."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = [b"GET /api/targets HTTP/1.1", *lines, b"Connection: close", b"", b""]
    writer.write(b"\r\n".join(request))
    status = int((await reader.readline()).split()[1])
    await reader.read()
    writer.close()
    await writer.wait_closed()
    return status


HOST = b"Host: 127.0.0.1"


@pytest.mark.parametrize(
    "token, lines, status",
    [
        (TOKEN, [HOST, b"Authorization: Bearer \xff\xfe"], 401),
        (TOKEN, [HOST, b"Authorization: \xff"], 401),
        (TOKEN, [HOST, "Authorization: Bearer schlüssel".encode()], 401),
        (TOKEN, [HOST, b"Authorization: Bearer " + TOKEN.encode()], 200),
        ("geheimer-schlüssel", [HOST, "Authorization: Bearer geheimer-schlüssel".encode()], 200),
        (None, [HOST, b"Origin: http://["], 403),
        (None, [HOST, b"Origin: \xff"], 403),
        (None, [b"Host: ["], 403),
        (None, [b"Host: \xff"], 403),
    ],
)
def test_headers_that_are_no_text_are_refused_and_not_a_fault(
    token: str | None, lines: list[bytes], status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        options = {} if token is None else {"token": token}
        async with server(**options) as http:
            assert await raw_status(http._base_url.port, *lines) == status  # type: ignore[union-attr]

    with caplog.at_level(logging.ERROR):
        asyncio.run(test())
    assert not caplog.records
