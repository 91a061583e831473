"""Features: causal, the same for every cut of the audio, steady in silence, in range at once."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipstream.engine.networks.signatures import BANDS, FRAMES_PER_STEP
from lipstream.engine.speech import features
from lipstream.engine.speech.features import (
    HISTORY_SAMPLES,
    HOP_SAMPLES,
    LEVEL_PRIOR,
    OFFSET,
    Features,
    Normaliser,
    mel_matrix,
    offline_log_mel,
)
from lipstream.engine.types import F32, STEP_SAMPLES
from lipstream.kernels.dispatch import use_native

FEATURES = Features()


def tone_bursts(seconds: float, seed: int = 0, level: float = 0.05) -> F32:
    """A buzz that comes and goes four times a second: loud and quiet frames, like syllables."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(int(seconds * 16_000)) / 16_000
    buzz = np.sign(np.sin(2 * np.pi * 120 * time_s)) * (np.sin(2 * np.pi * 4 * time_s) > 0)
    return (level * buzz + 0.0005 * rng.standard_normal(len(time_s))).astype(np.float32)


def stream(samples: F32) -> F32:
    """Every whole step of `samples`, f32 [frames, BANDS]."""
    state, rows = FEATURES.init(), list[F32]()
    for start in range(0, len(samples) - STEP_SAMPLES + 1, STEP_SAMPLES):
        outputs, state = FEATURES.step(state, samples[start : start + STEP_SAMPLES])
        rows += outputs
    return np.concatenate(rows)


def test_a_step_gives_two_frames_of_log_mel() -> None:
    (frames,), _ = FEATURES.step(FEATURES.init(), np.zeros(STEP_SAMPLES, np.float32))
    assert frames.shape == (FRAMES_PER_STEP, BANDS)
    assert frames.dtype == np.float32


def test_a_tone_lands_in_the_band_of_its_frequency() -> None:
    time_s = np.arange(1600) / 16_000
    low, high = (
        offline_log_mel(FEATURES, (0.1 * np.sin(2 * np.pi * hz * time_s)).astype(np.float32))[-1]
        for hz in (200.0, 4000.0)
    )
    # Edges lie 45.2 / 81 mel apart: 200 Hz is 3 mel, 4 kHz is 15 + 27 log(4) / log(6.4).
    assert int(low.argmax()) == round(3.0 * 81 / 45.245) - 1
    assert int(high.argmax()) == round(35.164 * 81 / 45.245) - 1


def test_the_last_sample_of_a_step_counts_and_the_next_does_not() -> None:
    quiet = np.zeros(2 * STEP_SAMPLES, np.float32)
    click = quiet.copy()
    click[STEP_SAMPLES - 40] = 0.5
    later = quiet.copy()
    later[STEP_SAMPLES] = 0.5
    assert np.abs(stream(click)[:FRAMES_PER_STEP] - stream(quiet)[:FRAMES_PER_STEP]).max() > 0.01
    np.testing.assert_array_equal(stream(later)[:FRAMES_PER_STEP], stream(quiet)[:FRAMES_PER_STEP])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 60), st.integers(0, 1000))
def test_causal_at_every_step(step: int, seed: int) -> None:
    first = tone_bursts(1.4, seed)
    second = first.copy()
    second[step * STEP_SAMPLES :] = np.random.default_rng(seed).uniform(
        -0.3, 0.3, len(first) - step * STEP_SAMPLES
    )
    keep = step * FRAMES_PER_STEP
    np.testing.assert_array_equal(stream(first)[:keep], stream(second)[:keep])


def test_a_state_can_be_kept_and_resumed() -> None:
    samples = tone_bursts(0.5)
    pieces = [samples[i : i + STEP_SAMPLES] for i in range(0, 4800, STEP_SAMPLES)]
    state = FEATURES.init()
    for piece in pieces[:7]:
        _, state = FEATURES.step(state, piece)
    once, _ = FEATURES.step(state, pieces[7])
    for piece in pieces[8:]:
        FEATURES.step(state, piece)
    again, _ = FEATURES.step(state, pieces[7])
    np.testing.assert_array_equal(once, again)


def test_streaming_log_mel_equals_the_windows_written_out() -> None:
    samples = tone_bursts(0.3)
    padded = np.concatenate([np.zeros(HISTORY_SAMPLES, np.float32), samples])
    window = np.hanning(401)[:-1]
    rows = []
    for start in range(0, len(padded) - 399, HOP_SAMPLES):
        power = np.abs(np.fft.rfft(padded[start : start + 400].astype(np.float64) * window, 512))
        rows.append(np.log10(power**2 @ FEATURES._mel.astype(np.float64) + 1e-10))
    np.testing.assert_allclose(offline_log_mel(FEATURES, samples), np.array(rows), atol=2e-3)


def test_filters_have_equal_areas_and_meet_at_their_centres() -> None:
    """In power per Hz of a window of 400 samples, so white noise is flat over the bands."""
    mel, bin_hz = mel_matrix().astype(np.float64), 16_000 / 512
    assert mel.shape == (257, BANDS)
    wide = mel[:, 40:]  # those that have bins enough for a sum to be an integral
    np.testing.assert_allclose(wide.sum(0) * bin_hz, 400 / 512, rtol=0.02)
    centres_hz = mel.argmax(0) * bin_hz
    assert centres_hz[26] == pytest.approx(1000, abs=bin_hz)  # the last of the linear part
    ratio = np.diff(np.log(centres_hz[40:]))
    np.testing.assert_allclose(ratio.mean(), 45.245 / 81 * np.log(6.4) / 27, rtol=0.02)


def test_loudness_is_normalised_within_a_second() -> None:
    """Of 20 dB, which are 0.5 without a normalisation."""
    loud, quiet = tone_bursts(2.0, level=0.2), tone_bursts(2.0, level=0.2) * np.float32(0.1)
    difference = np.abs(stream(loud) - stream(quiet))
    voiced = stream(loud).mean(1) > 0.6
    settled = np.arange(len(difference)) > 100
    assert float(np.median(difference[voiced & ~settled])) < 0.25
    assert float(np.median(difference[voiced & settled])) < 0.12


def test_silence_does_not_raise_the_gain() -> None:
    speech = tone_bursts(3.0)
    room = (0.0005 * np.random.default_rng(1).standard_normal(10 * 16_000)).astype(np.float32)
    frames = stream(np.concatenate([speech, room]))
    start, end = frames[320:420].mean(), frames[-100:].mean()
    assert abs(float(end - start)) < 0.1


def normalised_by_hand(log_mel: F32) -> F32:
    """The normalisation of one clip, number by number, in double precision."""
    level, floor, peak, count, rows = LEVEL_PRIOR, LEVEL_PRIOR - 9, LEVEL_PRIOR - 9, 0.0, []
    for frame in log_mel.astype(np.float64):
        energy = np.log((10 ** frame[2:]).sum())
        floor = min(energy, floor + 0.008)
        sound = min(max(energy - floor - 1.5, 0), 1)
        peak = max(energy, peak - 0.02 * sound)
        weight = sound * min(max(energy - peak + 5, 0), 1)
        excess = max(energy - 2.5 - level, 0) if weight > 0 else 0.0
        level, count = level + 0.5 * excess, count * (0.7 if excess > 0 else 1)
        count = min(count + weight, 670)
        level = max(level + weight / (count + 15) * (energy - level), -6)
        rows.append((np.clip(frame - level / np.log(10) + OFFSET, -4.5, 4.5) + 4) / 4)
    return np.array(rows, np.float32)


def test_normalisation_over_a_batch_equals_each_clip_by_hand() -> None:
    clips = [tone_bursts(8.0, seed, level) for seed, level in ((0, 0.001), (1, 0.05), (2, 0.5))]
    clips.append(np.concatenate([clips[0][:64_000], clips[2][64_000:]]))  # suddenly louder
    log_mel = np.stack([offline_log_mel(FEATURES, clip) for clip in clips])
    normaliser = Normaliser()
    state, rows = normaliser.init((len(clips),)), list[F32]()
    for frame in log_mel.swapaxes(0, 1):
        row, state = normaliser.step(state, frame)
        rows.append(row)
    assert state.speech_frames.min() > 100
    for index, clip in enumerate(log_mel):
        got = np.array([row[index] for row in rows])
        np.testing.assert_allclose(got, normalised_by_hand(clip), atol=1e-4)


def test_digital_silence_stays_finite_and_low() -> None:
    frames = stream(np.zeros(16_000, np.float32))
    assert np.isfinite(frames).all()
    assert float(frames.max()) < 0.0


def test_cost_of_a_step() -> None:
    samples = tone_bursts(4.0)
    stream(samples[:16_000])
    best = np.inf
    for _ in range(5):
        began = time.process_time()
        stream(samples)
        best = min(best, (time.process_time() - began) / 200)
    assert best < 0.00045, f"{1000 * best:.3f} ms a step; 0.1 ms on an idle core"


def test_the_kernel_agrees_with_its_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    if not use_native():
        pytest.skip("needs the compiled kernels")
    native = Features()
    monkeypatch.setattr(features, "use_native", lambda: False)
    twin = Features()
    rng = np.random.default_rng(3)
    hiss = 1e-4 * rng.standard_normal(16_000).astype(np.float32)
    samples = np.concatenate([np.zeros(8000, np.float32), tone_bursts(2.0, level=0.5), hiss])
    ours, theirs = native.init(), twin.init()
    for start in range(0, len(samples) - STEP_SAMPLES + 1, STEP_SAMPLES):
        piece = samples[start : start + STEP_SAMPLES]
        (frames,), ours = native.step(ours, piece)
        (expected,), theirs = twin.step(theirs, piece)
        np.testing.assert_allclose(frames, expected, atol=1e-4)
        np.testing.assert_allclose(
            ours.normaliser.packed, theirs.normaliser.packed, rtol=1e-5, atol=1e-4
        )
