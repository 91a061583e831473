"""The renderer in integers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipstream.engine.errors import UsageError
from lipstream.kernels import convolution
from lipstream.kernels.reference.convolution import renderer_pass
from tests.kernels.guard_bytes import Guards
from tests.kernels.strategies import SEEDS

promise = pytest.mark.usefixtures("kernels")  # of each implementation, as a process chooses it
twins = pytest.mark.usefixtures("library")  # compiled code against NumPy


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


@twins
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    SEEDS,
    st.sampled_from([(16, 24, 40, (1, 2)), (16, 40, 80, (2, 1)), (24, 32, 16, (0, 0))]),
    st.sampled_from([(32, 96), (48, 112), (64, 112)]),
)
def test_twins_of_a_pass(seed, sizes, shape):
    if not convolution.fits():
        pytest.skip("needs a processor with AVX2, and kernels that use it")
    random = np.random.default_rng(seed)
    weights, ranges = a_renderer(random, *sizes)
    ours = convolution.RendererPass(weights, ranges)
    for _ in range(2):  # the second in the scratch of the first
        planes = random.integers(0, 256, (9, *shape)).astype(np.float32) * np.float32(1 / 255)
        expected = renderer_pass(ours.layers, ours.blocks, planes, convolution.ENTRY_LEVEL)
        np.testing.assert_array_equal(Guards().call(ours, planes), expected)


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


@twins
def test_a_renderer_that_does_not_fit_is_refused():
    weights, ranges = a_renderer(np.random.default_rng(0), 16, 40, 80, (1, 1))
    with pytest.raises(UsageError, match=r"down2"):
        convolution.RendererPass(weights, {n: r for n, r in ranges.items() if "down2" not in n})
    with pytest.raises(UsageError, match="enter.*multiple of 8"):
        convolution.RendererPass(*a_renderer(np.random.default_rng(0), 12, 40, 80, (1, 1)))
    whole = convolution.RendererPass(weights, ranges)
    with pytest.raises(UsageError, match="100x96.*multiples of 16"):
        whole(np.zeros((9, 96, 100), np.float32))
