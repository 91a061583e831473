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
ENERGY_FLOOR, RISE, MARGIN, FALL, RANGE, JUMP, TAKES, KEEPS = 1e-8, 0.01, 1.5, 0.03, 4, 2, 0.4, 0.6
MEMORY, PRIOR, LOWEST_LEVEL, PER_NAT, OFFSET, WIDEST, CENTRE, SCALE = 30, 5, -3, 0.5, 1.5, 2, 3, 0.2
NUMBERS = (
    ENERGY_FLOOR, RISE, MARGIN, FALL, RANGE, JUMP, TAKES, KEEPS, MEMORY, PRIOR, LOWEST_LEVEL,
    PER_NAT, OFFSET, WIDEST, CENTRE, SCALE,
)  # fmt: skip


def triangles():
    """80 filters over 257 bins, the last of which reaches the last bin."""
    edges = np.linspace(1, 257, 82)
    bins = np.arange(257)[:, None]
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    inside = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
    return np.maximum(0, inside).astype(np.float32)


def step_by_hand(samples, state):
    """Log energies of two windows, then the running normalisation, in double precision."""
    level, floor, peak, frames = state.astype(np.float64)
    out = []
    for start in (0, 160):
        spectrum = np.fft.rfft(samples[start : start + 400].astype(np.float64) * WINDOW, 512)
        power = abs(spectrum) ** 2 @ triangles() + ENERGY_FLOOR
        energy = np.log(power[2:].sum())
        floor = min(energy, floor + RISE)
        sound = np.clip(energy - floor - MARGIN, 0, 1)
        peak = max(energy, peak - FALL * sound)
        weight = sound * np.clip(energy - peak + RANGE, 0, 1)
        if weight > 0 and energy - level > JUMP:
            level += TAKES * (energy - level - JUMP)
            frames *= KEEPS
        frames = min(frames + weight, MEMORY)
        level = max(level + weight / (frames + PRIOR) * (energy - level), LOWEST_LEVEL)
        relative = np.clip(np.log10(power) - level * PER_NAT + OFFSET, -WIDEST, WIDEST)
        out.append((relative + CENTRE) * SCALE)
    return np.stack(out), np.array([level, floor, peak, frames])


@pytest.mark.usefixtures("library")
@FEW
@given(SEEDS)
def test_a_step_is_log_mel_normalised(seed):
    random = np.random.default_rng(seed)
    step = FeatureStep(WINDOW, triangles(), NUMBERS)
    state = np.array([-2, -6, -4, random.uniform(0, 30)], np.float32)
    for loudness in (0.001, 0.3, 0.05, 0.0):
        samples = random.normal(0, loudness, 560).astype(np.float32)
        features, after = Guards().call(step, samples, state)
        expected, expected_state = step_by_hand(samples, state)
        np.testing.assert_allclose(features, expected, atol=1e-4)
        np.testing.assert_allclose(after, expected_state, atol=1e-4)
        state = after


@pytest.mark.usefixtures("library")
def test_other_sizes_and_types_are_refused():
    with pytest.raises(UsageError, match="15 numbers"):
        FeatureStep(WINDOW, triangles(), NUMBERS[1:])
    step = FeatureStep(WINDOW, triangles(), NUMBERS)
    samples, state = np.zeros(560, np.float32), np.zeros(4, np.float32)
    with pytest.raises(UsageError, match="samples is float64"):
        step(samples.astype(np.float64), state)
    with pytest.raises(UsageError, match=r"state is float32 \(3,\)"):
        step(samples, state[1:])
