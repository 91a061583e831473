"""Sound into 16 kHz mono: fixed formats, and a rate that varies."""

from __future__ import annotations

import av
import numpy as np
import pytest

from lipstream.engine.types import F32
from lipstream.streaming.session.audio_in import HALF_TAPS, FractionalResampler, SpeechResampler

PACKET = 320


def sine(hz: float, count: int, rate_hz: float = 16_000) -> F32:
    return np.sin(2 * np.pi * hz * np.arange(count) / rate_hz).astype(np.float32)


def test_a_step_of_one_changes_no_bit() -> None:
    sound = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    resampler, out = FractionalResampler(), []
    for k in range(0, 5000, 250):
        resampler.put(sound[k : k + 250])
        out.append(resampler.take(resampler.available(1.0), 1.0))
    joined = np.concatenate(out)
    assert joined.size == 5000 - HALF_TAPS
    assert np.array_equal(joined, sound[: joined.size])


@pytest.mark.parametrize("hz", [200.0, 1000.0, 3500.0, 6000.0])
@pytest.mark.parametrize("step", [0.9998, 1.0002, 1 / 3, 16_000 / 44_100])
def test_tones_keep_their_pitch_and_gain_no_noise(hz: float, step: float) -> None:
    resampler, out = FractionalResampler(), []
    sound = sine(hz, 16_000)
    for k in range(0, 16_000, PACKET):
        resampler.put(sound[k : k + PACKET])
        out.append(resampler.take(resampler.available(step), step))
    got = np.concatenate(out)
    expected = np.sin(2 * np.pi * hz * step * np.arange(got.size) / 16_000)
    error = (got - expected)[100:-100]
    assert 20 * np.log10(np.sqrt(2 * np.mean(error**2))) < -66
    assert got.size == pytest.approx((16_000 - HALF_TAPS) / step, abs=2)


def test_asking_for_more_than_is_available_is_refused() -> None:
    resampler = FractionalResampler()
    resampler.put(np.zeros(100, np.float32))
    with pytest.raises(ValueError, match="85 samples wanted, 84 available"):
        resampler.take(85, 1.0)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_a_tone_of_any_rate_keeps_its_length_level_and_place(rate_hz: int, kind: type) -> None:
    tone = 0.5 * sine(440, rate_hz, rate_hz)
    samples = (tone * 32767).astype(np.int16) if kind is np.int16 else tone
    resampler, out = SpeechResampler(), []
    for start in range(0, rate_hz, rate_hz // 50):
        out.append(resampler.push_samples(samples[start : start + rate_hz // 50], rate_hz))
    out.append(resampler.flush())
    speech = np.concatenate(out)
    assert speech.dtype == np.float32
    assert speech.size == pytest.approx(16_000, abs=1)
    error = (speech - 0.5 * sine(440, speech.size))[200:-200]
    assert np.abs(error).max() < 2e-3


def test_channels_are_mixed_by_their_mean() -> None:
    """libav's own mix would add 3 dB to a voice that is the same in both."""
    voice = 0.5 * sine(440, 4800, 48_000)
    frame = av.AudioFrame.from_ndarray(np.stack([voice, voice]), format="fltp", layout="stereo")
    frame.sample_rate = 48_000
    resampler = SpeechResampler()
    speech = np.concatenate([resampler.push(frame), resampler.flush()])
    assert np.abs(speech[200:-200]).max() == pytest.approx(0.5, abs=0.005)


def test_time_stamps_neither_fill_nor_drop() -> None:
    resampler, sizes = SpeechResampler(), []
    for k in range(50):
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 960), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate, frame.pts = 48_000, 960 * k + 500 * (k % 2)
        sizes.append(resampler.push(frame).size)
    assert sum(sizes) + resampler.flush().size == pytest.approx(50 * PACKET, abs=1)
