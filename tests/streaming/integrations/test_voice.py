"""Speech cut to the frames that it leaves with, as it was made."""

from __future__ import annotations

import numpy as np
import pytest

from lipstream.engine.errors import UsageError
from lipstream.engine.types import AudioChunk, VideoFrame
from lipstream.streaming.integrations.voice import AGENT_OPTIONS, OriginalSpeech, Voice
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
        parts = voice.leaving(TimedFrame(picture, 640 * k, 0.0, voice.runner.turn))
        speech = [part for part in parts if isinstance(part, OriginalSpeech)]
        joined = np.concatenate([np.zeros(0, np.int16), *(part.samples for part in speech)])
        out.append((speech[0].rate_hz if speech else 0, joined, len(speech) < len(parts)))
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


def test_short_segments_that_leave_with_one_frame_keep_their_ends_and_their_order(
    voice: Voice,
) -> None:
    for value in (1, 2, 3):
        voice.push_audio(np.full(100, value, np.int16), 16_000)
        voice.end_segment()
    voice.end_segment()
    picture = VideoFrame(
        np.zeros((6, 4), np.uint8), 0, LiveFakeEngine().fps,
        AudioChunk(np.zeros(6400, np.float32), 0), 0, False,
    )  # fmt: skip
    parts = voice.leaving(TimedFrame(picture, 0, 0.0, 0))
    said = [int(p.samples[0]) if isinstance(p, OriginalSpeech) else "end" for p in parts]
    assert said == [1, "end", 2, "end", 3, "end", "end"]


@pytest.mark.parametrize("channels", [1, 2])
def test_pieces_of_any_number_of_bytes_are_put_together(voice: Voice, channels: int) -> None:
    random = np.random.default_rng(channels)
    mono = random.integers(-9999, 9999, 24_000).astype("<i2")
    pcm, at = np.repeat(mono, channels).tobytes(), 0
    while at < len(pcm):
        size = int(random.choice([1, 3, 333, 4001]))
        voice.push_pcm(pcm[at : at + size], 24_000, channels)
        at += size
    voice.end_segment()
    joined = np.concatenate([part for _, part, _ in leaving(voice, 40)])
    assert np.array_equal(joined, mono)


def test_half_a_sample_at_the_end_of_a_segment_is_left_out(voice: Voice) -> None:
    for _ in range(2):
        voice.push_pcm(np.full(1600, 258, "<i2").tobytes() + b"\x07", 16_000)
        voice.end_segment()
    joined = np.concatenate([part for _, part, _ in leaving(voice, 20)])
    assert joined.size == 3200 and set(joined) == {258}


@pytest.mark.parametrize("size", [1, 2, 5])
def test_fewer_samples_than_one_of_the_session_leave_too(voice: Voice, size: int) -> None:
    voice.push_audio(np.full(size, 9, np.int16), 96_000)
    voice.end_segment()
    out = leaving(voice, 20)
    assert sum(part.size for _, part, _ in out) == size
    assert sum(ended for _, _, ended in out) == 1


def test_channels_that_cancel_are_said_by_the_louder(voice: Voice) -> None:
    tone = (9000 * np.sin(np.arange(16_000) / 20)).astype(np.int16)
    voice.push_audio(np.stack([tone, -(tone // 4) * 3], 1).reshape(-1), 16_000, channels=2)
    voice.end_segment()
    joined = np.concatenate([part for _, part, _ in leaving(voice, 40)])
    assert np.array_equal(joined, tone)
