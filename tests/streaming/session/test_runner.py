"""A conversation in its thread: idle life, timing, interruption, end."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lipstream.engine.errors import UsageError
from lipstream.engine.types import AudioChunk
from lipstream.streaming.server.targets import EngineSetting
from lipstream.streaming.session.runner import RunnerOptions, SessionRunner, warm_up
from lipstream.streaming.session.sound_queue import TurnSound
from lipstream.streaming.session.subscription import TimedFrame
from tests.streaming.live_engine import LiveFakeEngine

LOUD = np.full(320, 0.9, np.float32)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


@asynccontextmanager
async def conversation(
    engine: LiveFakeEngine | None = None, options: RunnerOptions | None = None
) -> AsyncIterator[SessionRunner]:
    runner = SessionRunner(engine or LiveFakeEngine(), options)
    runner.start()
    try:
        yield runner
    finally:
        await asyncio.to_thread(runner.close)
        assert not [t for t in threading.enumerate() if t.name == "lipstream-session"]


async def frames_for(runner: SessionRunner, seconds: float) -> list[tuple[float, TimedFrame]]:
    """(seconds since the frame was due, frame)."""
    got: list[tuple[float, TimedFrame]] = []
    subscription = runner.subscribe()
    end_s = time.monotonic() + seconds
    async for item in subscription:
        got.append((time.monotonic() - item.release_s, item))
        if time.monotonic() > end_s:
            break
    subscription.close()
    return got


def test_without_sound_the_target_lives_on_at_its_frame_rate() -> None:
    async def test() -> None:
        async with conversation() as runner:
            got = await frames_for(runner, 2.0)
        media = [item.media_sample for _, item in got]
        assert set(np.diff(media)) == {640}
        assert 44 <= len(got) <= 52  # the first one after the delay
        # Seconds; the median leaves room for a machine that has other work.
        assert all(late_s > -0.002 for late_s, _ in got)
        assert np.median([late_s for late_s, _ in got]) < 0.015

    run(test())


def test_a_frame_leaves_with_the_sound_of_its_own_time() -> None:
    async def test() -> None:
        async with conversation() as runner:
            await asyncio.sleep(0.1)
            task = asyncio.create_task(frames_for(runner, 1.2))
            runner.push_audio(np.concatenate([LOUD] * 20))
            got = [item for _, item in await task]
        loud = [item for item in got if item.frame.speech]
        heard = np.concatenate([item.frame.audio.samples for item in got])
        assert np.count_nonzero(heard) == 6400
        assert 10 <= len(loud) <= 11  # 400 ms, on a grid of 40
        assert all(np.abs(item.frame.audio.samples).max() > 0.25 for item in loud)
        assert all(item.frame.audio.start_sample == item.media_sample for item in got)

    run(test())


def test_speech_faster_than_real_time_is_said_in_real_time() -> None:
    async def test() -> None:
        async with conversation() as runner:
            runner.push_audio(np.concatenate([LOUD] * 500))  # 10 s at once
            got = await frames_for(runner, 1.0)
            assert 22 <= len(got) <= 28
            assert 600 < runner.played_ms() < 1100
            assert runner.speaking

    run(test())


def test_an_interruption_ends_the_turn_within_80_ms() -> None:
    async def test() -> None:
        async with conversation() as runner:
            left: list[tuple[float, TimedFrame]] = []

            async def watch() -> None:
                async for item in runner.subscribe():
                    left.append((time.monotonic(), item))

            task = asyncio.create_task(watch())
            runner.push_audio(np.concatenate([LOUD] * 500))
            await asyncio.sleep(0.8)
            at_s = time.monotonic()
            played_ms = runner.interrupt()
            await asyncio.sleep(0.6)
            task.cancel()
        before = [item for when_s, item in left if when_s < at_s]
        after = [item for when_s, item in left if when_s >= at_s + 0.08]
        assert sum(item.frame.speech for item in before) > 5
        assert len(after) > 10, "the idle life goes on"
        assert not any(item.frame.speech for item in after)
        assert not any(item.turn != 1 for when_s, item in left if when_s >= at_s)
        said = sum(np.count_nonzero(item.frame.audio.samples) for item in before) / 16
        assert played_ms == pytest.approx(said, abs=1)

    run(test())


def test_a_turn_ends_even_if_nobody_watches() -> None:
    async def test() -> None:
        async with conversation() as runner:
            runner.push_audio(np.concatenate([LOUD] * 10))
            assert runner.speaking
            await asyncio.sleep(0.6)
            assert not runner.speaking
            assert runner.played_ms() == 200
            runner.begin_turn()
            assert runner.played_ms() == 0

    run(test())


def test_a_viewer_that_does_not_fetch_loses_the_oldest_and_holds_nobody_up() -> None:
    async def test() -> None:
        async with conversation(options=RunnerOptions(frames_capacity=3)) as runner:
            stuck = runner.subscribe()
            got = await frames_for(runner, 1.0)
            assert len(got) > 20
            assert len(stuck._frames) == 3
            assert runner.counters.dropped_frames >= 15

    run(test())


def test_a_machine_that_is_too_slow_skips_time_and_says_so() -> None:
    async def test() -> None:
        slow = LiveFakeEngine(compute_s=0.2)  # for 20 ms of sound
        async with conversation(slow, RunnerOptions(slip_ms=100)) as runner:
            got = await frames_for(runner, 1.5)
            assert runner.counters.slipped_samples > 0
            assert runner.counters.late_frames > 0
            assert max(late_s for late_s, _ in got) < 0.3, "the delay stays bounded"

    run(test())


def test_a_machine_that_is_a_bit_too_slow_paints_less_and_keeps_the_sound_whole() -> None:
    async def test() -> None:
        slow = LiveFakeEngine(compute_s=0.028)  # to paint; without, it is in time
        async with conversation(slow) as runner:
            await asyncio.sleep(0.3)
            task = asyncio.create_task(frames_for(runner, 2.5))
            runner.push_audio(np.concatenate([LOUD] * 50))
            got = [item for _, item in await task]
            assert runner.counters.slipped_samples == 0
            assert runner.counters.repeated_frames > 5
            assert runner.counters.repeated_frames < 0.85 * runner.counters.frames
        heard = np.concatenate([item.frame.audio.samples for item in got])
        assert np.count_nonzero(heard) == 16_000, "a second, whole"

    run(test())


def test_a_frame_without_painting_is_the_one_before_with_its_own_sound(target: Path) -> None:
    engine = EngineSetting(renderer="none").load(target)
    sound = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    painted, hurried = engine.session(), engine.session()
    truth, got = [], []
    for k in range(50):
        chunk = AudioChunk(sound[320 * k : 320 * (k + 1)], 320 * k)
        truth += painted.push(chunk)
        got += hurried.push(chunk, paint=not 24 <= k < 32)
    assert len(got) == len(truth) > 15
    still = [k for k in range(1, len(got)) if np.array_equal(got[k].i420, got[k - 1].i420)]
    assert len(still) == 4
    for k, (one, other) in enumerate(zip(got, truth, strict=True)):
        assert np.array_equal(one.audio.samples, other.audio.samples)
        assert k in still or np.array_equal(one.i420, other.i420)


def test_an_engine_that_fails_ends_its_own_conversation_only() -> None:
    async def test() -> None:
        async with conversation(LiveFakeEngine(fail_after=20)) as broken, conversation() as sound:
            other = asyncio.create_task(frames_for(sound, 1.0))
            frames = [item async for item in broken.subscribe()]
            assert broken.error == "ValueError: scripted failure"
            assert len(frames) < 20
            assert len(await other) > 20

    run(test())


def test_close_ends_the_thread_and_every_viewer() -> None:
    async def test() -> None:
        runner = SessionRunner(LiveFakeEngine())
        runner.start()
        viewer = runner.subscribe()
        await viewer.next()
        began_s = time.monotonic()
        await asyncio.to_thread(runner.close)
        assert time.monotonic() - began_s < 0.2
        assert await viewer.next() is None

    run(test())


def test_fifty_conversations_leave_no_thread() -> None:
    async def test() -> None:
        before = threading.active_count()
        for _ in range(50):
            runner = SessionRunner(LiveFakeEngine())
            runner.start()
            runner.push_audio(LOUD)
            runner.close()
        assert threading.active_count() == before

    run(test())


def test_options_that_cannot_work_are_refused() -> None:
    with pytest.raises(UsageError, match="in this order"):
        RunnerOptions(playout_delay_ms=10, max_wait_ms=20)


def test_warm_up_is_a_session_of_its_own() -> None:
    assert warm_up(LiveFakeEngine()) < 1


def test_no_collection_in_a_call_goes_through_what_was_loaded_before_it() -> None:
    """It would hold Python's lock for 60 to 80 ms: a gap in everybody's sound."""
    loaded = [[number] for number in range(10)]
    assert any(one is loaded for one in gc.get_objects())
    warm_up(LiveFakeEngine())
    assert not any(one is loaded for one in gc.get_objects())


def test_sound_of_a_turn_that_is_over_is_forgotten_and_comes_too_late() -> None:
    sound = TurnSound(1600, turn=0)
    sound.put(np.full(320, 0.1, np.float32), 0, turn=0)
    sound.put(np.full(320, 0.2, np.float32), 320, turn=1)
    sound.put(np.full(320, 0.1, np.float32), 640, turn=0)
    assert sound.ready(640) and not sound.ready(641)
    taken = sound.take(0, 960, turn=1)
    assert not taken[:320].any() and (taken[320:640] == np.float32(0.2)).all()
    assert not taken[640:].any()
