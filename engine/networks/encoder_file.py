"""The encoder over a whole file: the blocks of the stream, with sound on both sides in view.

The weights are those of the stream's encoder, but for a recurrent head that runs both ways. Matrix
products over many tokens are what NumPy's BLAS is best at: no other backend is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.networks.base import Model
from lipstream.engine.networks.encoder_numpy import (
    dequantised,
    gelu,
    gru_step,
    layer_norm,
    linear,
    softmax,
)
from lipstream.engine.networks.signatures import (
    BANDS,
    BLOCKS,
    FRAMES_PER_STEP,
    HEADS,
    TOKEN_WIDTH,
    TOKENS_AFTER_IN_FILE,
    TOKENS_BEFORE,
)
from lipstream.engine.types import F32

_CONTEXT: Final = 3  # frames and tokens that a convolution sees
_QUERIES: Final = 128  # tokens whose attention is computed at once
_PER_HEAD: Final = TOKEN_WIDTH // HEADS
_HIDDEN: Final = np.float32(-1e9)  # score of a token that is out of view


class EncoderFile:
    """A whole file's features to its expressions."""

    name = "numpy"
    device = "CPU"
    precision = "f32"

    def __init__(self, weights: Mapping[str, NDArray[Any]]) -> None:
        self._w = dequantised(weights)

    def run(self, features: F32) -> tuple[F32, F32]:
        """Features f32 [T, FEATURES] to expression f32 [T, K] and probability of speech f32 [T].

        Row k is of the moment FILE_DELAY_MS before the end of step k.
        """
        frames = features.reshape(len(features) * FRAMES_PER_STEP, BANDS)
        lifted = gelu(self._linear("conv1", _neighbours(frames)))
        tokens = gelu(self._linear("conv2", _neighbours(lifted)[1::2])) + self._w["base"]
        code = [self._linear("tap0", tokens)]
        for block in range(BLOCKS):
            tokens = self._block(block, tokens)
            code.append(self._linear(f"tap{block + 1}", tokens))
        hidden = self._both_ways(np.concatenate(code, 1))
        speech = np.float32(1) - softmax(self._linear("file.phone", hidden))[:, 0]
        return self._linear("file.head", hidden), speech

    def _block(self, block: int, tokens: F32) -> F32:
        name = f"blocks.{block}"
        normal = layer_norm(tokens, self._w, f"{name}.before")
        query, key, value = (
            self._linear(f"{name}.{part}", normal).reshape(-1, HEADS, _PER_HEAD).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        attended = np.empty_like(tokens)
        for first in range(0, len(tokens), _QUERIES):
            last = min(first + _QUERIES, len(tokens))
            seen = slice(max(0, first - TOKENS_BEFORE), last + TOKENS_AFTER_IN_FILE)
            scores = query[:, first:last] @ key[:, seen].swapaxes(1, 2)
            scores *= np.float32(_PER_HEAD**-0.5)
            scores += self._bias(block, np.arange(first, last), np.arange(len(tokens))[seen])
            mixed = softmax(scores) @ value[:, seen]
            attended[first:last] = mixed.swapaxes(0, 1).reshape(last - first, TOKEN_WIDTH)
        middle = tokens + self._linear(f"{name}.out", attended)
        normal = layer_norm(middle, self._w, f"{name}.middle")
        mixed = middle + self._linear(f"{name}.down", gelu(self._linear(f"{name}.up", normal)))
        return np.asarray(mixed, np.float32)

    def _bias(self, block: int, own: NDArray[np.intp], seen: NDArray[np.intp]) -> F32:
        """Of the scores of `own` tokens for `seen` ones, f32 [heads, own, seen]."""
        row = seen[None] - own[:, None] + TOKENS_BEFORE
        offsets = self._w["offsets"][block]
        bias: F32 = offsets[:, np.clip(row, 0, offsets.shape[1] - 1)]
        bias[:, (row < 0) | (row >= offsets.shape[1])] = _HIDDEN
        return bias

    def _both_ways(self, code: F32) -> F32:
        """A recurrent layer from either end, f32 [T, 2 width]."""
        ways = []
        for end, order in (("", slice(None)), ("_reverse", slice(None, None, -1))):
            names = [f"file.gru.{part}_{side}_l0{end}" for part in ("weight", "bias")
                     for side in ("ih", "hh")]  # fmt: skip
            into, across, into_bias, across_bias = (self._w[name] for name in names)
            state = np.zeros((1, across.shape[1]), np.float32)
            from_input = code[order] @ into.T + into_bias
            rows = np.empty((len(code), across.shape[1]), np.float32)
            for step, row in enumerate(from_input):
                state = gru_step(row[None], state @ across.T + across_bias, state)
                rows[step] = state[0]
            ways.append(rows[order])
        return np.concatenate(ways, 1)

    def _linear(self, name: str, x: F32) -> F32:
        return linear(x, self._w, name)


def _neighbours(x: F32) -> F32:
    """Each row of f32 [n, width] behind the two before it, f32 [n, 3 width]."""
    padded = np.pad(x, ((_CONTEXT - 1, 0), (0, 0)))
    return np.concatenate([padded[i : i + len(x)] for i in range(_CONTEXT)], 1)


def load_network(model: Model) -> EncoderFile:
    """The encoder with the weights of a safetensors file."""
    from safetensors.numpy import load_file

    return EncoderFile(load_file(str(model.safetensors)))
