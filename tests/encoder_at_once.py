"""The encoder over a whole sequence at once, with masks and in double precision, without steps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from lipstream.engine.networks.signatures import (
    BANDS,
    BLOCKS,
    HEADS,
    TOKEN_WIDTH,
    TOKENS_AFTER,
    TOKENS_BEFORE,
)

F64 = NDArray[np.float64]


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
    hidden, states = np.zeros(w["head_gru.weight_hh_l0"].shape[1]), []
    for row in from_input:
        (ra, za, na), (rb, zb, nb) = (
            np.split(part, 3) for part in (row, linear(w, "head_gru", hidden, "_hh_l0"))
        )
        reset, update = 1 / (1 + np.exp(-(ra + rb))), 1 / (1 + np.exp(-(za + zb)))
        hidden = (1 - update) * np.tanh(na + reset * nb) + update * hidden
        states.append(hidden)
    shape = (len(frames) // 2, len(w["look_aheads_ms"]), -1)
    raised = np.exp(linear(w, "phone", np.array(states))).reshape(shape)
    expression = linear(w, "head", np.array(states)).reshape(shape)
    return expression, 1 - raised[..., 0] / raised.sum(-1)
