"""Sound of every format comes out mono at 16 kHz, and a change of format loses nothing."""

from __future__ import annotations

import av
import numpy as np
import pytest

from lipstream.streaming.session.audio_in import SpeechResampler


def tone(rate_hz: int, layout: str, seconds: float, sample_format: str = "s16") -> av.AudioFrame:
    """200 Hz in the first channel, silence in the others; with a timestamp."""
    channels = {"mono": 1, "stereo": 2}[layout]
    pcm = np.zeros((channels, round(rate_hz * seconds)), np.float32)
    pcm[0] = 0.5 * np.sin(2 * np.pi * 200 * np.arange(pcm.shape[1]) / rate_hz)
    if sample_format == "s16":
        packed = np.ascontiguousarray((pcm.T * 32767).astype(np.int16).reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
    else:
        frame = av.AudioFrame.from_ndarray(pcm, format="fltp", layout=layout)
    frame.sample_rate, frame.pts = rate_hz, 12_345
    return frame


@pytest.mark.parametrize("sample_format", ["s16", "fltp"])
@pytest.mark.parametrize("layout, level", [("mono", 0.5), ("stereo", 0.25)])
@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100, 48_000])
def test_every_format_becomes_the_mean_of_its_channels(
    rate_hz: int, layout: str, level: float, sample_format: str
) -> None:
    resampler = SpeechResampler()
    frames = [resampler.push(tone(rate_hz, layout, 0.5, sample_format)), resampler.flush()]
    samples = np.concatenate(frames)
    assert samples.dtype == np.float32
    assert samples.size == pytest.approx(8_000, abs=16)
    assert np.abs(samples[100:-100]).max() == pytest.approx(level, rel=0.01)


def test_a_stream_may_change_its_format() -> None:
    resampler = SpeechResampler()
    formats = [(48_000, "stereo"), (48_000, "mono"), (16_000, "mono"), (8_000, "mono")]
    parts = [resampler.push(tone(*known, 0.1)) for known in formats for _ in range(3)]
    samples = np.concatenate([*parts, resampler.flush()])
    assert samples.size == pytest.approx(12 * 1600, abs=4 * 16)
    for k, level in enumerate((0.25, 0.5, 0.5, 0.5)):
        part = samples[4800 * k + 400 : 4800 * (k + 1) - 400]
        assert np.abs(part).max() == pytest.approx(level, rel=0.02)


def test_16_khz_mono_is_passed_through_exactly() -> None:
    pcm = np.arange(-320, 320, dtype=np.int16)
    expected = pcm / np.float32(32768)
    np.testing.assert_array_equal(SpeechResampler().push_samples(pcm, 16_000), expected)
    np.testing.assert_array_equal(SpeechResampler().push_samples(expected, 16_000), expected)
