"""A step of the encoder."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from lipstream.engine.errors import UsageError
from lipstream.engine.networks.encoder_numpy import EncoderNumpy
from lipstream.engine.networks.signatures import (
    ENCODER_INPUTS,
    ENCODER_OUTPUTS,
    ENCODER_STATES,
    LOOK_AHEADS_MS,
)
from lipstream.kernels import encoder, native
from lipstream.kernels.reference.encoder import level_limit
from tests.kernels.guard_bytes import Guards, assert_twins_agree
from tests.kernels.strategies import MORE, SEEDS
from tests.random_encoder import HIDDEN, random_inputs, random_weights

promise = pytest.mark.usefixtures("kernels")  # of each implementation, as a process chooses it
twins = pytest.mark.usefixtures("library")  # compiled code against NumPy

# Largest difference over the largest number of the same tensor, after one step. Measured: 2e-4.
TOLERANCE = 1e-3


@twins
@MORE
@given(SEEDS, st.integers(1, 40), st.integers(1, 150))
def test_twins_of_affine(seed, inputs, outputs):
    random = np.random.default_rng(seed)
    weights = random.normal(0, 1, (outputs, inputs)).astype(np.float16)
    weights[0, 0] = np.float16(3e-6)  # below the normal range of halves
    x, bias = (random.normal(size=n).astype(np.float32) for n in (inputs, outputs))
    assert_twins_agree(encoder.affine, x, weights, bias)


@twins
@MORE
@given(SEEDS, st.integers(1, 40), st.integers(1, 150), st.sampled_from([0, 1e-33, 1e-6, 1, 1e6]))
def test_twins_of_integer_affine(seed, inputs, outputs, size):
    random = np.random.default_rng(seed)
    weights = random.integers(-128, 128, (outputs, inputs)).astype(np.int8)
    x = (size * random.normal(size=inputs)).astype(np.float32)
    scale, bias = (random.normal(size=outputs).astype(np.float32) for _ in range(2))
    assert_twins_agree(encoder.integer_affine, x, weights, scale, bias)


@promise
@pytest.mark.parametrize("inputs", [1, 240, 1536, 5000])
@pytest.mark.parametrize("weight", [-128, 127])
def test_the_largest_sum_fits(inputs, weight):
    weights = np.full((65, inputs), weight, np.int8)
    x, one, zero = (np.full(n, v, np.float32) for n, v in ((inputs, 3), (65, 1), (65, 0)))
    total = encoder.integer_affine(x, weights, one, zero)
    np.testing.assert_allclose(total, 3.0 * inputs * weight, rtol=1e-6)


@promise
def test_integers_are_as_good_as_16_bits_allow():
    random = np.random.default_rng(0)
    weights = random.integers(-127, 128, (300, 384)).astype(np.int8)
    x, scale, bias = (random.normal(size=n).astype(np.float32) for n in (384, 300, 300))
    exact = scale.astype(np.float64) * (weights.astype(np.float64) @ x) + bias
    rounding = np.abs(x).max() / level_limit(weights) / np.sqrt(12)
    expected_error = np.abs(scale) * np.linalg.norm(weights.astype(float), axis=1) * rounding
    error = np.abs(encoder.integer_affine(x, weights, scale, bias) - exact)
    assert (error < 5 * expected_error + 1e-5).all()
    assert np.sqrt(np.mean(np.square(error / expected_error))) < 1.2


def step_of(weights, inputs):
    return Guards().call(encoder.EncoderStep(weights), *(inputs[n][0] for n in ENCODER_INPUTS))


@twins
@pytest.mark.parametrize("seed", range(3))
def test_a_step_is_what_its_layers_are(seed):
    weights = random_weights(seed)
    step, reference = encoder.EncoderStep(weights), EncoderNumpy(weights)
    inputs = random_inputs(seed=seed)
    for _ in range(4):
        got = Guards().call(step, *(inputs[n][0] for n in ENCODER_INPUTS))
        expected = reference.run(inputs)
        for name, one in zip(ENCODER_OUTPUTS, got, strict=True):
            other = expected[name][0]
            assert one.shape == other.shape
            assert np.abs(one - other).max() <= TOLERANCE * np.abs(other).max(), name
        fresh = random_inputs(seed=seed + 100)["features"]
        inputs = {"features": fresh, **{n: expected[f"{n}_next"] for n in ENCODER_STATES}}


def test_every_machine_gets_the_same_bits(baseline, monkeypatch):
    weights, inputs = random_weights(), random_inputs()
    here = step_of(weights, inputs)
    monkeypatch.setattr(native, "library", lambda: baseline)
    for one, other in zip(here, step_of(weights, inputs), strict=True):
        np.testing.assert_array_equal(one, other)


@twins
@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0])
def test_a_step_of_any_size_stays_with_its_twin(size):
    """Features far from what training has."""
    weights = random_weights()
    inputs = {name: np.float32(size) * value for name, value in random_inputs().items()}
    expected = EncoderNumpy(weights).run(inputs)
    for name, one in zip(ENCODER_OUTPUTS, step_of(weights, inputs), strict=True):
        assert np.isfinite(one).all()
        other = expected[name][0]
        assert np.abs(one - other).max() <= TOLERANCE * max(1, np.abs(other).max()), name


@twins
def test_functions_over_their_whole_range():
    """With weights of zero, what a function sees is a bias."""
    weights = random_weights()
    for name in ("conv1.weight", "head_gru.weight_ih_l0", "head_gru.weight_hh_l0", "phone.weight"):
        weights[name] = np.zeros_like(weights[name])
    x = np.linspace(-14, 14, 384).astype(np.float32)
    weights["conv1.bias"] = x
    reset, update, fresh = np.linspace(-20, 20, 3 * HIDDEN).astype(np.float32).reshape(HIDDEN, 3).T
    weights["head_gru.bias_ih_l0"] = np.concatenate([reset, update, 0.5 * fresh])
    weights["head_gru.bias_hh_l0"] = np.concatenate([0 * reset, 0 * update, 0.5 * fresh])
    phones = weights["phone.bias"] = (100 * weights["phone.bias"]).astype(np.float32)
    inputs = random_inputs()
    got = dict(zip(ENCODER_OUTPUTS, step_of(weights, inputs), strict=True))
    np.testing.assert_allclose(got["lifted_next"], x * norm.cdf(x.astype(float)), atol=1e-6)
    gate = 1 / (1 + np.exp(-update.astype(float)))
    new = np.tanh(0.5 * fresh * (1.0 + 1 / (1 + np.exp(-reset.astype(float)))))
    expected = new + gate * (inputs["hidden"][0] - new)
    np.testing.assert_allclose(got["hidden_next"], expected, atol=1e-6)
    shares = np.exp(phones.astype(float)).reshape(len(LOOK_AHEADS_MS), -1)
    np.testing.assert_allclose(got["speech"], 1 - shares[:, 0] / shares.sum(1), atol=1e-6)


@pytest.mark.parametrize(
    "name", ["conv1.weight", "blocks.1.down.scale", "tap2.weight", "head.weight", "phone.bias"]
)
def test_layers_that_do_not_fit_are_refused(name):
    weights = random_weights()
    weights[name] = weights[name][..., 1:]
    with pytest.raises(UsageError, match="expected"):
        encoder.EncoderStep(weights)


def test_a_layer_of_another_type_or_none_is_refused():
    weights = random_weights()
    plain = {**weights, "blocks.0.up.weight": weights["blocks.0.up.weight"].astype(np.float32)}
    with pytest.raises(UsageError, match=r"blocks\.0\.up\.weight is float32"):
        encoder.EncoderStep(plain)
    del weights["offsets"]
    with pytest.raises(UsageError, match="offsets is missing"):
        encoder.EncoderStep(weights)


@twins
def test_states_of_another_form_are_refused():
    step, inputs = encoder.EncoderStep(random_weights()), random_inputs()
    rows = {name: value[0] for name, value in inputs.items()}
    with pytest.raises(UsageError, match="memory is float32"):
        step(*{**rows, "memory": rows["memory"][:, :, 1:]}.values())
    with pytest.raises(UsageError, match="hidden is float64"):
        step(*{**rows, "hidden": rows["hidden"].astype(np.float64)}.values())
