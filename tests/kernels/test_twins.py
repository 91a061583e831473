"""Compiled kernels equal their NumPy twins bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipstream.engine.errors import UsageError
from lipstream.kernels import convolution, gru, native
from lipstream.kernels.reference import all as reference

pytestmark = pytest.mark.usefixtures("library")

SEEDS = st.integers(0, 2**32 - 1)
EVEN = st.integers(1, 20).map(lambda half: 2 * half)
FEW = settings(max_examples=60, deadline=None, derandomize=True)


@FEW
@given(SEEDS, EVEN, EVEN, EVEN, EVEN)
def test_i420_regions_to_rgb(seed, w, h, x, y):
    i420 = np.random.default_rng(seed).integers(
        0, 256, ((y + h + 2) * 3 // 2, x + w + 4), dtype=np.uint8
    )
    expected = reference.i420_region_to_rgb(i420, x, y, w, h)
    np.testing.assert_array_equal(native.i420_region_to_rgb(i420, x, y, w, h), expected)


@FEW
@given(SEEDS, EVEN, EVEN, EVEN, EVEN, st.booleans())
def test_rgb_regions_into_i420(seed, w, h, x, y, masked):
    random = np.random.default_rng(seed)
    i420 = random.integers(0, 256, ((y + h + 2) * 3 // 2, x + w + 4), dtype=np.uint8)
    rgb = random.integers(0, 256, (h, w, 3), dtype=np.uint8)
    mask = random.integers(0, 2, (h, w), dtype=np.uint8) if masked else None
    expected, got = i420.copy(), i420.copy()
    reference.rgb_region_into_i420(rgb, expected, x, y, mask)
    native.rgb_region_into_i420(rgb, got, x, y, mask)
    np.testing.assert_array_equal(got, expected)


def test_every_rgb_colour_on_a_grid():
    levels = np.append(np.arange(0, 255, 5), 255).astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 52 * 2, 3)
    rgb = np.ascontiguousarray(colours.repeat(2, axis=0))
    h, w = rgb.shape[:2]
    expected, got = np.zeros((2, h * 3 // 2, w), np.uint8)
    reference.rgb_region_into_i420(rgb, expected, 0, 0, None)
    native.rgb_region_into_i420(rgb, got, 0, 0, None)
    np.testing.assert_array_equal(got, expected)


@FEW
@given(SEEDS, st.integers(1, 1200), st.integers(1, 23), st.integers(1, 6))
def test_min_plus_with_ties_and_infinities(seed, states, slots, levels):
    random = np.random.default_rng(seed)

    def costs(shape):
        values = random.integers(0, levels, shape).astype(np.float32)
        values[random.random(shape) < 0.2] = np.inf
        return values

    score, emission = costs(states), costs(states)
    predecessors = random.integers(0, states, (states, slots), dtype=np.int32)
    cost = costs((states, slots))
    expected, expected_back = reference.min_plus(score, predecessors, cost, emission)
    got, back = native.min_plus(score, predecessors, cost, emission)
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(back, expected_back)


@FEW
@given(SEEDS, st.integers(1, 500), st.integers(0, 6))
def test_trace_back(seed, states, depth):
    random = np.random.default_rng(seed)
    backs = [random.integers(-1, states, states, dtype=np.int32) for _ in range(depth)]
    start = np.arange(states, dtype=np.int32)
    np.testing.assert_array_equal(
        native.trace_back(backs, start), reference.trace_back(backs, start)
    )


@FEW
@given(SEEDS, st.integers(1, 5000), st.integers(0, 24))
def test_feature_distance(seed, states, features):
    random = np.random.default_rng(seed)
    table = random.normal(size=(features, states)).astype(np.float32)
    wanted = random.normal(size=features).astype(np.float32)
    base = random.random(states, dtype=np.float32)
    base[random.random(states) < 0.1] = np.inf
    np.testing.assert_array_equal(
        native.feature_distance(table, wanted, base),
        reference.feature_distance(table, wanted, base),
    )


@FEW
@given(SEEDS, st.integers(3, 30), st.integers(1, 40), st.integers(1, 4), st.booleans())
def test_warp_mesh_of_any_triangle_soup(seed, vertices, triangles, channels, on_grid):
    random = np.random.default_rng(seed)
    source = random.integers(0, 256, (23, 31, channels), dtype=np.uint8)
    source_xy, target_xy = random.uniform(-10, 45, (2, vertices, 2)).astype(np.float32)
    if on_grid:  # vertices and edges that run through pixel centres: the fill rule decides
        target_xy = np.floor(target_xy) + np.float32(0.5)
    ids = random.integers(0, vertices, (triangles, 3), dtype=np.int32)
    arguments = (source_xy, target_xy, ids, (29, 37), (-3, 5))
    onto = random.integers(0, 256, (29, 37, channels), dtype=np.uint8)
    for expected, got in (
        (reference.mesh_map(*arguments), native.mesh_map(*arguments)),
        (reference.warp_mesh(source, *arguments), native.warp_mesh(source, *arguments)),
        (
            reference.warp_mesh(source, *arguments, onto),
            native.warp_mesh(source, *arguments, onto),
        ),
    ):
        np.testing.assert_array_equal(got[0], expected[0])
        np.testing.assert_array_equal(got[1], expected[1])


@FEW
@given(SEEDS, st.integers(1, 12), st.integers(1, 9))
def test_warp_region_of_any_frame(seed, w, h):
    random = np.random.default_rng(seed)
    frame = random.integers(0, 256, (3 * 12, 2 * 16), dtype=np.uint8)
    box = (2 * int(random.integers(0, 17 - w)), 2 * int(random.integers(0, 13 - h)), 2 * w, 2 * h)
    source_xy, target_xy = random.uniform(-5, 30, (2, 9, 2)).astype(np.float32)
    ids = random.integers(0, 9, (12, 3), dtype=np.int32)
    for moves in (source_xy, target_xy):
        arguments = (frame, box, source_xy, moves, ids)
        np.testing.assert_array_equal(
            native.warp_region(*arguments), reference.warp_region(*arguments)
        )


@FEW
@given(SEEDS, st.integers(1, 9), st.integers(1, 9), st.integers(1, 4))
def test_remap_anywhere(seed, w, h, channels):
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (h, w, channels), dtype=np.uint8)
    mapped = random.uniform(-3, 12, (11, 13, 2)).astype(np.float32)
    mapped[0, :3, 0] = np.nan, np.inf, -np.inf
    np.testing.assert_array_equal(native.remap(image, mapped), reference.remap(image, mapped))


@FEW
@given(SEEDS, st.integers(1, 40), st.integers(1, 40), st.booleans(), st.booleans())
def test_blend(seed, w, h, as_float, matched):
    random = np.random.default_rng(seed)
    background, layer = random.integers(0, 256, (2, h, w, 3), dtype=np.uint8)
    alpha = random.integers(0, 256, (h, w), dtype=np.uint8)
    if as_float:
        alpha = random.uniform(-0.2, 1.2, (h, w)).astype(np.float32)
        alpha[0, 0] = np.nan
    gain = random.uniform(-1, 3, 3).astype(np.float32)
    bias = random.uniform(-90, 90, 3).astype(np.float32)
    if matched:
        expected = reference.blend_matched(background, layer, alpha, gain, bias)
    else:
        expected = reference.blend(background, layer, alpha)
    got = native.blend(background, layer, alpha, (gain, bias) if matched else None)
    np.testing.assert_array_equal(got, expected)


@FEW
@given(
    SEEDS,
    st.integers(1, 30),
    st.integers(1, 30),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.booleans(),
    st.booleans(),
)
def test_crop_in_and_out(seed, w, h, shape, first, told):
    random = np.random.default_rng(seed)
    picture, guides = random.integers(0, 256, (2, h, w, 3), dtype=np.uint8)
    guides[random.random((h, w)) < 0.3] = 0
    guides[: random.integers(0, h + 1)] = 0
    previous = None if first else random.integers(0, 256, (*shape, 3), dtype=np.uint8)
    size = random.integers(1, 30, 2)
    look = random.integers(0, 256, (*size, 3), dtype=np.uint8) if told else None
    place = (*random.uniform(-5, 20, 2), random.uniform(0.1, 5))
    given = (picture, guides, look, previous, place, shape)
    expected, expected_planes = reference.crop_in(*given)
    seen, planes = native.crop_in(*given)
    np.testing.assert_array_equal(seen, expected)
    np.testing.assert_array_equal(planes, expected_planes)
    gates = random.normal(0.4, 0.6, (3, *shape)).astype(np.float32)
    difference = native.fused(gates, planes)
    np.testing.assert_array_equal(difference, reference.fused(gates, planes))
    difference += random.normal(0, 0.4, difference.shape).astype(np.float32)
    np.testing.assert_array_equal(
        native.unsharp_mask(difference, seen, 0.65), reference.unsharp_mask(difference, seen, 0.65)
    )
    table = random.choice([0, 0, 100, 255, 255], 256).astype(np.uint8)
    table[0] = 255
    np.testing.assert_array_equal(
        native.attenuate_in_synthetic(difference, seen, table),
        reference.attenuate_in_synthetic(difference, seen, table),
    )
    ours, theirs = picture.copy(), picture.copy()
    np.testing.assert_array_equal(
        native.crop_out(difference, seen, ours, guides, place),
        reference.crop_out(difference, seen, theirs, guides, place),
    )
    np.testing.assert_array_equal(ours, theirs)


@FEW
@given(SEEDS, st.integers(1, 2000), st.integers(0, 256))
def test_mixed(seed, size, weight):
    old, new = np.random.default_rng(seed).integers(0, 256, (2, size), dtype=np.uint8)
    expected = reference.crossfade(old, new, weight)
    np.testing.assert_array_equal(native.crossfade(old, new, weight), expected)
    if weight in (0, 256):
        np.testing.assert_array_equal(expected, new if weight else old)


@FEW
@given(SEEDS, st.integers(1, 40), st.integers(1, 150))
def test_affine(seed, inputs, outputs):
    random = np.random.default_rng(seed)
    weights = random.normal(0, 1, (outputs, inputs)).astype(np.float16)
    weights[0, 0] = np.float16(3e-6)  # below the normal range of halves
    x, bias = (random.normal(size=n).astype(np.float32) for n in (inputs, outputs))
    blocks = gru.packed(weights)
    padded = np.zeros(blocks.shape[0] * blocks.shape[2], np.float32)
    padded[:outputs] = bias
    got = native.affine(x, blocks, padded)[:outputs]
    np.testing.assert_array_equal(got, reference.affine(x, weights, bias))


def a_renderer(random, fine, middle, coarse, blocks):
    """Weights of a small renderer, and ranges that its activations partly leave."""
    shapes = {"enter": (fine, 36, 3), "down1": (middle, fine, 3), "down2": (coarse, middle, 3)}
    for part, width, count in (("coarse", coarse, blocks[0]), ("middle", middle, blocks[1])):
        for i in range(count):
            shapes[f"{part}.{i}.first"] = shapes[f"{part}.{i}.second"] = (width, width, 3)
    shapes |= {"up1": (4 * middle, coarse, 1), "up2": (4 * fine, middle, 1)}
    shapes |= {"fine.first": (fine, fine, 3), "fine.second": (fine, fine, 3)}
    shapes["leave"] = (12, fine, 3)
    weights, ranges = {}, {}
    for name, (outputs, inputs, side) in shapes.items():
        spread = 1.5 / np.sqrt(inputs * side * side)
        values = random.normal(0, spread, (outputs, inputs, side, side))
        weights[f"{name}.weight"] = values.astype(np.float32)
        weights[f"{name}.bias"] = random.normal(0, 0.2, outputs).astype(np.float32)
        ranges[f"{name}.weight"] = (0.0, float(random.uniform(0.2, 3)))
    return weights, ranges


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    SEEDS,
    st.sampled_from([(16, 24, 40, (1, 2)), (16, 40, 80, (2, 1)), (24, 32, 16, (0, 0))]),
    st.sampled_from([(32, 96), (48, 112), (64, 112)]),
)
def test_renderer_pass(seed, sizes, shape):
    if not convolution.fits():
        pytest.skip("needs a processor with AVX2, and kernels that use it")
    random = np.random.default_rng(seed)
    weights, ranges = a_renderer(random, *sizes)
    ours = convolution.RendererPass(weights, ranges)
    for _ in range(2):  # the second in the scratch of the first
        planes = random.integers(0, 256, (9, *shape)).astype(np.float32) * np.float32(1 / 255)
        expected = reference.renderer_pass(
            ours.layers, ours.blocks, planes, convolution.ENTRY_LEVEL
        )
        np.testing.assert_array_equal(ours(planes), expected)


def test_no_picture_makes_a_sum_of_products_leave_32_bits():
    weights, ranges = a_renderer(np.random.default_rng(0), 16, 40, 80, (1, 1))
    weights["up1.weight"][3] *= 1000
    weights["enter.weight"][5] = 0
    steps = dict.fromkeys(ranges, 1e-3)
    for layer in convolution.integer_layers(weights, steps):
        largest = convolution.MOST * (4 if len(layer.weights) == 16 else 1)
        sums = np.abs(layer.weights.astype(np.int64)).sum(2) * largest
        assert sums.max() < 2**31
        assert sums.max() > 2**29, "and no bit is wasted"


def test_a_renderer_that_does_not_fit_is_refused():
    weights, ranges = a_renderer(np.random.default_rng(0), 16, 40, 80, (1, 1))
    with pytest.raises(UsageError, match=r"down2"):
        convolution.RendererPass(weights, {n: r for n, r in ranges.items() if "down2" not in n})
    with pytest.raises(UsageError, match="enter.*multiple of 8"):
        convolution.RendererPass(*a_renderer(np.random.default_rng(0), 12, 40, 80, (1, 1)))
    whole = convolution.RendererPass(weights, ranges)
    with pytest.raises(UsageError, match="100x96.*multiples of 16"):
        whole(np.zeros((9, 96, 100), np.float32))


def a_face(random, n=5, vertices=40, size=4):
    """Vertices, a basis, and four lip lines whose inner corners are shared."""
    canonical_vertices = random.uniform(-1, 1, (vertices, 3)).astype(np.float32)
    basis = random.normal(0, 0.05, (size, vertices, 3)).astype(np.float32)
    lips = random.permutation(vertices)[: 4 * n].astype(np.int32).reshape(4, n)
    lips[1, [0, -1]], lips[3, [0, -1]] = lips[0, [0, -1]], lips[2, [0, -1]]
    for high, low in (lips[:2], lips[2:]):
        canonical_vertices[low, 1] = canonical_vertices[high, 1] + random.uniform(
            -0.05, 0.4, n
        ).astype(np.float32)
        canonical_vertices[low[[0, -1]]] = canonical_vertices[high[[0, -1]]]
    return canonical_vertices, basis, lips


def a_pose(random):
    return np.array([random.uniform(40, 200), *random.uniform(-1, 1, 6), 90, 70], np.float32)


@FEW
@given(SEEDS, st.integers(2, 9), st.sampled_from([0.0, 0.3, 1.0]))
def test_a_driven_face(seed, rows, strength):
    random = np.random.default_rng(seed)
    canonical_vertices, basis, lips = a_face(random)
    own, wanted = random.normal(0, strength, (2, len(basis))).astype(np.float32)
    arguments = (basis, canonical_vertices, own, wanted, lips, rows)
    expected, got = reference.drive(*arguments), native.drive(*arguments)
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[1], expected[1])


@FEW
@given(SEEDS)
def test_a_placed_face_and_what_stirs(seed):
    random = np.random.default_rng(seed)
    canonical_vertices, _, _ = a_face(random)
    vertices = canonical_vertices + random.normal(0, 0.01, canonical_vertices.shape).astype(
        np.float32
    )
    grid = random.normal(size=(6, 3)).astype(np.float32)
    line = random.permutation(len(canonical_vertices))[:7].astype(np.int32)
    rings = np.array([[0.2, 0.5], [1.0, 0.0]], np.float32)
    arguments = (a_pose(random), canonical_vertices, vertices, grid, line, int(line[0]), rings)
    expected, got = reference.place(*arguments), native.place(*arguments)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    triangles = random.integers(0, len(got[0]), (30, 3), dtype=np.int32)
    for still in (0.0, 0.5, 3.0, 1e6):
        moving = (*got[:2], triangles, still)
        for one, other in zip(
            native.moving_triangles(*moving), reference.moving_triangles(*moving), strict=True
        ):
            np.testing.assert_array_equal(one, other)


@FEW
@given(SEEDS, st.integers(2, 8))
def test_a_mouth_that_is_lent(seed, rows):
    random = np.random.default_rng(seed)
    canonical_vertices, basis, lips = a_face(random)
    own, wanted = random.normal(0, 0.4, (2, len(basis))).astype(np.float32)
    vertices, grid = reference.drive(basis, canonical_vertices, own, wanted, lips, rows)
    view = np.array([10, 20, random.uniform(0.3, 3)], np.float32)
    chin = lips[3, 1:3]
    arguments = (vertices, grid, canonical_vertices, a_pose(random), view, lips, chin, 0.014)
    expected, got = reference.map_to_source(*arguments), native.map_to_source(*arguments)
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[1], expected[1])
    assert got[2] == expected[2]


@FEW
@given(SEEDS, st.integers(3, 40), st.integers(3, 40), st.integers(0, 60))
def test_relight(seed, w, h, skin):
    random = np.random.default_rng(seed)
    wide = random.integers(0, 256, (h, w + 5, 3), dtype=np.uint8)
    layer = random.integers(0, 256, (h, w, 3), dtype=np.uint8)
    points = random.uniform(-4, 44, (80, 2)).astype(np.float32)
    chosen = random.permutation(80)[:skin].astype(np.int32)
    limits = (12, 0.6, 24.0, 0.05)
    expected, got = layer.copy(), layer.copy()
    reference.relight(expected, wide[:, :w], points, chosen, limits)
    native.relight(got, wide[:, :w], points, chosen, limits)
    np.testing.assert_array_equal(got, expected)


@FEW
@given(SEEDS, st.integers(1, 12), st.integers(1, 12))
def test_halve_into(seed, w, h):
    random = np.random.default_rng(seed)
    fine = random.integers(0, 256, (2 * h, 2 * w, 3), dtype=np.uint8)
    covered = (255 * (random.random((2 * h, 2 * w)) < 0.8)).astype(np.uint8)
    expected = random.integers(0, 256, (h, w + 3, 3), dtype=np.uint8)
    got = expected.copy()
    reference.downsample2x(fine, covered, expected[:, :w])
    native.downsample2x(fine, covered, got[:, :w])
    np.testing.assert_array_equal(got, expected)


def test_arrays_that_are_not_contiguous_are_read_as_they_look():
    random = np.random.default_rng(0)
    wide = random.integers(0, 256, (8, 24, 3), dtype=np.uint8)
    view = wide[:, ::2]
    alpha = random.integers(0, 256, (24, 8), dtype=np.uint8).T[:, ::2]
    np.testing.assert_array_equal(
        native.blend(view, view[::-1], alpha, None), reference.blend(view, view[::-1], alpha)
    )
