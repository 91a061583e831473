"""I420 to RGB and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipstream.engine.errors import UsageError
from lipstream.kernels import color
from tests.kernels.guard_bytes import Guards, assert_twins_agree
from tests.kernels.strategies import EVEN, FEW, MORE, SEEDS

promise = pytest.mark.usefixtures("kernels")  # of each implementation, as a process chooses it
twins = pytest.mark.usefixtures("library")  # compiled code against NumPy


def bt709(rgb):
    """Y, Cb, Cr of BT.709 limited range, in floating point, from the recommendation."""
    r, g, b = np.moveaxis(rgb.astype(np.float64) / 255, -1, 0)
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    return 16 + 219 * y, 128 + 224 * (b - y) / 1.8556, 128 + 224 * (r - y) / 1.5748


def flat(colour, h=4, w=4):
    return np.broadcast_to(np.array(colour, np.uint8), (h, w, 3)).copy()


@promise
@given(st.tuples(*[st.integers(0, 255)] * 3))
@FEW
def test_flat_colours_are_bt709(colour):
    i420 = color.rgb_to_i420(flat(colour))
    planes = i420[:4], i420[4], i420[5]
    for plane, expected in zip(planes, bt709(flat(colour)), strict=True):
        assert abs(plane.astype(float) - expected.ravel()[0]).max() <= 0.51


@promise
@given(st.tuples(*[st.integers(0, 255)] * 3))
@FEW
def test_flat_colours_come_back(colour):
    back = color.i420_to_rgb(color.rgb_to_i420(flat(colour)))
    assert abs(back.astype(int) - colour).max() <= 2


@promise
def test_greys_stay_grey_and_the_ends_are_exact():
    for level in range(256):
        i420 = color.rgb_to_i420(flat([level] * 3))
        assert (i420[4:] == 128).all()
        back = color.i420_to_rgb(i420)
        assert np.ptp(back) == 0
        assert abs(int(back[0, 0, 0]) - level) <= 1
    assert color.rgb_to_i420(flat([0, 0, 0]))[0, 0] == 16
    assert color.rgb_to_i420(flat([255, 255, 255]))[0, 0] == 235


@promise
def test_a_region_is_a_piece_of_the_whole():
    i420 = np.random.default_rng(0).integers(0, 256, (36, 20), dtype=np.uint8)
    whole = color.i420_to_rgb(i420)
    np.testing.assert_array_equal(color.i420_region_to_rgb(i420, 4, 6, 12, 10), whole[6:16, 4:16])


@promise
def test_pixels_outside_the_mask_keep_their_bits():
    random = np.random.default_rng(1)
    before = random.integers(0, 256, (36, 20), dtype=np.uint8)
    mask = np.zeros((10, 12), np.uint8)
    mask[3, 4] = 1
    i420 = before.copy()
    color.rgb_region_into_i420(
        random.integers(0, 256, (10, 12, 3), dtype=np.uint8), i420, 4, 6, mask
    )
    changed = np.zeros(36 * 20, bool)
    changed[(6 + 3) * 20 + 4 + 4] = True  # its luma
    for plane in range(2):  # its chroma sample, in U and V
        changed[24 * 20 + plane * 120 + ((6 + 3) // 2) * 10 + (4 + 4) // 2] = True
    np.testing.assert_array_equal(i420.ravel()[~changed], before.ravel()[~changed])
    i420_nothing = before.copy()
    color.rgb_region_into_i420(flat([9, 9, 9], 10, 12), i420_nothing, 4, 6, mask * 0)
    np.testing.assert_array_equal(i420_nothing, before)


@promise
def test_odd_and_outside_regions_are_refused():
    i420 = np.zeros((36, 20), np.uint8)
    with pytest.raises(UsageError, match="even"):
        color.i420_region_to_rgb(i420, 1, 0, 4, 4)
    with pytest.raises(UsageError, match="inside"):
        color.i420_region_to_rgb(i420, 18, 0, 4, 4)
    with pytest.raises(UsageError, match="even"):
        color.rgb_to_i420(np.zeros((3, 4, 3), np.uint8))
    with pytest.raises(UsageError, match="I420"):
        color.i420_to_rgb(np.zeros((35, 20), np.uint8))
    with pytest.raises(UsageError, match="contiguous"):
        color.i420_to_rgb(np.zeros((36, 40), np.uint8)[:, ::2])
    i420.flags.writeable = False
    with pytest.raises(UsageError, match="read-only"):
        color.rgb_region_into_i420(flat([0, 0, 0]), i420, 0, 0)


@twins
@MORE
@given(SEEDS, EVEN, EVEN, EVEN, EVEN)
def test_twins_of_regions_to_rgb(seed, w, h, x, y):
    i420 = np.random.default_rng(seed).integers(
        0, 256, ((y + h + 2) * 3 // 2, x + w + 4), dtype=np.uint8
    )
    assert_twins_agree(color.region_to_rgb, i420, x, y, w, h)


def into_i420(i420, *given):
    """The twin's and the compiled code's picture."""
    guards, expected = Guards(), i420.copy()
    got = guards.copy(i420)
    color.region_into_i420.reference(given[0], expected, *given[1:])
    guards.call(color.region_into_i420.native, given[0], got, *given[1:])
    return got, expected


@twins
@MORE
@given(SEEDS, EVEN, EVEN, EVEN, EVEN, st.booleans())
def test_twins_of_rgb_regions_into_i420(seed, w, h, x, y, masked):
    random = np.random.default_rng(seed)
    i420 = random.integers(0, 256, ((y + h + 2) * 3 // 2, x + w + 4), dtype=np.uint8)
    rgb = random.integers(0, 256, (h, w, 3), dtype=np.uint8)
    mask = random.integers(0, 2, (h, w), dtype=np.uint8) if masked else None
    got, expected = into_i420(i420, rgb, x, y, mask)
    np.testing.assert_array_equal(got, expected)


@twins
def test_twins_of_every_rgb_colour_on_a_grid():
    levels = np.append(np.arange(0, 255, 5), 255).astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 52 * 2, 3)
    rgb = np.ascontiguousarray(colours.repeat(2, axis=0))
    h, w = rgb.shape[:2]
    got, expected = into_i420(np.zeros((h * 3 // 2, w), np.uint8), rgb, 0, 0, None)
    np.testing.assert_array_equal(got, expected)
