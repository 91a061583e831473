"""Voice styles: the source of the voice changes, timing and resonances do not."""

from __future__ import annotations

import numpy as np
import pytest

from lipstream.calibration.training.speech import voice_styles
from lipstream.engine.types import F32

RATE_HZ = 16_000


def voiced(seconds: float = 1.0) -> F32:
    """A 125 Hz buzz through one resonance at 1 kHz, then silence."""
    time = np.arange(int(seconds * RATE_HZ))
    pulses = (time % 128 == 0).astype(np.float64)
    ring = np.sin(2 * np.pi * 1000 * np.arange(300) / RATE_HZ) * np.exp(-np.arange(300) / 40)
    sound = np.convolve(pulses, ring)[: len(time)]
    sound[len(time) // 2 :] = 0.0
    return sound.astype(np.float32)


def pitch_strength(samples: F32) -> float:
    """Autocorrelation at the buzz's period, over its power."""
    part = samples[1000:7000]
    return float((part[128:] * part[:-128]).sum() / (part**2).sum())


def centroid_hz(samples: F32) -> float:
    power = np.abs(np.fft.rfft(samples[1000:7000])) ** 2
    return float((power * np.fft.rfftfreq(6000, 1 / RATE_HZ)).sum() / power.sum())


@pytest.mark.parametrize("name", ["whispered", "shouted", "old"])
def test_a_style_keeps_timing(name: str) -> None:
    clean = voiced()
    styled = voice_styles.VoiceStyle(name).apply(clean, RATE_HZ, np.random.default_rng(0))
    assert styled.shape == clean.shape and styled.dtype == np.float32
    half = len(clean) // 2
    assert np.mean(styled[half + 800 :] ** 2) < 0.01 * np.mean(styled[:half] ** 2)


def test_a_whisper_has_no_pitch_and_the_same_resonance() -> None:
    clean = voiced()
    styled = voice_styles.whispered(clean, RATE_HZ, np.random.default_rng(0))
    assert pitch_strength(clean) > 0.9
    assert abs(pitch_strength(styled)) < 0.25
    assert centroid_hz(styled) == pytest.approx(centroid_hz(clean), rel=0.35)


def test_a_shout_has_more_high_frequencies() -> None:
    rng = np.random.default_rng(0)
    low = np.sin(2 * np.pi * 150 * np.arange(RATE_HZ) / RATE_HZ).astype(np.float32)
    both = (low + voiced()).astype(np.float32)
    assert centroid_hz(voice_styles.shouted(both, RATE_HZ, rng)) > 1.3 * centroid_hz(both)


def test_all_styles_are_drawn() -> None:
    rng = np.random.default_rng(0)
    names = [voice_styles.draw_style(rng).name for _ in range(400)]
    assert set(names) == {"plain", "whispered", "shouted", "sung", "child", "old"}
    assert 0.6 < names.count("plain") / 400 < 0.8
