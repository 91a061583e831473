"""Waiting for a condition, with a bound, in place of sleeping for a time that may be too short."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable

POLL_S = 0.01


async def eventually(holds: Callable[[], object], within_s: float = 10.0, what: str = "") -> None:
    """Return when `holds()`, which may be awaitable, is true; fail when it is not in time."""

    async def is_true() -> bool:
        result = holds()
        return bool(await result if inspect.isawaitable(result) else result)

    deadline_s = time.monotonic() + within_s
    while not await is_true():
        assert time.monotonic() < deadline_s, f"not within {within_s} s: {what or holds}"
        await asyncio.sleep(POLL_S)


def eventually_in_thread(holds: Callable[[], object], within_s: float = 10.0) -> None:
    """`eventually`, where no event loop runs."""
    deadline_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline_s, f"not within {within_s} s"
        time.sleep(POLL_S)


async def listens(port: int) -> bool:
    """Whether something takes TCP connections on that port of this machine."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
