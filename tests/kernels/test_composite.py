"""Layers over each other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipstream.engine.errors import UsageError
from lipstream.kernels import composite
from tests.kernels.guard_bytes import assert_twins_agree
from tests.kernels.strategies import FEW, MORE, SEEDS

promise = pytest.mark.usefixtures("kernels")  # of each implementation, as a process chooses it
twins = pytest.mark.usefixtures("library")  # compiled code against NumPy


@promise
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


@promise
def test_alpha_of_another_type_is_refused():
    background = np.zeros((2, 2, 3), np.uint8)
    with pytest.raises(UsageError, match="alpha"):
        composite.blend(background, background, np.zeros((2, 2)))


@twins
@MORE
@given(SEEDS, st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_twins_of_blend(seed, w, h, as_float):
    random = np.random.default_rng(seed)
    background, layer = random.integers(0, 256, (2, h, w, 3), dtype=np.uint8)
    alpha = random.integers(0, 256, (h, w), dtype=np.uint8)
    if as_float:
        alpha = random.uniform(-0.2, 1.2, (h, w)).astype(np.float32)
        alpha[0, 0] = np.nan
    assert_twins_agree(composite.layer_over, background, layer, alpha)


@twins
@MORE
@given(SEEDS, st.integers(1, 2000), st.integers(0, 256))
def test_twins_of_crossfade(seed, size, weight):
    previous, following = np.random.default_rng(seed).integers(0, 256, (2, size), dtype=np.uint8)
    expected = assert_twins_agree(composite.fade, previous, following, weight)
    if weight in (0, 256):
        np.testing.assert_array_equal(expected, following if weight else previous)


@twins
@MORE
@given(SEEDS, st.integers(1, 6), st.integers(1, 2500))
def test_twins_of_weighted_sum(seed, layers, size):
    random = np.random.default_rng(seed)
    levels = random.uniform(-100, 300, (layers, size)).astype(np.float32)
    weights = random.normal(0.4, 0.5, layers).astype(np.float32)
    assert_twins_agree(composite.add_layers, levels, weights)


@twins
def test_arrays_that_are_not_contiguous_are_read_as_they_look():
    random = np.random.default_rng(0)
    wide = random.integers(0, 256, (8, 24, 3), dtype=np.uint8)
    view = wide[:, ::2]
    alpha = random.integers(0, 256, (24, 8), dtype=np.uint8).T[:, ::2]
    assert_twins_agree(composite.layer_over, view, view[::-1], alpha)
