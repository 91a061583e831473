"""The twin of `kernels.convolution`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
I16 = NDArray[np.int16]
I32 = NDArray[np.int32]

_MOST = 4095  # level of an activation
_INTO_TILE = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])


class IntegerLayer(Protocol):
    """What `convolution.Layer` holds."""

    weights: I16
    scale: F32
    bias: F32
    ratio: float
    inputs: int


def renderer_pass(
    layers: Sequence[IntegerLayer], blocks: tuple[int, int], planes: F32, entry_level: float
) -> F32:
    """See `convolution.RendererPass`; blocks: residual ones at 1/8 and at 1/4."""
    todo = iter(layers)

    def levels(value: F32, onto: I32 | None = None, ratio: float = 0.0) -> I32:
        if onto is not None:
            value = value + onto.astype(np.float32) * np.float32(ratio)
        return np.clip(np.rint(value), 0, _MOST).astype(np.int32)

    def residual(x: I32, count: int) -> I32:
        for _ in range(count):
            y = levels(_winograd(x, next(todo)))
            last = next(todo)
            x = levels(_winograd(y, last), x, last.ratio)
        return x

    def finer(x: I32, onto: I32) -> I32:
        layer = next(todo)
        h, w = x.shape[:2]
        parts = _convolved(x, layer, 1, 1).reshape(h, w, 2, 2, -1).transpose(0, 2, 1, 3, 4)
        return levels(parts.reshape(2 * h, 2 * w, -1), onto, layer.ratio)

    entered = np.rint((planes - np.float32(0.5)) * np.float32(entry_level)).astype(np.int32)
    channels, rows, columns = planes.shape
    quarters = entered.reshape(channels, rows // 2, 2, columns // 2, 2).transpose(1, 3, 0, 2, 4)
    fine = levels(_winograd(quarters.reshape(rows // 2, columns // 2, -1), next(todo)))
    middle = levels(_convolved(fine, next(todo), 3, 2))
    coarse = residual(levels(_convolved(middle, next(todo), 3, 2)), blocks[0])
    middle = residual(finer(coarse, middle), blocks[1])
    fine = residual(finer(middle, fine), 1)
    out = _winograd(fine, next(todo))[..., :12].reshape(rows // 2, columns // 2, 3, 2, 2)
    return np.ascontiguousarray(out.transpose(2, 0, 3, 1, 4).reshape(3, rows, columns))


def _winograd(x: I32, layer: IntegerLayer) -> F32:
    """3x3, every pixel: i32 [h, w, inputs] to f32 [h, w, outputs]."""
    h, w = x.shape[:2]
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    tiles = np.lib.stride_tricks.sliding_window_view(padded, (4, 4), (0, 1))[::2, ::2]
    spread = np.einsum("ai,yxcij,bj->abyxc", _INTO_TILE, tiles, _INTO_TILE)
    weights = layer.weights.reshape(4, 4, *layer.weights.shape[1:]).astype(np.int64)
    sums = np.einsum("abyxc,aboc->abyxo", spread, weights).astype(np.int32).astype(np.float32)
    down = [(sums[0] + sums[1]) + sums[2], (sums[1] - sums[2]) - sums[3]]
    out = np.empty((h, w, len(layer.bias)), np.float32)
    for row, d in enumerate(down):
        out[row::2, ::2] = (d[0] + d[1]) + d[2]
        out[row::2, 1::2] = (d[1] - d[2]) - d[3]
    return out * layer.scale + layer.bias


def _convolved(x: I32, layer: IntegerLayer, side: int, stride: int) -> F32:
    """side x side, every stride-th pixel: i32 [h, w, inputs] to f32 [h', w', outputs]."""
    padded = np.pad(x, ((side // 2,) * 2, (side // 2,) * 2, (0, 0)))
    crop = np.lib.stride_tricks.sliding_window_view(padded, (side, side), (0, 1))
    crop = crop[::stride, ::stride].transpose(0, 1, 3, 4, 2)
    h, w = crop.shape[:2]
    sums = crop.reshape(h, w, -1).astype(np.int64) @ layer.weights[0].astype(np.int64).T
    return sums.astype(np.int32).astype(np.float32) * layer.scale + layer.bias
