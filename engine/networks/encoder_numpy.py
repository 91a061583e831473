"""The encoder in NumPy: the readable reference, and the backend that runs on any machine.

    features ─► two convolutions ─► token ─► block ─► block
                                      └─ tap ─┴─ tap ─┴─ tap ─► GRU ─► expression, phone posteriors

Two frames of 10 ms become a token. A block is a layer of a transformer: attention over the tokens
around its own, then a dense part, each behind a layer norm (Xiong et al., arXiv 2002.04745).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.networks.base import Model
from lipstream.engine.networks.signatures import (
    BANDS,
    BLOCKS,
    ENCODER_STATES,
    FRAMES_PER_STEP,
    HEADS,
    TOKEN_WIDTH,
    TOKENS_KEPT,
)
from lipstream.engine.types import F32

NORM_EPSILON: Final = 1e-5
# At most 1/128 from a point of the grid, the eighth term is below 1e-16; beyond 6 f32 has only 1.
_ERF_PER_UNIT: Final = 64
_ERF_END: Final = 6
_ERF_ORDER: Final = 9


def dequantised(weights: Mapping[str, NDArray[Any]]) -> dict[str, F32]:
    """The weights as f32: those stored as i8 [outputs, inputs] times the f32 [outputs] of their
    layer."""
    plain = {}
    for name, stored in weights.items():
        if name.endswith(".scale"):
            continue
        plain[name] = stored.astype(np.float32)
        if stored.dtype == np.int8:
            plain[name] *= weights[name.removesuffix("weight") + "scale"][:, None]
    return plain


def gelu(x: F32) -> F32:
    """x times the normal distribution's share below x (Hendrycks and Gimpel, arXiv 1606.08415)."""
    result: F32 = np.float32(0.5) * x * (np.float32(1) + erf(x * np.float32(np.sqrt(0.5))))
    return result


def erf(x: F32) -> F32:
    """The error function of f32 [...], rounded correctly: a Taylor series about the nearest of a
    grid's points. (SciPy has one too, and is 140 MB that nothing else in the engine needs.)"""
    table = _erf_series()
    inside = np.clip(x.astype(np.float64), -_ERF_END, _ERF_END)
    nearest = np.rint(inside * _ERF_PER_UNIT)
    rows = (np.nan_to_num(nearest) + _ERF_END * _ERF_PER_UNIT).astype(np.intp)
    distance = inside - nearest / _ERF_PER_UNIT
    total = table[-1][rows]
    for coefficients in table[-2::-1]:
        total *= distance
        total += coefficients[rows]
    return total.astype(np.float32)


@cache
def _erf_series() -> NDArray[np.float64]:
    """Taylor coefficients at each point of the grid, f64 [order, points]."""
    points = np.arange(-_ERF_END * _ERF_PER_UNIT, _ERF_END * _ERF_PER_UNIT + 1) / _ERF_PER_UNIT
    derivatives = [np.array([math.erf(point) for point in points])]
    derivatives.append(2 / np.sqrt(np.pi) * np.exp(-np.square(points)))
    derivatives.append(-2 * points * derivatives[1])
    for k in range(2, _ERF_ORDER - 1):  # the recurrence of Hermite's polynomials
        derivatives.append(-2 * points * derivatives[k] - 2 * (k - 1) * derivatives[k - 1])
    return np.stack([one / math.factorial(k) for k, one in enumerate(derivatives)])


def softmax(x: F32) -> F32:
    """Along the last axis."""
    raised = np.exp(x - x.max(-1, keepdims=True))
    shares: F32 = raised / raised.sum(-1, keepdims=True)
    return shares


def linear(x: F32, weights: Mapping[str, F32], name: str) -> F32:
    """The layer `name` of f32 [..., inputs]; not every layer has a bias."""
    product: F32 = x @ weights[f"{name}.weight"].T
    bias = weights.get(f"{name}.bias")
    return product if bias is None else product + bias


def layer_norm(x: F32, weights: Mapping[str, F32], name: str) -> F32:
    """Each row of f32 [..., width] at mean 0 and variance 1, then as the layer `name` scales it."""
    centred = x - x.mean(-1, keepdims=True)
    variance = np.square(centred).mean(-1, keepdims=True)
    normal: F32 = centred / np.sqrt(variance + np.float32(NORM_EPSILON))
    return normal * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def gru_step(from_input: F32, from_state: F32, state: F32) -> F32:
    """The next state f32 [B, width] of a recurrent layer, from its products f32 [B, 3 width] with
    what comes in and with its own state."""
    width = state.shape[1]
    gates = _sigmoid(from_input[:, : 2 * width] + from_state[:, : 2 * width])
    reset, update = gates[:, :width], gates[:, width:]
    fresh = np.tanh(from_input[:, 2 * width :] + reset * from_state[:, 2 * width :])
    moved: F32 = fresh + update * (state - fresh)
    return moved


def _sigmoid(x: F32) -> F32:
    result: F32 = np.float32(0.5) * np.tanh(np.float32(0.5) * x) + np.float32(0.5)
    return result


class EncoderNumpy:
    """One step of the encoder from its weights by name."""

    name = "numpy"
    device = "CPU"
    precision = "f32"

    def __init__(self, weights: Mapping[str, NDArray[Any]]) -> None:
        self._w = dequantised(weights)
        look_aheads = len(self._w["look_aheads_ms"])
        self._posterior_shape = (look_aheads, len(self._w["phone.bias"]) // look_aheads)
        self._expression_shape = (look_aheads, len(self._w["head.bias"]) // look_aheads)

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        """Features and states, shaped as `signatures.encoder_shapes` says behind a batch axis.

        Returns expression f32 [B, look-aheads, K], speech f32 [B, look-aheads] (probability that it
        is not silence), and the next states.
        """
        batch = len(inputs["features"])
        fresh = inputs["features"].reshape(batch, FRAMES_PER_STEP, BANDS)
        frames = np.concatenate([inputs["frames"].reshape(fresh.shape), fresh], 1)
        before, newest = (
            gelu(self._linear("conv1", frames[:, i : i + 3].reshape(batch, -1))) for i in (0, 1)
        )
        lifted = np.concatenate([inputs["lifted"], before, newest], 1)
        token = gelu(self._linear("conv2", lifted)) + self._w["base"]
        taps, waiting, memory = [self._linear("tap0", token)], [], []
        for block in range(BLOCKS):
            token, late, kept = self._block(
                block, token, inputs["waiting"][:, block], inputs["memory"][:, block]
            )
            taps.append(self._linear(f"tap{block + 1}", token))
            waiting.append(late)
            memory.append(kept)
        code, hidden = np.concatenate(taps, 1), inputs["hidden"]
        hidden = gru_step(self._side("ih", code), self._side("hh", hidden), hidden)
        phones = softmax(self._linear("phone", hidden).reshape(batch, *self._posterior_shape))
        states = {
            "frames": inputs["features"],
            "lifted": newest,
            "waiting": np.stack(waiting, 1),
            "memory": np.stack(memory, 1),
            "hidden": hidden,
        }
        return {
            "expression": self._linear("head", hidden).reshape(batch, *self._expression_shape),
            "speech": np.float32(1) - phones[..., 0],
            **{f"{name}_next": states[name] for name in ENCODER_STATES},
        }

    def _block(self, block: int, token: F32, waiting: F32, memory: F32) -> tuple[F32, F32, F32]:
        """The newest token f32 [B, width] in, the one that has waited for it out.

        waiting f32 [B, 2, width], memory f32 [B, 2, kept, width] of this block; both are returned
        one token later.
        """
        batch, name = len(token), f"blocks.{block}"
        queue = np.concatenate([waiting, token[:, None]], 1)
        own = queue[:, 0]
        normal = layer_norm(token, self._w, f"{name}.before")
        new = np.stack([self._linear(f"{name}.{part}", normal) for part in ("key", "value")], 1)
        known = np.concatenate([memory, new[:, :, None]], 2)
        query = self._linear(f"{name}.query", layer_norm(own, self._w, f"{name}.before"))
        per_head = TOKEN_WIDTH // HEADS
        query = query.reshape(batch, HEADS, 1, per_head)
        keys, values = (
            known[:, i].reshape(batch, TOKENS_KEPT + 1, HEADS, per_head).swapaxes(1, 2)
            for i in (0, 1)
        )
        scores = (query @ keys.swapaxes(2, 3)) / np.float32(np.sqrt(per_head))
        scores += self._w["offsets"][block, :, None, : TOKENS_KEPT + 1]
        attended = (softmax(scores) @ values).reshape(batch, TOKEN_WIDTH)
        middle = own + self._linear(f"{name}.out", attended)
        raised = gelu(self._linear(f"{name}.up", layer_norm(middle, self._w, f"{name}.middle")))
        return middle + self._linear(f"{name}.down", raised), queue[:, 1:], known[:, :, 1:]

    def _linear(self, name: str, x: F32) -> F32:
        return linear(x, self._w, name)

    def _side(self, side: str, x: F32) -> F32:
        """A product of the recurrent head."""
        weight, bias = (self._w[f"head_gru.{part}_{side}_l0"] for part in ("weight", "bias"))
        result: F32 = x @ weight.T + bias
        return result


def load_network(model: Model) -> EncoderNumpy:
    """The encoder with the weights of a safetensors file."""
    from safetensors.numpy import load_file

    return EncoderNumpy(load_file(str(model.safetensors)))
