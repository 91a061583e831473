"""A conversation in its thread: idling, timing, interruption, end. On a scripted clock."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from lipstream.engine.cores import usable_cores
from lipstream.engine.errors import UsageError
from lipstream.engine.types import AudioChunk
from lipstream.streaming.server.targets import EngineSetting
from lipstream.streaming.session.live_engine import compute_slots
from lipstream.streaming.session.runner import RunnerOptions, SessionRunner
from lipstream.streaming.session.subscription import TimedFrame, TimedSound
from tests.clock import ScriptedClock
from tests.streaming.live_engine import LiveFakeEngine, LiveFakeSession
from tests.streaming.session.conversation import LOUD, conversation, frames_for


@pytest.fixture
def clock() -> ScriptedClock:
    return ScriptedClock()


def test_without_sound_frames_leave_on_time_at_the_frame_rate(clock: ScriptedClock) -> None:
    async def test() -> None:
        async with conversation(clock) as runner:
            got = await frames_for(runner, 2.0)
        assert {int(step) for step in np.diff([item.media_sample for _, item in got])} == {640}
        assert [item.media_sample for _, item in got[:1]] == [0]
        assert len(got) == 48, "2 s and the frame after it, less the delay of 160 ms"
        assert max(abs(late_s) for late_s, _ in got) < 1e-6

    clock.run(test())


def test_a_frame_leaves_with_the_sound_of_its_own_time(clock: ScriptedClock) -> None:
    async def test() -> None:
        async with conversation(clock) as runner:
            await clock.sleep_async(0.1)
            task = asyncio.create_task(frames_for(runner, 1.2))
            runner.push_audio(np.concatenate([LOUD] * 20))
            got = [item for _, item in await task]
        loud = [item for item in got if item.frame.speech]
        sound = np.concatenate([item.frame.audio.samples for item in got])
        assert np.count_nonzero(sound) == 6400
        assert len(loud) == 11, "400 ms, on a grid of 40"
        assert all(np.abs(item.frame.audio.samples).max() > 0.25 for item in loud)
        assert all(item.frame.audio.start_sample == item.media_sample for item in got)

    clock.run(test())


def test_speech_faster_than_real_time_leaves_in_real_time(clock: ScriptedClock) -> None:
    async def test() -> None:
        async with conversation(clock) as runner:
            runner.push_audio(np.concatenate([LOUD] * 500))  # 10 s at once
            got = await frames_for(runner, 1.0)
            assert len(got) == 23
            # 1.04 s have passed, 160 ms are the delay, and the speech starts at 24 ms.
            assert runner.played_ms() == pytest.approx(1040 - 160 - 24, abs=0.1)
            assert runner.speaking

    clock.run(test())


def test_an_interruption_ends_the_turn_at_once(clock: ScriptedClock) -> None:
    async def test() -> None:
        async with conversation(clock) as runner:
            left: list[tuple[float, TimedFrame]] = []

            async def watch() -> None:
                async for item in runner.subscribe():
                    left.append((clock.now(), item))

            task = asyncio.create_task(watch())
            runner.push_audio(np.concatenate([LOUD] * 500))
            await clock.sleep_async(0.8)
            at_s = clock.now()
            played_ms = runner.interrupt()
            await clock.sleep_async(0.6)
            task.cancel()
        before = [item for when_s, item in left if when_s < at_s]
        after = [item for when_s, item in left if when_s >= at_s]
        assert sum(item.frame.speech for item in before) > 5
        assert len(after) > 10, "idling goes on"
        assert not any(item.frame.speech for item in after)
        assert {item.turn for item in after} == {1}
        sound = sum(np.count_nonzero(item.frame.audio.samples) for item in before) / 16
        assert played_ms == pytest.approx(sound, abs=0.1)

    clock.run(test())


class BlockedSession(LiveFakeSession):
    """Its `interrupt` waits until the test lets it go, as a worker process that is busy."""

    def __init__(self, engine: LiveFakeEngine) -> None:
        super().__init__(engine)
        self.entered, self.leave = threading.Event(), threading.Event()

    def interrupt(self) -> None:
        self.entered.set()
        assert self.leave.wait(30)
        super().interrupt()


class BlockedEngine(LiveFakeEngine):
    def session(self) -> BlockedSession:
        return BlockedSession(self)


def test_an_interruption_that_takes_the_engine_long_blocks_nobody_else() -> None:
    """Sound is pushed and progress asked for on the event loop of the whole server."""
    runner = SessionRunner(BlockedEngine())
    session = runner._session
    assert isinstance(session, BlockedSession)
    runner.start()
    try:
        runner.push_audio(LOUD)
        runner.interrupt()
        assert session.entered.wait(10), "the engine's interruption runs"

        done = threading.Event()

        def ask() -> None:
            runner.push_audio(LOUD)
            runner.played_ms()
            runner.interrupt()
            assert not runner.speaking
            done.set()

        threading.Thread(target=ask, daemon=True).start()
        assert done.wait(5), "push_audio and played_ms waited for the engine"
        assert not session.leave.is_set()
    finally:
        session.leave.set()
        runner.close()


def test_a_turn_ends_even_if_nobody_watches(clock: ScriptedClock) -> None:
    async def test() -> None:
        async with conversation(clock) as runner:
            runner.push_audio(np.concatenate([LOUD] * 10))
            assert runner.speaking
            await clock.sleep_async(0.6)
            assert not runner.speaking
            assert runner.played_ms() == 200
            runner.begin_turn()
            assert runner.played_ms() == 0

    clock.run(test())


def test_a_viewer_that_does_not_fetch_loses_the_oldest_frames(clock: ScriptedClock) -> None:
    async def test() -> None:
        async with conversation(clock, options=RunnerOptions(frames_capacity=3)) as runner:
            stuck = runner.subscribe()
            got = await frames_for(runner, 1.0)
            assert len(got) == 23, "another viewer is not held up"
            assert len(stuck._frames) == 3
            assert runner.counters.dropped_frames == runner.counters.frames - 3

    clock.run(test())


def test_a_machine_that_is_too_slow_skips_time_and_counts_it(clock: ScriptedClock) -> None:
    async def test() -> None:
        slow = LiveFakeEngine(compute_s=0.2, sleep=clock.sleep)  # for 20 ms of sound
        async with conversation(clock, slow, RunnerOptions(slip_ms=100)) as runner:
            got = await frames_for(runner, 1.5)
            assert runner.counters.slipped_samples > 0
            assert runner.counters.late_frames > 0
            # Six steps of sound are in the engine, and each of them took 220 ms.
            late_s = [late_s for late_s, _ in got[-4:]]
            assert max(late_s) < 6 * 0.22 and np.ptp(late_s) < 0.3, "the delay stays bounded"

    clock.run(test())


class StallingSession(LiveFakeSession):
    """Its 20th step takes a second."""

    def push(self, chunk: AudioChunk, paint: bool = True) -> list:  # type: ignore[type-arg]
        if self.pushes == 20:
            self.engine.sleep(1.0)
        return super().push(chunk, paint)


class StallingEngine(LiveFakeEngine):
    def session(self) -> StallingSession:
        return StallingSession(self)


def test_frames_of_sound_that_was_fed_before_a_slip_keep_its_place(clock: ScriptedClock) -> None:
    """The engine holds 120 ms of sound when time is skipped."""
    sounds: list[TimedSound] = []

    async def test() -> None:
        async with conversation(clock, StallingEngine(sleep=clock.sleep)) as runner:
            painted: list[TimedFrame] = []
            subscription = runner.subscribe(painted.append, sounds.append)
            speech = np.arange(1, 32_001, dtype=np.float32) / 32_000  # every sample its own value
            runner.push_audio(speech)
            await clock.sleep_async(2.5)
            subscription.close()
        slipped = runner.counters.slipped_samples
        assert slipped > 8000
        # Each sample has one place, as sound and in its frame.
        fed_at = {
            float(value): item.media_sample + k
            for item in sounds
            for k, value in enumerate(item.samples)
            if value
        }
        for item in painted:
            first = float(item.frame.audio.samples[0])
            assert not first or item.media_sample == fed_at[first]
        places = [item.media_sample for item in painted]
        assert places == sorted(places)
        steps = {int(step) for step in np.diff(places)}
        assert steps == {640, 640 + slipped}
        before = [item for item in painted if item.media_sample < 20 * 320]
        assert len(before) == 10, "three of them came out after the slip"

    clock.run(test())


def test_a_machine_that_is_slightly_too_slow_repeats_pictures_and_keeps_the_sound(
    clock: ScriptedClock,
) -> None:
    async def test() -> None:
        # To render; repeating takes no time.
        slow = LiveFakeEngine(compute_s=0.028, sleep=clock.sleep)
        async with conversation(clock, slow) as runner:
            await clock.sleep_async(0.3)
            task = asyncio.create_task(frames_for(runner, 2.5))
            runner.push_audio(np.concatenate([LOUD] * 50))
            got = [item for _, item in await task]
            assert runner.counters.slipped_samples == 0
            assert runner.counters.repeated_frames > 5
            assert runner.counters.repeated_frames < 0.85 * runner.counters.frames
        sound = np.concatenate([item.frame.audio.samples for item in got])
        assert np.count_nonzero(sound) == 16_000, "a second, whole"

    clock.run(test())


def test_an_engine_for_files_is_refused() -> None:
    with pytest.raises(UsageError, match="profile file needs the whole sound"):
        SessionRunner(LiveFakeEngine(delay_ms=42_500.0))


def test_a_repeated_frame_shows_the_previous_picture_with_its_own_sound(target: Path) -> None:
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


def test_an_engine_that_fails_ends_its_own_conversation_only(clock: ScriptedClock) -> None:
    async def test() -> None:
        broken_engine = LiveFakeEngine(fail_after=20)
        async with (
            conversation(clock, broken_engine) as broken,
            conversation(clock) as whole,
        ):
            other = asyncio.create_task(frames_for(whole, 1.0))
            frames = [item async for item in broken.subscribe()]
            assert broken.error == "ValueError: scripted failure"
            assert len(frames) < 20
            assert len(await other) == 23

    clock.run(test())


def test_an_engine_session_that_cannot_be_closed_keeps_no_viewer_waiting(
    clock: ScriptedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(session: LiveFakeSession) -> None:
        raise BufferError("cannot close exported pointers exist")

    monkeypatch.setattr(LiveFakeSession, "close", fails)

    async def test() -> None:
        runner = SessionRunner(LiveFakeEngine(fail_after=20), time_source=clock)
        runner.start()
        assert len([item async for item in runner.subscribe()]) < 20
        assert runner.closed
        assert runner.error == "ValueError: scripted failure"
        await asyncio.to_thread(runner.close)

    clock.run(test())


def test_close_ends_the_thread_and_every_viewer(clock: ScriptedClock) -> None:
    async def test() -> None:
        runner = SessionRunner(LiveFakeEngine(), time_source=clock)
        runner.start()
        viewer = runner.subscribe()
        await viewer.next()
        await asyncio.to_thread(runner.close)
        assert not runner._thread.is_alive()
        assert await viewer.next() is None

    clock.run(test())


def test_fifty_conversations_leave_no_thread() -> None:
    before = threading.active_count()
    for _ in range(50):
        runner = SessionRunner(LiveFakeEngine())
        runner.start()
        runner.push_audio(LOUD)
        runner.close()
    assert threading.active_count() == before


def test_compute_time_is_counted_on_the_injected_clock(clock: ScriptedClock) -> None:
    async def test() -> None:
        engine = LiveFakeEngine(compute_s=0.007, sleep=clock.sleep)
        async with conversation(clock, engine) as runner:
            await clock.sleep_async(0.5)
        assert set(np.round(runner.counters.compute_ms, 3)) == {7.0}

    clock.run(test())


def test_nothing_asks_for_the_number_of_cores_at_import() -> None:
    code = (
        "import os\n"
        "def probe(*_): raise AssertionError('asked at import')\n"
        "os.sched_getaffinity = os.cpu_count = probe\n"
        "import lipstream.streaming.session.runner\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class RemoteSession(LiveFakeSession):
    is_remote = True


class RemoteEngine(LiveFakeEngine):
    def session(self) -> RemoteSession:
        return RemoteSession(self)


def test_a_remote_session_does_not_wait_for_a_core_of_this_process(clock: ScriptedClock) -> None:
    async def test() -> None:
        turns = compute_slots()
        taken = usable_cores()
        for _ in range(taken):
            turns.acquire()
        try:
            async with conversation(clock, RemoteEngine()) as runner:
                await clock.sleep_async(0.5)
                assert runner.counters.frames > 5
        finally:
            turns.release(taken)

    clock.run(test())


def test_options_that_cannot_work_are_refused() -> None:
    with pytest.raises(UsageError, match="in this order"):
        RunnerOptions(playout_delay_ms=10, max_wait_ms=20)
