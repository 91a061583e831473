"""Speech cut to the frames that it leaves with, as it was made."""

from __future__ import annotations

import numpy as np
import pytest

from lipstream.engine.errors import UsageError
from lipstream.engine.types import AudioChunk, VideoFrame
from lipstream.streaming.integrations.voice import AGENT_OPTIONS, Voice
from lipstream.streaming.session.runner import SessionRunner
from lipstream.streaming.session.subscription import TimedFrame
from tests.clock import ScriptedClock
from tests.streaming.live_engine import LiveFakeEngine


def leaving(voice: Voice, frames: int, first: int = 0) -> list[tuple[int, np.ndarray, bool]]:
    """(rate, samples, ended) of frames, 40 ms each, one after another."""
    out = []
    for k in range(first, first + frames):
        sound = AudioChunk(np.zeros(640, np.float32), 640 * k)
        picture = VideoFrame(np.zeros((6, 4), np.uint8), k, LiveFakeEngine().fps, sound, 0, False)
        speech, ended = voice.leaving(TimedFrame(picture, 640 * k, 0.0, voice.runner.turn))
        joined = np.concatenate([s.samples for s in speech]) if speech else np.zeros(0, np.int16)
        out.append((speech[0].rate_hz if speech else 0, joined, ended))
    return out


@pytest.fixture
def voice() -> Voice:
    return Voice(SessionRunner(LiveFakeEngine(), AGENT_OPTIONS, time_source=ScriptedClock(0.0)))


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 24_000, 48_000])
def test_every_sample_leaves_once_and_the_end_after_the_last(voice: Voice, rate_hz: int) -> None:
    speech = np.random.default_rng(0).integers(-9999, 9999, 2 * rate_hz + 77).astype(np.int16)
    random = np.random.default_rng(1)
    at = 0
    while at < speech.size:
        size = int(random.integers(1, rate_hz // 3))
        voice.push_audio(speech[at : at + size], rate_hz)
        at += size
    voice.end_segment()
    out = leaving(voice, 60)
    assert np.array_equal(np.concatenate([part for _, part, _ in out]), speech)
    assert {rate for rate, _, _ in out} == {0, rate_hz}
    (last,) = [k for k, (_, _, ended) in enumerate(out) if ended]
    full = [k for k, (_, part, _) in enumerate(out) if part.size]
    assert full == list(range(full[0], full[-1] + 1)), "no hole"
    assert 0 <= last - full[-1] <= 1
    inner = [out[k][1].size for k in full[1:-2]]
    assert np.abs(np.array(inner) - 0.04 * rate_hz).max() < 0.002 * rate_hz


def test_segments_follow_one_another_at_their_own_rates(voice: Voice) -> None:
    one, two = np.full(24_000, 1, np.int16), np.full(48_000, 2, np.int16)
    voice.push_audio(one, 24_000)
    voice.end_segment()
    voice.push_audio(two, 48_000)
    voice.end_segment()
    out = leaving(voice, 60)
    assert sum(np.count_nonzero(part == 1) for _, part, _ in out) == 24_000
    assert sum(np.count_nonzero(part == 2) for _, part, _ in out) == 48_000
    assert sum(ended for _, _, ended in out) == 2


def test_interrupted_speech_does_not_leave(voice: Voice) -> None:
    voice.push_audio(np.full(32_000, 5, np.int16), 16_000)
    voice.end_segment()
    before = sum(part.size for _, part, _ in leaving(voice, 10))
    assert 6000 < before <= 6400
    voice.interrupt()
    voice.push_audio(np.full(1600, 7, np.int16), 16_000)
    voice.end_segment()
    after = leaving(voice, 90, first=10)
    assert sum(part.size for _, part, _ in after) == 1600
    assert sum(ended for _, _, ended in after) == 1


def test_two_channels_are_mixed(voice: Voice) -> None:
    voice.push_audio(np.tile(np.array([100, 300], np.int16), 16_000), 16_000, channels=2)
    voice.end_segment()
    joined = np.concatenate([part for _, part, _ in leaving(voice, 40)])
    assert joined.size == 16_000 and set(joined) == {200}


def test_impossible_formats_are_refused(voice: Voice) -> None:
    with pytest.raises(UsageError, match="8000 to 96000"):
        voice.push_audio(np.zeros(10, np.int16), 4000)
    with pytest.raises(UsageError, match="whole PCM16"):
        voice.push_audio(np.zeros(11, np.int16), 16_000, channels=2)
    voice.push_audio(np.zeros(0, np.int16), 16_000)
    voice.end_segment()
    assert sum(ended for _, _, ended in leaving(voice, 3)) == 1
