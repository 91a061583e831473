"""A step of the encoder as a kernel: GRUs and dense layers in one call, the weights as halves.

The twin of the step is `engine.networks.encoder_numpy`; the two agree to 2e-6. The product of a
matrix and a vector has a twin of its own, with the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lipstream.kernels import native
from lipstream.kernels.dispatch import kernel
from lipstream.kernels.errors import UsageError
from lipstream.kernels.reference import gru as reference

F16 = NDArray[np.float16]
F32 = NDArray[np.float32]

_COLUMNS: Final = 64  # of a block, as in gru.cpp
_LAYERS: Final = (
    ("dense.weight", "dense.bias"),
    *(
        (f"{gru}.weight_{side}_l0", f"{gru}.bias_{side}_l0")
        for gru in ("gru1", "gru2")
        for side in ("ih", "hh")
    ),
    ("phone.weight", "phone.bias"),
    ("code.weight", "code.bias"),
    ("head_gru.weight_ih_l0", "head_gru.bias_ih_l0"),
    ("head_gru.weight_hh_l0", "head_gru.bias_hh_l0"),
    ("head.weight", "head.bias"),
)


def packed(weights: F16) -> F16:
    """A layer's f16 [outputs, inputs] as blocks of 64 outputs, f16 [blocks, inputs, 64]."""
    outputs, inputs = weights.shape
    blocks = -(-outputs // _COLUMNS)
    padded = np.zeros((blocks * _COLUMNS, inputs), np.float16)
    padded[:outputs] = weights
    return np.ascontiguousarray(padded.reshape(blocks, _COLUMNS, inputs).transpose(0, 2, 1))


@kernel(reference.affine)
def affine(x: F32, weights: F16, bias: F32) -> F32:
    """bias + sum over i, in order, of x[i] * weights[:, i]: f32 [outputs]."""
    x, held = np.ascontiguousarray(x), _held_layer(weights, bias)
    out = native.empty(len(held[1]), np.float32)
    native.library().ls_affine(x, _layer(held, len(x)), out)
    return out[: len(bias)]


def _held_layer(weights: F16, bias: F32) -> tuple[F16, F32]:
    """A layer's weights and bias in blocks."""
    blocks = packed(weights)
    padded = np.zeros(blocks.shape[0] * _COLUMNS, np.float32)
    padded[: len(bias)] = bias
    return blocks, padded


def _layer(held: tuple[F16, F32], inputs: int) -> Any:
    """`LsLayer` of `_held_layer`, which must outlive it."""
    blocks, bias = held
    return native.structure("LsLayer")(
        native.address(blocks), native.address(bias), inputs, len(bias)
    )


class EncoderStep:
    """The encoder with its weights; any number of threads may call it.

    Raises: UsageError when a layer's weights are not halves, are missing or do not fit the others.
    """

    def __init__(self, weights: Mapping[str, NDArray[Any]]) -> None:
        self._held: list[tuple[F16, F32]] = []  # what the layers point at
        layers, shapes = [], []
        for weight, bias in _LAYERS:
            matrix, offset = weights.get(weight), weights.get(bias)
            if matrix is None or offset is None or matrix.dtype != np.float16 or matrix.ndim != 2:
                raise UsageError(f"{weight}: expected f16 [outputs, inputs] and {bias}")
            if offset.shape != matrix.shape[:1]:
                raise UsageError(f"{bias} is {offset.shape}; expected [{len(matrix)}]")
            self._held.append(_held_layer(matrix, offset))
            layers.append(_layer(self._held[-1], matrix.shape[1]))
            shapes.append(matrix.shape)
        self._layers = (native.structure("LsLayer") * len(layers))(*layers)
        look_aheads = len(weights["look_aheads_ms"])
        self.features = shapes[0][1]
        self.widths = tuple(shapes[hidden_side][1] for hidden_side in (2, 4, 8))
        outputs = len(weights["head.bias"])
        hidden, head, phones = self.widths[0], self.widths[2], shapes[5][0]
        code = len(weights["code.bias"])
        expected = [
            (hidden, self.features), *4 * [(3 * hidden, hidden)], (phones, hidden), (code, hidden),
            (3 * head, phones + code), (3 * head, head), (outputs, head),
        ]  # fmt: skip
        if shapes != expected or phones % look_aheads or outputs % look_aheads:
            raise UsageError(f"layers are {shapes}, look-aheads {look_aheads}; expected {expected}")
        self._sizes = native.structure("LsEncoderSizes")(
            hidden, code, head, look_aheads, phones // look_aheads, outputs
        )
        self._expression_shape = (look_aheads, outputs // look_aheads)
        most = max(layer.outputs for layer in layers)
        self._scratch_size = 4 * most + 2 * hidden

    def __call__(self, features: F32, h1: F32, h2: F32, h3: F32) -> tuple[F32, ...]:
        """features f32 [128] and the states to expression f32 [look-aheads, K], speech
        f32 [look-aheads] and the next three states."""
        for name, array, size in zip(
            ("features", "h1", "h2", "h3"), (features, h1, h2, h3),
            (self.features, *self.widths), strict=True,
        ):  # fmt: skip
            if array.shape != (size,) or array.dtype != np.float32:
                raise UsageError(f"{name} is {array.dtype} {array.shape}; expected f32 [{size}]")
        features, h1, h2, h3 = map(np.ascontiguousarray, (features, h1, h2, h3))
        outputs = (
            native.empty(self._expression_shape, np.float32),
            native.empty(self._expression_shape[0], np.float32),
            *(native.empty(width, np.float32) for width in self.widths),
        )
        scratch = native.empty(self._scratch_size, np.float32)
        native.library().ls_encoder_step(
            self._layers, self._sizes, features, h1, h2, h3, scratch, *outputs
        )
        return outputs
