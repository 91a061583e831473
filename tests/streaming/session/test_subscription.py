"""What a viewer receives around interruptions. On a scripted clock."""

from __future__ import annotations

import asyncio

import numpy as np

from tests.clock import ScriptedClock
from tests.streaming.session.conversation import LOUD, conversation, frames_for


def test_interruptions_cost_no_picture() -> None:
    """Five a second, at every phase of a frame."""
    clock = ScriptedClock()

    async def test() -> None:
        async with conversation(clock) as runner:
            interrupted_s: list[float] = []

            async def barge_in() -> None:
                while True:
                    runner.push_audio(np.concatenate([LOUD] * 50))
                    await clock.sleep_async(0.207)
                    runner.interrupt()
                    interrupted_s.append(clock.now())

            task = asyncio.create_task(barge_in())
            got = await frames_for(runner, 4.0)
            task.cancel()
        assert len(interrupted_s) >= 18
        assert {int(step) for step in np.diff([item.media_sample for _, item in got])} == {640}
        assert max(abs(late_s) for late_s, _ in got) < 1e-6, "each at its own time"
        assert runner.counters.dropped_frames == 0
        assert [item.turn for _, item in got] == sorted(item.turn for _, item in got)

    clock.run(test())
