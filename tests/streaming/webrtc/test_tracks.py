"""A voice that arrives: its place on the clock, and what it may change on the way."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

pytest.importorskip("aiortc", reason="aiortc is not installed")

from lipstream.engine.types import F32  # noqa: E402
from lipstream.streaming.webrtc.tracks import IncomingVoice  # noqa: E402


class FakeRunner:
    def __init__(self) -> None:
        self.pushed: list[tuple[int, F32]] = []

    def push_audio(self, samples: F32, source_sample: int) -> None:
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
