"""The encoder's network as a kernel: one step in one call, its weights as halves.

There is no NumPy twin of the whole step here: `engine.networks.encoder_numpy` is it. The product of
a matrix and a vector, where a twin can have the same bits, has one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lipstream.kernels import native
from lipstream.kernels.errors import UsageError
from lipstream.kernels.native import address

F16 = NDArray[np.float16]
F32 = NDArray[np.float32]

_COLUMNS: Final = 64  # of a block, as in recurrent.cpp
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


class _Layer(ctypes.Structure):
    _fields_ = [  # noqa: RUF012 - ctypes' own way
        ("weights", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("inputs", ctypes.c_int32),
        ("columns", ctypes.c_int32),
    ]


class EncoderStep:
    """The network with its weights; any number of threads may call it.

    Raises: UsageError when a layer's weights are not halves, or are missing.
    """

    def __init__(self, weights: Mapping[str, NDArray[Any]]) -> None:
        self._held: list[NDArray[Any]] = []  # what the layers point at
        layers = []
        for weight, bias in _LAYERS:
            matrix, offset = weights.get(weight), weights.get(bias)
            if matrix is None or offset is None or matrix.dtype != np.float16:
                raise UsageError(f"{weight}: expected f16 [outputs, inputs] and {bias}")
            blocks = packed(matrix)
            padded = np.zeros(blocks.shape[0] * _COLUMNS, np.float32)
            padded[: len(offset)] = offset
            self._held += [blocks, padded]
            layers.append(_Layer(address(blocks), address(padded), matrix.shape[1], len(padded)))
        self._layers = (_Layer * len(layers))(*layers)
        looks = len(weights["look_aheads_ms"])
        self.features = weights["dense.weight"].shape[1]
        self.widths = tuple(
            weights[f"{gru}.weight_hh_l0"].shape[1] for gru in ("gru1", "gru2", "head_gru")
        )
        outputs = len(weights["head.bias"])
        self._sizes = np.array(
            [self.widths[0], len(weights["code.bias"]), self.widths[2], looks,
             len(weights["phone.bias"]) // looks, outputs],
            np.int32,
        )  # fmt: skip
        self._expression_shape = (looks, outputs // looks)
        most = max(layer.columns for layer in layers)
        self._scratch_size = 4 * most + 2 * self.widths[0]

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
            np.empty(self._expression_shape, np.float32),
            np.empty(self._expression_shape[0], np.float32),
            *(np.empty(width, np.float32) for width in self.widths),
        )
        scratch = np.empty(self._scratch_size, np.float32)
        inputs = (self._sizes, features, h1, h2, h3, scratch, *outputs)
        native.library().ls_encoder_step(self._layers, *map(address, inputs))
        return outputs
