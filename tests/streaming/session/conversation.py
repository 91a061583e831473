"""A conversation with the fake engine on a scripted clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np

from lipstream.streaming.session.runner import RunnerOptions, SessionRunner
from lipstream.streaming.session.subscription import TimedFrame
from tests.clock import ScriptedClock
from tests.streaming.live_engine import LiveFakeEngine

LOUD = np.full(320, 0.9, np.float32)


@asynccontextmanager
async def conversation(
    clock: ScriptedClock,
    engine: LiveFakeEngine | None = None,
    options: RunnerOptions | None = None,
) -> AsyncIterator[SessionRunner]:
    runner = SessionRunner(engine or LiveFakeEngine(), options, clock)
    runner.start()
    try:
        yield runner
    finally:
        await asyncio.to_thread(runner.close)
        assert not runner._thread.is_alive()


async def frames_for(runner: SessionRunner, seconds: float) -> list[tuple[float, TimedFrame]]:
    """(seconds since the frame was due, frame)."""
    now = runner.clock.now
    got: list[tuple[float, TimedFrame]] = []
    subscription = runner.subscribe()
    end_s = now() + seconds
    async for item in subscription:
        got.append((now() - item.release_s, item))
        if now() > end_s:
            break
    subscription.close()
    return got
