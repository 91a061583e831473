"""What the kernels promise, for each implementation, against independent arithmetic."""

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipstream.engine.errors import BackendUnavailable, UsageError
from lipstream.kernels import color, composite, crop, dispatch, mesh, native, viterbi

SEEDS = st.integers(0, 2**32 - 1)
FEW = settings(max_examples=30, deadline=None, derandomize=True)


@pytest.fixture(params=["compiled", "numpy"], autouse=True, scope="module")
def kernels(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(dispatch.ENVIRONMENT_VARIABLE, request.param)
        dispatch.implementation.cache_clear()
        try:
            dispatch.implementation()
        except BackendUnavailable as missing:
            dispatch.implementation.cache_clear()
            pytest.skip(str(missing))
        yield request.param
    dispatch.implementation.cache_clear()


# ---------------------------------------------------------------------------- colour


def bt709(rgb):
    """Y, Cb, Cr of BT.709 limited range, in floating point, from the recommendation."""
    r, g, b = np.moveaxis(rgb.astype(np.float64) / 255, -1, 0)
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    return 16 + 219 * y, 128 + 224 * (b - y) / 1.8556, 128 + 224 * (r - y) / 1.5748


def flat(colour, h=4, w=4):
    return np.broadcast_to(np.array(colour, np.uint8), (h, w, 3)).copy()


@given(st.tuples(*[st.integers(0, 255)] * 3))
@FEW
def test_flat_colours_are_bt709(colour):
    i420 = color.rgb_to_i420(flat(colour))
    planes = i420[:4], i420[4], i420[5]
    for plane, expected in zip(planes, bt709(flat(colour)), strict=True):
        assert abs(plane.astype(float) - expected.ravel()[0]).max() <= 0.51


@given(st.tuples(*[st.integers(0, 255)] * 3))
@FEW
def test_flat_colours_come_back(colour):
    back = color.i420_to_rgb(color.rgb_to_i420(flat(colour)))
    assert abs(back.astype(int) - colour).max() <= 2


def test_greys_stay_grey_and_the_ends_are_exact():
    for level in range(256):
        i420 = color.rgb_to_i420(flat([level] * 3))
        assert (i420[4:] == 128).all()
        back = color.i420_to_rgb(i420)
        assert np.ptp(back) == 0
        assert abs(int(back[0, 0, 0]) - level) <= 1
    assert color.rgb_to_i420(flat([0, 0, 0]))[0, 0] == 16
    assert color.rgb_to_i420(flat([255, 255, 255]))[0, 0] == 235


def test_a_region_is_a_piece_of_the_whole():
    i420 = np.random.default_rng(0).integers(0, 256, (36, 20), dtype=np.uint8)
    whole = color.i420_to_rgb(i420)
    np.testing.assert_array_equal(color.i420_region_to_rgb(i420, 4, 6, 12, 10), whole[6:16, 4:16])


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


# ---------------------------------------------------------------------------- mesh


def jittered_grid(seed, columns=6, rows=5, step=7.0, jitter=2.5):
    random = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(columns) * step, np.arange(rows) * step)
    xy = np.stack([x.ravel(), y.ravel()], axis=1)
    inner = ((x > 0) & (x < x.max()) & (y > 0) & (y < y.max())).ravel()
    moves = random.uniform(-jitter, jitter, xy.shape)
    if seed % 2:
        moves = np.round(moves * 2) / 2  # vertices and edges on pixel centres and borders
    xy[inner] += moves[inner]
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    upper = np.stack([corner, corner + 1, corner + columns], axis=1)
    lower = np.stack([corner + 1, corner + columns, corner + columns + 1], axis=1)
    return xy.astype(np.float32), np.concatenate([upper, lower]).astype(np.int32)


@given(SEEDS)
@FEW
def test_a_mesh_paints_every_pixel_exactly_once(seed):
    xy, triangles = jittered_grid(seed)
    shape = (28, 35)
    count = sum(
        mesh.mesh_map(xy, xy, triangles[i : i + 1], shape)[1] // 255 for i in range(len(triangles))
    )
    assert (count == 1).all()


@given(SEEDS)
@FEW
def test_an_unmoved_mesh_copies_the_image(seed):
    xy, triangles = jittered_grid(seed)
    image = np.random.default_rng(seed).integers(0, 256, (28, 35, 3), dtype=np.uint8)
    warped, coverage = mesh.warp_mesh(image, xy, xy, triangles, (28, 35))
    assert (coverage == 255).all()
    np.testing.assert_array_equal(warped, image)


def test_a_whole_pixel_shift_moves_the_image():
    xy, triangles = jittered_grid(3)
    image = np.random.default_rng(3).integers(0, 256, (28, 35, 3), dtype=np.uint8)
    moved = xy + np.array([4, -3], np.float32)
    warped, coverage = mesh.warp_mesh(image, xy, moved, triangles, (20, 20), (8, 2))
    np.testing.assert_array_equal(warped, image[5:25, 4:24])
    assert (coverage == 255).all()


def test_an_affine_map_is_followed():
    xy, triangles = jittered_grid(4)
    linear, offset = np.array([[1.1, 0.2], [-0.1, 0.9]]), np.array([3.0, 5.0])
    target = (xy @ linear.T + offset).astype(np.float32)
    mapped, coverage = mesh.mesh_map(xy, target, triangles, (40, 50))
    rows, columns = np.nonzero(coverage)
    centres = np.stack([columns + 0.5, rows + 0.5], axis=1)
    expected = (centres - offset) @ np.linalg.inv(linear).T
    # Vertices are rounded to 1/256 px, which the affine map magnifies a little.
    assert abs(mapped[rows, columns] - expected).max() < 0.01
    assert (mapped[coverage == 0] == 0).all()


def test_the_last_triangle_is_on_top():
    xy = np.array([[0, 0], [8, 0], [0, 8], [8, 8]], np.float32)
    source = np.concatenate([xy, xy + 100])
    target = np.concatenate([xy, xy])
    under, over = [0, 1, 2], [4, 5, 6]
    mapped, _ = mesh.mesh_map(source, target, np.array([under, over], np.int32), (8, 8))
    assert mapped[1, 1, 0] > 100
    mapped, _ = mesh.mesh_map(source, target, np.array([over, under], np.int32), (8, 8))
    assert mapped[1, 1, 0] < 100


def test_sampling_is_bilinear_and_repeats_the_border():
    image = np.array([[[0], [100]], [[200], [60]]], np.uint8)
    mapped = np.array([[[1, 0.5], [1, 1], [-9, -9], [99, 0.5], [np.nan, 1.5]]], np.float32)
    assert mesh.remap(image, mapped)[0, :, 0].tolist() == [50, 90, 0, 100, 200]


def test_meshes_that_would_read_astray_are_refused():
    xy, triangles = jittered_grid(0)
    with pytest.raises(UsageError, match="vertices"):
        mesh.mesh_map(xy, xy, triangles + 1, (8, 8))
    broken = xy.copy()
    broken[3, 1] = np.nan
    with pytest.raises(UsageError, match="NaN"):
        mesh.mesh_map(xy, broken, triangles, (8, 8))
    with pytest.raises(UsageError, match="out_shape"):
        mesh.mesh_map(xy, xy, triangles, (0, 8))


# ------------------------------------------------------------------------- composite


@given(SEEDS)
@FEW
def test_alpha_ends_are_exact_and_the_middle_is_rounded(seed):
    random = np.random.default_rng(seed)
    background, layer = random.integers(0, 256, (2, 9, 8, 3), dtype=np.uint8)
    alpha = random.choice(np.array([0, 1, 77, 128, 254, 255], np.uint8), (9, 8))
    weight = alpha[..., None] / 255
    exact = background * (1 - weight) + layer * weight
    for a in (alpha, weight[..., 0].astype(np.float32)):
        out = composite.blend(background, layer, a)
        np.testing.assert_array_equal(out[alpha == 0], background[alpha == 0])
        np.testing.assert_array_equal(out[alpha == 255], layer[alpha == 255])
        assert abs(out - exact).max() <= (0.501 if a.dtype == np.uint8 else 0.54)


def test_the_match_moves_the_layer_only():
    background, layer = np.full((2, 2, 2, 3), 100, np.uint8)
    alpha = np.array([[0, 255], [255, 0]], np.uint8)
    gain, bias = np.array([1, 2, 3], np.float32), np.array([5, -20, 0], np.float32)
    out = composite.blend_matched(background, layer, alpha, gain, bias)
    assert out[0, 1].tolist() == [105, 180, 255]
    assert out[0, 0].tolist() == [100, 100, 100]
    with pytest.raises(UsageError, match="finite"):
        composite.blend_matched(background, layer, alpha, gain * np.float32("nan"), bias)
    with pytest.raises(UsageError, match="alpha"):
        composite.blend(background, layer, alpha.astype(np.float64))


# ------------------------------------------------------------------ dynamic programming


def test_min_plus_by_hand():
    inf = np.inf
    score = np.array([0, 4, inf], np.float32)
    predecessors = np.array([[0, 1], [1, 0], [2, 2]], np.int32)
    cost = np.array([[5, 1], [0, 4], [0, 1]], np.float32)
    best, back = viterbi.min_plus(score, predecessors, cost, np.array([1, 2, 3], np.float32))
    assert best.tolist() == [6, 6, inf]  # both are ties: 0 + 5 = 4 + 1 and 4 + 0 = 0 + 4
    assert back.tolist() == [0, 1, -1]


def test_feature_distance_by_hand():
    features = np.array([[0, 1, 3], [2, 2, 2]], np.float32)
    got = viterbi.feature_distance(
        features, np.array([1, 0], np.float32), np.array([0, 10, np.inf], np.float32)
    )
    assert got.tolist() == [5, 14, np.inf]
    with pytest.raises(UsageError, match="finite"):
        viterbi.feature_distance(features, np.array([np.nan, 0], np.float32), got)


# ---------------------------------------------------------------------------- choice


def test_the_choice_is_logged_once(kernels, caplog):
    dispatch.implementation.cache_clear()
    with caplog.at_level(logging.INFO):
        assert [dispatch.implementation(), dispatch.implementation()] == [kernels] * 2
    assert [record.kernels for record in caplog.records] == [kernels]


def test_nobody_falls_back_in_silence(kernels, monkeypatch, caplog):
    def missing():
        raise BackendUnavailable("not built")

    monkeypatch.setattr(native, "library", missing)
    monkeypatch.setenv(dispatch.ENVIRONMENT_VARIABLE, "compiled")
    dispatch.implementation.cache_clear()
    with pytest.raises(BackendUnavailable, match="not built"):
        dispatch.implementation()
    monkeypatch.delenv(dispatch.ENVIRONMENT_VARIABLE)
    assert dispatch.implementation() == "numpy"
    assert caplog.records[-1].levelno == logging.WARNING
    assert caplog.records[-1].reason == "not built"
    monkeypatch.setenv(dispatch.ENVIRONMENT_VARIABLE, "fast")
    dispatch.implementation.cache_clear()
    with pytest.raises(UsageError, match="'fast'"):
        dispatch.implementation()
    monkeypatch.setenv(dispatch.ENVIRONMENT_VARIABLE, kernels)


# ------------------------------------------------------------------------------ crop


def test_a_crop_on_whole_pixels_is_copied():
    picture = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    place, shape = (3.0, 2.0, 1.0), (6, 8)
    seen, planes = crop.crop_in(picture, picture[::-1], None, None, place, shape)
    own = picture[2:8, 3:11].transpose(2, 0, 1)
    np.testing.assert_array_equal(seen[..., :3], picture[2:8, 3:11])
    np.testing.assert_array_equal(seen[..., 3:], picture[::-1][2:8, 3:11])
    np.testing.assert_allclose(planes[6:9] * 255, own, atol=1e-4)
    np.testing.assert_allclose(planes[9:] * 255, own, atol=1e-4)
    before = np.full((*shape, 3), 51, np.uint8)
    _, planes = crop.crop_in(picture, picture, None, before, place, shape)
    np.testing.assert_allclose(planes[9:], 0.2, atol=1e-6)


def test_a_smaller_look_lies_on_the_same_face_where_the_layer_is_opaque():
    down, across = np.mgrid[:24, :32].astype(np.float32) + 0.5
    picture = np.stack([4 * across, 4 * down, 0 * down], -1).astype(np.uint8)
    small = picture.reshape(12, 2, 16, 2, 3).mean((1, 3)).astype(np.uint8)
    guides = np.zeros_like(picture)
    guides[:, 16:, 0] = 255
    place, shape = (4.0, 4.0, 1.5), (10, 15)
    seen, planes = crop.crop_in(picture, guides, 255 - small, None, place, shape)
    opaque = seen[..., 3] == 255
    assert opaque.any() and (seen[..., 3] == 0).any()
    told = np.round(planes[6:9] * 255).transpose(1, 2, 0).astype(int)
    assert np.abs(told[opaque] - (255 - seen[..., :3][opaque].astype(int))).max() <= 3
    clear = seen[..., 3] == 0
    np.testing.assert_array_equal(told[clear], seen[..., :3][clear])


def test_in_the_gap_what_is_expected_shows_as_far_as_it_is_trusted():
    picture = np.full((12, 16, 3), 50, np.uint8)
    guides = np.full_like(picture, 255)
    guides[..., 2] = 0
    guides[:, 4:8, 2], guides[:, 8:12, 2], guides[:, 12:, 2] = (
        crop.SYNTHETIC // 2,
        crop.SYNTHETIC,
        255,
    )
    look = np.full_like(picture, 150)
    _, planes = crop.crop_in(picture, guides, look, None, (0.0, 0.0, 1.0), (12, 16), 0.25)
    told = planes[6:9, :, [1, 5, 9, 14]] * 255
    wanted = np.array([150, 50 + 100 * (1 - 0.75 / 2), 75, 75], np.float32)
    np.testing.assert_allclose(told, np.broadcast_to(wanted, told.shape), atol=0.01)


def test_gates_take_parts_of_what_is_expected():
    rng = np.random.default_rng(0)
    planes = rng.uniform(0, 1, (12, 20, 24)).astype(np.float32)
    apart = planes[6:9] - planes[:3]

    def taken(*gates):
        every = np.broadcast_to(np.float32(gates)[:, None, None], (3, 20, 24))
        return crop.fused(every.copy(), planes)

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
        np.abs(crop.fused(np.ones((3, 20, 24), np.float32), flat) - (flat[6:9] - 0.3)).max() < 1e-6
    )


def test_a_difference_is_added_by_opacity_and_rounded():
    opacity = np.arange(256, dtype=np.uint8).reshape(16, 16)
    guides = np.repeat(opacity[..., None], 3, axis=2)
    for difference in (-128, -37, -1, 0, 1, 90, 127):
        picture = np.full((16, 16, 3), 120, np.uint8)
        seen, _ = crop.crop_in(picture, guides, None, None, (0.0, 0.0, 1.0), (16, 16))
        values = np.full((3, 16, 16), difference / 255, np.float32)
        refined = crop.crop_out(values, seen, picture, guides, (0.0, 0.0, 1.0))
        exact = np.floor(120 + difference * opacity.astype(np.float64) / 255 + 0.5)
        np.testing.assert_array_equal(picture[..., 1], np.clip(exact, 0, 255))
        np.testing.assert_array_equal(refined, picture)


@pytest.mark.parametrize("ways", [(1, 0), (0, 1), (1, 1)], ids=["columns", "rows", "both"])
def test_what_alternates_from_pixel_to_pixel_is_taken_out(ways):
    down, along = np.mgrid[:12, :16]
    grid = np.where((down * ways[1] + along * ways[0]) % 2, 0.05, -0.05)
    slope = 0.01 * along + 0.02 * down
    difference = np.tile(slope + grid, (3, 1, 1)).astype(np.float32)
    seen = np.zeros((12, 16, 6), np.uint8)
    kept = crop.unsharp_mask(difference, seen, 0.0)[:, 2:-2, 2:-2]  # the border repeats
    np.testing.assert_allclose(kept, np.tile(slope, (3, 1, 1))[:, 2:-2, 2:-2], atol=1e-6)


def test_a_difference_keeps_away_from_what_is_drawn_in_the_gap():
    difference = np.full((3, 12, 30), 0.1, np.float32)
    for confidence, share in ((0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (1.0, 1.0)):
        seen = np.zeros((12, 30, 6), np.uint8)
        seen[4:8, :10, 5] = round(crop.SYNTHETIC + (255 - crop.SYNTHETIC) * confidence)
        kept = crop.attenuate_in_synthetic(difference, seen) / 0.1
        np.testing.assert_allclose(kept[:, 4:8, :10], share, atol=0.02)
        np.testing.assert_array_equal(kept[:, :, 13:], 1.0)
    assert kept.min() == 1.0  # the edge of a gap that is all the source's is no edge


def test_what_is_drawn_in_the_gap_gives_way_to_what_is_expected():
    gates = np.full((3, 12, 30), 0.25, np.float32)
    for confidence in (0.0, 0.5, 1.0):
        seen = np.zeros((12, 30, 6), np.uint8)
        seen[4:8, :10, 5] = round(crop.SYNTHETIC + (255 - crop.SYNTHETIC) * confidence)
        given = crop.override_in_synthetic(gates, seen)
        for gate, wanted in zip(given, (1, 1, 0), strict=True):
            np.testing.assert_allclose(
                gate[4:8, :10], wanted + confidence * (0.25 - wanted), atol=0.01
            )
        np.testing.assert_array_equal(given[:, :, 13:], 0.25)
    assert given is gates  # the edge of a gap that is all the source's is no edge
    # Where all is drawn a pixel shows what is expected, whatever is thought of it.
    planes = np.random.default_rng(0).uniform(0, 1, (12, 12, 30)).astype(np.float32)
    seen[..., 5] = crop.SYNTHETIC
    shown = planes[:3] + crop.fused(crop.override_in_synthetic(gates, seen), planes)
    np.testing.assert_allclose(shown, planes[6:9], atol=1e-5)


def test_crop_arguments_are_checked():
    picture = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(UsageError, match="place"):
        crop.crop_in(picture, picture, None, None, (0.0, float("nan"), 1.0), (4, 4))
    with pytest.raises(UsageError, match=r"guides.*\[4, 4, 3\]"):
        crop.crop_in(picture, picture[:2], None, None, (0.0, 0.0, 1.0), (4, 4))
    seen, planes = crop.crop_in(picture, picture, None, None, (0.0, 0.0, 1.0), (4, 4))
    with pytest.raises(UsageError, match="written in place"):
        crop.crop_out(planes[:3], seen, np.zeros((4, 8, 3), np.uint8)[:, ::2], picture, (0, 0, 1))
