"""The A/V offset: known shifts, real clips, and audio of somebody else."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
from scipy.signal import lfilter

from lipstream.calibration.media.video import open_footage, read_sound
from lipstream.calibration.person.av_offset import (
    encode_audio,
    estimate_offset_ms,
    predicted_opening,
)
from lipstream.calibration.tracking.raw_track import inter_ocular_px
from lipstream.calibration.tracking.tracker import track
from lipstream.engine.types import SAMPLE_RATE_HZ
from tests.calibration.tracking.test_tracker import DATA, clip, ignore

SECONDS = 8


def opened(times_s: np.ndarray, seed: int = 0) -> np.ndarray:
    """Opening at any times: syllables of random height and length, with pauses."""
    rng = np.random.default_rng(seed)
    curve = np.zeros_like(times_s)
    at = 0.3
    while at < SECONDS:
        length = rng.uniform(0.12, 0.3)
        height = rng.uniform(0.05, 0.3) * (rng.random() > 0.15)
        inside = (times_s > at) & (times_s < at + length)
        curve[inside] += height * np.sin(np.pi * (times_s[inside] - at) / length) ** 2
        at += length * rng.uniform(0.9, 1.6)
    return curve


def voice(late_s: float, seed: int = 0) -> np.ndarray:
    """Noise of a vowel's colour, as loud as the mouth is open, `late_s` later."""
    times_s = np.arange(SECONDS * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    noise = np.random.default_rng(seed + 9).normal(size=times_s.size)
    coloured = lfilter([1.0], [1.0, -1.2, 0.7], noise)
    return (0.3 * coloured * opened(times_s - late_s, seed)).astype(np.float32)


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30000, 1001), Fraction(60)])
@pytest.mark.parametrize("late_ms", [-180, -40, 0, 90, 250])
def test_a_known_shift_is_found(fps: Fraction, late_ms: int) -> None:
    frames = np.arange(int(SECONDS * fps)) / float(fps)
    opening = opened(frames).astype(np.float32)
    found, confidence = estimate_offset_ms(opening, fps, voice(late_ms / 1000))
    assert found == pytest.approx(late_ms, abs=12)
    assert confidence > 0.7


def test_the_predicted_opening_outweighs_a_misleading_level() -> None:
    fps = Fraction(25)
    opening = opened(np.arange(SECONDS * 25) / 25).astype(np.float32)
    steps_s = np.arange(SECONDS * 50) / 50
    predicted = opened(steps_s - 0.12).astype(np.float32)
    # Loudness of somebody else, half as strong as the voice.
    sound = voice(0.12) + 0.5 * voice(0.0, seed=5)
    found, confidence = estimate_offset_ms(opening, fps, sound, predicted)
    assert found == pytest.approx(120, abs=12)
    assert confidence > 0.7


def test_rejected_frames_are_ignored() -> None:
    fps = Fraction(25)
    opening = opened(np.arange(SECONDS * 25) / 25).astype(np.float32)
    opening[40:70] = np.nan
    found, confidence = estimate_offset_ms(opening, fps, voice(0.1))
    assert found == pytest.approx(100, abs=12)
    assert confidence > 0.5


def test_without_evidence_the_confidence_is_low() -> None:
    fps = Fraction(25)
    opening = opened(np.arange(SECONDS * 25) / 25).astype(np.float32)
    silence = np.zeros(SECONDS * SAMPLE_RATE_HZ, np.float32)
    still = np.full(SECONDS * 25, 0.02, np.float32)
    no_face = np.full(SECONDS * 25, np.nan, np.float32)
    assert estimate_offset_ms(opening, fps, silence) == (0, 0.0)
    assert estimate_offset_ms(still, fps, voice(0.1)) == (0, 0.0)
    assert estimate_offset_ms(no_face, fps, voice(0.1)) == (0, 0.0)
    assert estimate_offset_ms(opening[:20], fps, voice(0.1)) == (0, 0.0)
    assert estimate_offset_ms(opening, fps, voice(0.1)[:8000]) == (0, 0.0)
    # Somebody else's eight seconds: some syllables will agree by chance, few by much.
    foreign = [estimate_offset_ms(opening, fps, voice(0.0, seed))[1] for seed in range(1, 9)]
    assert np.median(foreign) < 0.1 and max(foreign) < 0.6


def test_the_predicted_curve_has_one_value_each_20_ms() -> None:
    sound = voice(0.0)[: 2 * SAMPLE_RATE_HZ]
    curve = predicted_opening(encode_audio(sound))
    assert curve.dtype == np.float32 and curve.size == 100
    assert np.isfinite(curve).all() and curve.min() >= 0


@pytest.mark.parametrize(
    "name",
    [
        "grid_s1/bbaf4p.mpg",
        "obama_challenges_library.mp4",
        "obama_town_halls_library.mp4",
        "talkers/may_5s_512.mp4",
    ],
)
def test_real_clips_agree_with_the_manifest(model, name: str) -> None:  # type: ignore[no-untyped-def]
    path = clip(name)
    stated = {
        entry["file"]: entry.get("audio_late_ms")
        for entry in json.loads((DATA / "manifest.json").read_text())
    }[f"video/{name}"]
    with open_footage(path) as footage:
        raw = track(footage, ignore, model)
    points = raw.landmarks
    opening = np.linalg.norm(points[:, 13] - points[:, 14], axis=1) / inter_ocular_px(points)
    sound = read_sound(path)
    assert sound is not None
    found, confidence = estimate_offset_ms(
        opening, raw.fps, sound, predicted_opening(encode_audio(sound))
    )
    assert abs(found - stated) <= 60
    assert confidence > 0.2
