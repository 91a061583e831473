"""The renderer's crop: in, gates, sharpened, attenuated, out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipstream.engine.errors import UsageError
from lipstream.kernels import crop
from tests.kernels.guard_bytes import Guards, assert_twins_agree
from tests.kernels.strategies import MORE, SEEDS

promise = pytest.mark.usefixtures("kernels")  # of each implementation, as a process chooses it
twins = pytest.mark.usefixtures("library")  # compiled code against NumPy


@promise
def test_a_crop_on_whole_pixels_is_copied():
    picture = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    place, shape = (3.0, 2.0, 1.0), (6, 8)
    pixels, planes = crop.crop_in(picture, picture[::-1], None, None, place, shape)
    own = picture[2:8, 3:11].transpose(2, 0, 1)
    np.testing.assert_array_equal(pixels[..., :3], picture[2:8, 3:11])
    np.testing.assert_array_equal(pixels[..., 3:], picture[::-1][2:8, 3:11])
    np.testing.assert_allclose(planes[6:9] * 255, own, atol=1e-4)
    np.testing.assert_allclose(planes[9:] * 255, own, atol=1e-4)
    before = np.full((*shape, 3), 51, np.uint8)
    _, planes = crop.crop_in(picture, picture, None, before, place, shape)
    np.testing.assert_allclose(planes[9:], 0.2, atol=1e-6)


@promise
def test_a_smaller_prior_lies_on_the_same_face_where_the_layer_is_opaque():
    down, across = np.mgrid[:24, :32].astype(np.float32) + 0.5
    picture = np.stack([4 * across, 4 * down, 0 * down], -1).astype(np.uint8)
    small = picture.reshape(12, 2, 16, 2, 3).mean((1, 3)).astype(np.uint8)
    conditioning = np.zeros_like(picture)
    conditioning[:, 16:, 0] = 255
    place, shape = (4.0, 4.0, 1.5), (10, 15)
    pixels, planes = crop.crop_in(picture, conditioning, 255 - small, None, place, shape)
    opaque = pixels[..., 3] == 255
    assert opaque.any() and (pixels[..., 3] == 0).any()
    shown = np.round(planes[6:9] * 255).transpose(1, 2, 0).astype(int)
    assert np.abs(shown[opaque] - (255 - pixels[..., :3][opaque].astype(int))).max() <= 3
    clear = pixels[..., 3] == 0
    np.testing.assert_array_equal(shown[clear], pixels[..., :3][clear])


@promise
def test_in_the_gap_the_prior_shows_by_its_confidence():
    picture = np.full((12, 16, 3), 50, np.uint8)
    conditioning = np.full_like(picture, 255)
    conditioning[..., 2] = 0
    conditioning[:, 4:8, 2], conditioning[:, 8:12, 2], conditioning[:, 12:, 2] = (
        crop.SYNTHETIC // 2,
        crop.SYNTHETIC,
        255,
    )
    prior = np.full_like(picture, 150)
    _, planes = crop.crop_in(picture, conditioning, prior, None, (0.0, 0.0, 1.0), (12, 16), 0.25)
    shown = planes[6:9, :, [1, 5, 9, 14]] * 255
    wanted = np.array([150, 50 + 100 * (1 - 0.75 / 2), 75, 75], np.float32)
    np.testing.assert_allclose(shown, np.broadcast_to(wanted, shown.shape), atol=0.01)


@promise
def test_gates_take_parts_of_the_prior():
    rng = np.random.default_rng(0)
    planes = rng.uniform(0, 1, (12, 20, 24)).astype(np.float32)
    apart = planes[6:9] - planes[:3]

    def taken(*gates):
        every = np.broadcast_to(np.float32(gates)[:, None, None], (3, 20, 24))
        return crop.apply_gates(every.copy(), planes)

    np.testing.assert_allclose(taken(1, 1, 0), apart, atol=1e-6)
    coarse, fine = taken(1, 0, 0), taken(0, 1, 0)
    np.testing.assert_allclose(coarse + fine, apart, atol=1e-6)
    assert np.abs(np.diff(coarse)).mean() < 0.1 * np.abs(np.diff(fine)).mean()
    np.testing.assert_array_equal(taken(0, 0, 0), 0)
    np.testing.assert_array_equal(taken(2, -1, 0), coarse)
    # The third sharpens what was painted: from it alone, and as much at most as it has.
    np.testing.assert_array_equal(taken(0, 0, 5), taken(0, 0, 1))
    np.testing.assert_allclose(taken(0, 0, -9), -0.5 * taken(0, 0, 1), atol=1e-6)
    flat = planes.copy()
    flat[:3] = 0.3
    assert (
        np.abs(crop.apply_gates(np.ones((3, 20, 24), np.float32), flat) - (flat[6:9] - 0.3)).max()
        < 1e-6
    )


@promise
def test_a_difference_is_added_by_opacity_and_rounded():
    opacity = np.arange(256, dtype=np.uint8).reshape(16, 16)
    conditioning = np.repeat(opacity[..., None], 3, axis=2)
    for difference in (-128, -37, -1, 0, 1, 90, 127):
        picture = np.full((16, 16, 3), 120, np.uint8)
        pixels, _ = crop.crop_in(picture, conditioning, None, None, (0.0, 0.0, 1.0), (16, 16))
        values = np.full((3, 16, 16), difference / 255, np.float32)
        refined = crop.crop_out(values, pixels, picture, conditioning, (0.0, 0.0, 1.0))
        exact = np.floor(120 + difference * opacity.astype(np.float64) / 255 + 0.5)
        np.testing.assert_array_equal(picture[..., 1], np.clip(exact, 0, 255))
        np.testing.assert_array_equal(refined, picture)


@promise
@pytest.mark.parametrize("ways", [(1, 0), (0, 1), (1, 1)], ids=["columns", "rows", "both"])
def test_what_alternates_from_pixel_to_pixel_is_taken_out(ways):
    down, along = np.mgrid[:12, :16]
    grid = np.where((down * ways[1] + along * ways[0]) % 2, 0.05, -0.05)
    slope = 0.01 * along + 0.02 * down
    difference = np.tile(slope + grid, (3, 1, 1)).astype(np.float32)
    pixels = np.zeros((12, 16, 6), np.uint8)
    kept = crop.unsharp_mask(difference, pixels, 0.0)[:, 2:-2, 2:-2]  # the border repeats
    np.testing.assert_allclose(kept, np.tile(slope, (3, 1, 1))[:, 2:-2, 2:-2], atol=1e-6)


@promise
def test_a_difference_is_attenuated_where_the_gap_is_synthetic():
    difference = np.full((3, 12, 30), 0.1, np.float32)
    for confidence, share in ((0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (1.0, 1.0)):
        pixels = np.zeros((12, 30, 6), np.uint8)
        pixels[4:8, :10, 5] = round(crop.SYNTHETIC + (255 - crop.SYNTHETIC) * confidence)
        kept = crop.attenuate_in_synthetic(difference, pixels) / 0.1
        np.testing.assert_allclose(kept[:, 4:8, :10], share, atol=0.02)
        np.testing.assert_array_equal(kept[:, :, 13:], 1.0)
    assert kept.min() == 1.0  # a gap that comes from a source all over has no edge


@promise
def test_synthetic_teeth_give_way_to_the_prior():
    gates = np.full((3, 12, 30), 0.25, np.float32)
    for confidence in (0.0, 0.5, 1.0):
        pixels = np.zeros((12, 30, 6), np.uint8)
        pixels[4:8, :10, 5] = round(crop.SYNTHETIC + (255 - crop.SYNTHETIC) * confidence)
        overridden = crop.override_in_synthetic(gates, pixels)
        for gate, wanted in zip(overridden, (1, 1, 0), strict=True):
            np.testing.assert_allclose(
                gate[4:8, :10], wanted + confidence * (0.25 - wanted), atol=0.01
            )
        np.testing.assert_array_equal(overridden[:, :, 13:], 0.25)
    assert overridden is gates  # a gap that comes from a source all over has no edge
    # Where all is synthetic a pixel shows the prior, whatever its confidence.
    planes = np.random.default_rng(0).uniform(0, 1, (12, 12, 30)).astype(np.float32)
    pixels[..., 5] = crop.SYNTHETIC
    shown = planes[:3] + crop.apply_gates(crop.override_in_synthetic(gates, pixels), planes)
    np.testing.assert_allclose(shown, planes[6:9], atol=1e-5)


@promise
def test_crop_arguments_are_checked():
    picture = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(UsageError, match="place"):
        crop.crop_in(picture, picture, None, None, (0.0, float("nan"), 1.0), (4, 4))
    with pytest.raises(UsageError, match=r"conditioning.*\[4, 4, 3\]"):
        crop.crop_in(picture, picture[:2], None, None, (0.0, 0.0, 1.0), (4, 4))
    pixels, planes = crop.crop_in(picture, picture, None, None, (0.0, 0.0, 1.0), (4, 4))
    with pytest.raises(UsageError, match="written in place"):
        crop.crop_out(planes[:3], pixels, np.zeros((4, 8, 3), np.uint8)[:, ::2], picture, (0, 0, 1))


@twins
@MORE
@given(
    SEEDS,
    st.integers(1, 30),
    st.integers(1, 30),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.booleans(),
    st.booleans(),
)
def test_twins_of_the_way_into_a_crop_and_out(seed, w, h, shape, first, with_prior):
    random = np.random.default_rng(seed)
    picture, conditioning = random.integers(0, 256, (2, h, w, 3), dtype=np.uint8)
    conditioning[random.random((h, w)) < 0.3] = 0
    conditioning[: random.integers(0, h + 1)] = 0
    previous = None if first else random.integers(0, 256, (*shape, 3), dtype=np.uint8)
    size = random.integers(1, 30, 2)
    prior = random.integers(0, 256, (*size, 3), dtype=np.uint8) if with_prior else None
    place = (*random.uniform(-5, 20, 2), random.uniform(0.1, 5))
    pixels, planes = assert_twins_agree(
        crop.sample_crop, picture, conditioning, prior, previous, place, shape
    )
    gates = random.normal(0.4, 0.6, (3, *shape)).astype(np.float32)
    difference = assert_twins_agree(crop.gate, gates, planes)
    difference = difference + random.normal(0, 0.4, difference.shape).astype(np.float32)
    assert_twins_agree(crop.sharpen, difference, pixels, 0.65)
    table = random.choice([0, 0, 100, 255, 255], 256).astype(np.uint8)
    table[0] = 255
    assert_twins_agree(crop.attenuate, difference, pixels, table)
    guards, expected = Guards(), picture.copy()
    got = guards.copy(picture)
    np.testing.assert_array_equal(
        guards.call(crop.add_crop.native, difference, pixels, got, conditioning, place),
        crop.add_crop.reference(difference, pixels, expected, conditioning, place),
    )
    np.testing.assert_array_equal(got, expected)


@promise
def test_pictures_without_a_pixel_are_refused():
    picture, nothing = np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4, 3), np.uint8)
    place = (0.0, 0.0, 1.0)
    for images in ((nothing, nothing, None, None), (picture, picture, nothing, None)):
        with pytest.raises(UsageError, match="at least one pixel"):
            crop.crop_in(*images, place, (4, 4))
    with pytest.raises(UsageError, match="above 0"):
        crop.crop_in(picture, picture, None, None, place, (0, 4))
    with pytest.raises(UsageError, match="at least one pixel"):
        crop.crop_out(
            np.zeros((3, 0, 4), np.float32), np.zeros((0, 4, 6), np.uint8), picture, picture, place
        )
