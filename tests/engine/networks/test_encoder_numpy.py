"""The encoder in NumPy: step by step against a whole sequence at once, in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from lipstream.engine.networks.encoder_numpy import EncoderNumpy, dequantised
from lipstream.engine.networks.signatures import (
    BANDS,
    BLOCKS,
    ENCODER_STATES,
    HEADS,
    LOOK_AHEADS_MS,
    TOKEN_WIDTH,
    TOKENS_AFTER,
    TOKENS_BEFORE,
    encoder_shapes,
)
from tests.random_encoder import COEFFICIENTS, HIDDEN, PHONES, random_weights

F64 = NDArray[np.float64]
TOLERANCE = 2e-5
STEPS = 150  # more than twice the reach of a block


def linear(w: dict[str, Any], name: str, x: F64, end: str = "") -> F64:
    return x @ w[f"{name}.weight{end}"].T + w.get(f"{name}.bias{end}", 0)


def gelu(x: F64) -> F64:
    return x * norm.cdf(x)


def layer_norm(w: dict[str, Any], name: str, x: F64) -> F64:
    normal = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    return normal * w[f"{name}.weight"] + w[f"{name}.bias"]


def block_at_once(w: dict[str, Any], block: int, tokens: F64) -> F64:
    """Tokens f64 [n, width] to as many, the first two of them from zeros before the first.

    Keys and values before the first token are zero too, as in a state of zeros.
    """
    name, n, reach = f"blocks.{block}", len(tokens), TOKENS_BEFORE + TOKENS_AFTER
    own = np.concatenate([np.zeros((TOKENS_AFTER, TOKEN_WIDTH)), tokens])[:n]
    normal = layer_norm(w, f"{name}.before", tokens)
    query = linear(w, f"{name}.query", layer_norm(w, f"{name}.before", own))
    nothing = np.zeros((reach, TOKEN_WIDTH))
    key = np.concatenate([nothing, linear(w, f"{name}.key", normal)])
    value = np.concatenate([nothing, linear(w, f"{name}.value", normal)])
    distance = np.arange(n + reach)[None] - np.arange(n)[:, None]  # 0 is the oldest that counts
    seen = (distance >= 0) & (distance <= reach)
    heads = []
    for head, columns in enumerate(np.split(np.arange(TOKEN_WIDTH), HEADS)):
        scores = query[:, columns] @ key[:, columns].T / 8
        scores += w["offsets"][block, head][np.where(seen, distance, 0)]
        raised = np.where(seen, np.exp(scores), 0)
        heads.append(raised / raised.sum(1, keepdims=True) @ value[:, columns])
    middle = own + linear(w, f"{name}.out", np.concatenate(heads, 1))
    raised = gelu(linear(w, f"{name}.up", layer_norm(w, f"{name}.middle", middle)))
    return middle + linear(w, f"{name}.down", raised)


def at_once(w: dict[str, Any], frames: F64) -> tuple[F64, F64]:
    """Frames f64 [2 n, BANDS] to expression and speech of n steps from a state of zeros."""
    padded = np.concatenate([np.zeros((2, BANDS)), frames])
    threes = np.concatenate([padded[:-2], padded[1:-1], padded[2:]], 1)
    lifted = np.concatenate([np.zeros((1, TOKEN_WIDTH)), gelu(linear(w, "conv1", threes))])
    threes = np.concatenate([lifted[:-2:2], lifted[1:-1:2], lifted[2::2]], 1)
    tokens = gelu(linear(w, "conv2", threes)) + w["base"]
    taps = [linear(w, "tap0", tokens)]
    for block in range(BLOCKS):
        tokens = block_at_once(w, block, tokens)
        taps.append(linear(w, f"tap{block + 1}", tokens))
    from_input = linear(w, "head_gru", np.concatenate(taps, 1), "_ih_l0")
    hidden, states = np.zeros(HIDDEN), []
    for row in from_input:
        (ra, za, na), (rb, zb, nb) = (
            np.split(part, 3) for part in (row, linear(w, "head_gru", hidden, "_hh_l0"))
        )
        reset, update = 1 / (1 + np.exp(-(ra + rb))), 1 / (1 + np.exp(-(za + zb)))
        hidden = (1 - update) * np.tanh(na + reset * nb) + update * hidden
        states.append(hidden)
    raised = np.exp(linear(w, "phone", np.array(states))).reshape(-1, len(LOOK_AHEADS_MS), PHONES)
    expression = linear(w, "head", np.array(states))
    return (
        expression.reshape(-1, len(LOOK_AHEADS_MS), COEFFICIENTS),
        1 - raised[..., 0] / raised.sum(-1),
    )


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


def test_tensors_of_whole_files_are_left_out_and_integers_scaled() -> None:
    weights = random_weights()
    plain = dequantised(weights)
    assert not any(name.startswith("file.") or name.endswith(".scale") for name in plain)
    expected = weights["conv1.weight"] * weights["conv1.scale"][:, None]
    np.testing.assert_array_equal(plain["conv1.weight"], expected)
    assert {value.dtype for value in plain.values()} == {np.dtype(np.float32)}
