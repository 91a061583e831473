"""The encoder in NumPy: step by step against a whole sequence at once, in double precision."""

from __future__ import annotations

import math

import numpy as np

from lipstream.engine.networks.encoder_numpy import EncoderNumpy, dequantised, erf
from lipstream.engine.networks.signatures import BANDS, ENCODER_STATES, encoder_shapes
from tests.encoder_at_once import at_once
from tests.random_encoder import HIDDEN, random_weights

TOLERANCE = 2e-5
STEPS = 150  # more than twice the reach of a block


def test_steps_equal_the_whole_sequence() -> None:
    weights = random_weights()
    frames = np.random.default_rng(1).standard_normal((2 * STEPS, BANDS)).astype(np.float32)
    network, got = EncoderNumpy(weights), []
    states = {n: np.zeros((1, *shape), np.float32) for n, shape in encoder_shapes(HIDDEN).items()}
    for pair in frames.reshape(STEPS, 1, -1):
        result = network.run({**states, "features": pair})
        states = {name: result[f"{name}_next"] for name in ENCODER_STATES}
        got.append((result["expression"][0], result["speech"][0]))
    doubles = {n: v.astype(np.float64) for n, v in dequantised(weights).items()}
    for steps, whole in zip(zip(*got, strict=True), at_once(doubles, frames), strict=True):
        np.testing.assert_allclose(np.array(steps), whole, atol=TOLERANCE)
        assert whole.std(0).min() > 50 * TOLERANCE  # what does not move would prove nothing


def test_integers_are_scaled() -> None:
    weights = random_weights()
    plain = dequantised(weights)
    assert not any(name.endswith(".scale") for name in plain)
    expected = weights["conv1.weight"] * weights["conv1.scale"][:, None]
    np.testing.assert_array_equal(plain["conv1.weight"], expected)
    assert {value.dtype for value in plain.values()} == {np.dtype(np.float32)}


def test_the_error_function_is_rounded_correctly() -> None:
    random = np.random.default_rng(0)
    far = np.array([0, -0.0, 1e-40, 6, -7, np.inf, -np.inf, np.nan])
    values = np.concatenate([far, *(random.normal(0, s, 30_000) for s in (0.01, 0.5, 2))])
    values = values.astype(np.float32)
    expected = np.array([math.erf(value) for value in values.tolist()], np.float32)
    np.testing.assert_array_equal(erf(values), expected)
