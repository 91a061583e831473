"""A step of the encoder's features."""

import numpy as np
import pytest
from hypothesis import given

from lipstream.engine.errors import UsageError
from lipstream.kernels.features import FeatureStep
from tests.kernels.guard_bytes import Guards
from tests.kernels.strategies import FEW, SEEDS

WINDOW = np.hanning(401)[:-1].astype(np.float32)
# In the order of `LsNormalisation`.
RISE, MARGIN, FIRST, RELEASE_FIRST, RELEASE, ATTACK, RANGE = 0.01, 1.5, 50, 0.2, 0.02, 0.3, 4
MEMORY, PRIOR, SCALE, LOWEST, HIGHEST, ENERGY_FLOOR = 300, 100, 0.5, -3, 3, 1e-6
NUMBERS = (
    RISE, MARGIN, FIRST, RELEASE_FIRST, RELEASE, ATTACK, RANGE, MEMORY, PRIOR, SCALE, LOWEST,
    HIGHEST, ENERGY_FLOOR,
)  # fmt: skip


def triangles():
    """64 filters over 257 bins, the last of which reaches the last bin."""
    edges = np.linspace(1, 257, 66)
    bins = np.arange(257)[:, None]
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    inside = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
    return np.maximum(0, inside).astype(np.float32)


def step_by_hand(samples, state):
    """Log energies of two windows, then the running normalisation, in double precision."""
    level, floor, sound_frames, speech_frames = state[:4].astype(np.float64)
    mean, out = state[4:].astype(np.float64), []
    for start in (0, 160):
        spectrum = np.fft.rfft(samples[start : start + 400].astype(np.float64) * WINDOW, 512)
        frame = np.log(abs(spectrum) ** 2 @ triangles() + ENERGY_FLOOR)
        energy = frame.mean()
        floor = min(energy, floor + RISE)
        sound = np.clip(energy - floor - MARGIN, 0, 1)
        rise = energy - level
        release = RELEASE_FIRST if sound_frames < FIRST else RELEASE
        level += (ATTACK if rise > 0 else release) * sound * rise
        weight = np.clip(energy - level + RANGE, 0, 1) * sound
        speech_frames = min(speech_frames + weight, MEMORY)
        sound_frames += sound
        mean += weight / (speech_frames + PRIOR) * (frame - level - mean)
        out.append(np.clip((frame - level - mean) * SCALE, LOWEST, HIGHEST))
    return np.stack(out), np.array([level, floor, sound_frames, speech_frames, *mean])


@pytest.mark.usefixtures("library")
@FEW
@given(SEEDS)
def test_a_step_is_log_mel_normalised(seed):
    random = np.random.default_rng(seed)
    step = FeatureStep(WINDOW, triangles(), NUMBERS)
    state = np.array([-2, -6, random.uniform(0, 100), 0, *random.normal(0, 1, 64)], np.float32)
    for loudness in (0.001, 0.3, 0.05):
        samples = random.normal(0, loudness, 560).astype(np.float32)
        features, after = Guards().call(step, samples, state)
        expected, expected_state = step_by_hand(samples, state)
        np.testing.assert_allclose(features, expected, atol=1e-4)
        np.testing.assert_allclose(after, expected_state, atol=1e-4)
        state = after


@pytest.mark.usefixtures("library")
def test_other_sizes_and_types_are_refused():
    with pytest.raises(UsageError, match="12 numbers"):
        FeatureStep(WINDOW, triangles(), NUMBERS[1:])
    step = FeatureStep(WINDOW, triangles(), NUMBERS)
    samples, state = np.zeros(560, np.float32), np.zeros(68, np.float32)
    with pytest.raises(UsageError, match="samples is float64"):
        step(samples.astype(np.float64), state)
    with pytest.raises(UsageError, match=r"state is float32 \(67,\)"):
        step(samples, state[1:])
