"""The watermark's pattern, added to luma."""

import numpy as np
import pytest
from hypothesis import given

from lipstream.engine.errors import UsageError
from lipstream.kernels import watermark
from lipstream.kernels.watermark import DITHER_ROWS, Pattern
from tests.kernels.guard_bytes import Guards
from tests.kernels.strategies import EVEN, MORE, SEEDS

promise = pytest.mark.usefixtures("kernels")  # of each implementation, as a process chooses it
twins = pytest.mark.usefixtures("library")  # compiled code against NumPy


def pattern(h, w, seed=0):
    random = np.random.default_rng(seed)
    waves = np.clip(np.rint(random.normal(0, 32, (h, w))), -127, 127).astype(np.int8)
    return Pattern(waves, random.integers(0, 256, (DITHER_ROWS, w), dtype=np.uint8))


def flat(level, h=64, w=96):
    return np.full((h * 3 // 2, w), level, np.uint8)


def change(i420, h=64, w=96):
    before = i420.copy()
    watermark.add_pattern(i420, pattern(h, w))
    return i420[:h].astype(float) - before[:h]


@twins
@given(EVEN, EVEN, SEEDS)
@MORE
def test_twins_agree(half_h, half_w, seed):
    h, w = 4 * half_h + 2, 4 * half_w + 2  # blocks that the picture cuts, too
    random = np.random.default_rng(seed)
    spread = random.choice([0, 3, 40, 400])
    values = random.normal(random.integers(0, 256), spread, (h * 3 // 2, w))
    i420 = np.clip(values, 0, 255).astype(np.uint8)
    waves, dither = pattern(h, w, seed)
    expected, guards = i420.copy(), Guards()
    got = guards.copy(i420)
    watermark.add_waves.reference(expected, waves, dither)
    guards.call(watermark.add_waves.native, got, waves, dither)
    np.testing.assert_array_equal(got, expected)


@promise
def test_a_flat_picture_carries_three_eighths_of_a_level():
    changed = change(flat(120))
    wanted = pattern(64, 96).waves / 32
    # Rounding is dithered: each pixel is a whole number, and their mean over many the fraction.
    assert np.polyfit(wanted.ravel(), changed.ravel(), 1)[0] == pytest.approx(0.375, abs=0.03)
    assert abs(changed.mean()) < 0.03 and np.abs(changed).max() <= 2


@promise
def test_texture_carries_more_and_black_less():
    random = np.random.default_rng(3)
    rough = np.clip(random.normal(120, 20, (96, 96)), 16, 235).astype(np.uint8)
    # 1.875 and 0.375 levels of the pattern, and the rounding's half a level or less beside them.
    assert change(rough).std() == pytest.approx(1.9, abs=0.05)
    assert change(flat(120)).std() == pytest.approx(0.54, abs=0.03)
    assert 0 < change(flat(18)).std() < 0.4


@promise
def test_chroma_stays_and_luma_stays_in_its_range():
    random = np.random.default_rng(4)
    before = random.choice(np.array([0, 10, 16, 235, 250, 255], np.uint8), (96, 96))
    i420 = before.copy()
    watermark.add_pattern(i420, pattern(64, 96))
    np.testing.assert_array_equal(i420[64:], before[64:])
    assert (i420[:64] >= np.minimum(before[:64], 16)).all()
    assert (i420[:64] <= np.maximum(before[:64], 235)).all()
    assert (i420[:64] != before[:64]).mean() > 0.3


@promise
def test_what_does_not_fit_is_refused():
    frame = flat(100)
    with pytest.raises(UsageError, match="waves is int8"):
        watermark.add_pattern(frame, pattern(64, 98))
    frame.flags.writeable = False
    with pytest.raises(UsageError, match="read-only"):
        watermark.add_pattern(frame, pattern(64, 96))
