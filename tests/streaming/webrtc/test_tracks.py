"""The tracks of a call: sound that leaves on time, and a voice that arrives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest

pytest.importorskip("aiortc", reason="aiortc is not installed")

from lipstream.engine.types import (  # noqa: E402
    F32,
    SAMPLE_RATE_HZ,
    STEP_SAMPLES,
    AudioChunk,
    VideoFrame,
)
from lipstream.streaming.session.runner import SessionRunner  # noqa: E402
from lipstream.streaming.webrtc.tracks import IncomingVoice, OutgoingAudio  # noqa: E402
from tests.streaming.live_engine import LiveFakeEngine, LiveFakeSession  # noqa: E402


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


@pytest.mark.alone
def test_sound_is_not_sent_late_after_the_loop_was_held_up() -> None:
    async def test() -> None:
        runner = SessionRunner(LiveFakeEngine())
        runner.start()
        audio = OutgoingAudio(runner)
        try:
            stamps = [(await audio.recv()).pts for _ in range(5)]
            time.sleep(0.6)  # noqa: ASYNC251 - the loop is what is held up
            stamps += [(await audio.recv()).pts for _ in range(5)]
            late_s = runner.clock.now() - runner.clock.wall_s(
                audio._next_sample - STEP_SAMPLES + runner.delay_samples
            )
        finally:
            await asyncio.to_thread(runner.close)
        steps = np.diff(stamps)
        assert (steps[1:4] == STEP_SAMPLES).all() and (steps[5:] == STEP_SAMPLES).all()
        assert 0.4 * SAMPLE_RATE_HZ < steps[4] < 0.8 * SAMPLE_RATE_HZ
        assert late_s < 0.1

    run(test())


@pytest.mark.alone
def test_a_late_picture_makes_no_late_sound() -> None:
    class Stalling(LiveFakeSession):
        def push(self, chunk: AudioChunk, paint: bool = True) -> list[VideoFrame]:
            if self.pushes % 25 == 24:
                time.sleep(0.1)
            return super().push(chunk, paint)

    class Engine(LiveFakeEngine):
        def session(self) -> LiveFakeSession:
            return Stalling(self)

    async def test() -> None:
        runner = SessionRunner(Engine())
        audio = OutgoingAudio(runner)
        subscription = runner.subscribe(sound=audio.push_audio)
        runner.start()
        received: list[F32] = []
        late_s: list[float] = []
        try:
            runner.push_audio(np.full(3 * SAMPLE_RATE_HZ, 0.5, np.float32))
            for _ in range(120):
                received.append((await audio.recv()).to_ndarray()[0] / 32767)
                due = audio._next_sample - STEP_SAMPLES + runner.delay_samples
                late_s.append(runner.clock.now() - runner.clock.wall_s(due))
        finally:
            subscription.close()
            await asyncio.to_thread(runner.close)
        assert runner.counters.late_frames >= 4
        spoken = np.concatenate(received[15:])
        assert np.abs(spoken - 0.5).max() < 0.01, "without a gap"
        assert np.percentile(late_s, 95) < 0.02

    run(test())


class FakeRunner:
    def __init__(self) -> None:
        self.pushed: list[tuple[int, F32]] = []

    def push_audio(self, samples: F32, source_sample: int, arrival_s: float | None) -> None:
        self.pushed.append((source_sample, samples))

    def gaps(self) -> list[int]:
        """Samples between the end of each part and the start of the next."""
        ends = [start + samples.size for start, samples in self.pushed]
        starts = [start for start, _ in self.pushed]
        return [b - a for a, b in zip(ends, starts[1:], strict=False)]


def packet(k: int, rate_hz: int, layout: str, pts: int) -> av.AudioFrame:
    """20 ms of a tone; the same level in every channel."""
    count = rate_hz // 50
    channels = {"mono": 1, "stereo": 2}[layout]
    wave = 16_000 * np.sin(2 * np.pi * 200 * (np.arange(count) + k * count) / rate_hz)
    pcm = np.repeat(wave.astype(np.int16), channels)[None]
    frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout=layout)
    frame.sample_rate, frame.time_base = rate_hz, Fraction(1, rate_hz)
    frame.pts = pts % (1 << 32)
    return frame


def voice() -> tuple[IncomingVoice, FakeRunner]:
    runner = FakeRunner()
    return IncomingVoice(runner), runner  # type: ignore[arg-type]


def test_a_voice_may_change_its_rate_and_layout_in_mid_call() -> None:
    incoming, runner = voice()
    # Timestamps go on with the clock rate, and begin anywhere with a new one.
    for rate_hz, layout, first in (
        (48_000, "stereo", 5),
        (48_000, "mono", 5 + 9600),
        (8_000, "mono", 77),
    ):
        for k in range(10):
            incoming.push_audio(packet(k, rate_hz, layout, first + k * rate_hz // 50))
    samples = np.concatenate([part for _, part in runner.pushed])
    # Each resampler keeps some samples back until the next format flushes it.
    assert samples.size == pytest.approx(30 * 320, abs=48)
    assert runner.gaps() == [0] * 29, "the sound goes on where it was"
    for third in np.split(samples[: 30 * 320 - 60], 3):
        assert np.abs(third).max() == pytest.approx(16_000 / 32_768, rel=0.02)


def test_a_lost_packet_leaves_its_place_and_the_wrap_of_timestamps_does_not() -> None:
    incoming, runner = voice()
    begin = (1 << 32) - 5 * 960
    for k in range(20):
        if k != 12:
            incoming.push_audio(packet(k, 48_000, "mono", begin + 960 * k))
    gaps = runner.gaps()
    assert gaps.pop(11) == pytest.approx(320, abs=20)
    assert gaps == [0] * len(gaps)
