"""The twins of `kernels.composite`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
U8 = NDArray[np.uint8]


def blend(background: U8, layer: U8, alpha: U8 | F32) -> U8:
    """Layer over background, u8 [h, w, 3], by alpha [h, w]: u8 0..255 or f32 0..1.

    Alpha 0 returns the background's bits and full alpha the layer's. Float alpha is rounded to
    1/4096; NaN counts as 0.
    """
    back, front = background.astype(np.int32), layer.astype(np.int32)
    if alpha.dtype == np.uint8:
        a = alpha.astype(np.int32)[..., None]
        total: I32 = back * (255 - a) + front * a + 128
        rounded: I32 = (total + (total >> 8)) >> 8  # round(x / 255), exact for this range
        return rounded.astype(np.uint8)
    scaled = np.where(alpha > 0, np.minimum(alpha, np.float32(1)), 0).astype(np.float32)
    a = np.floor(scaled * np.float32(4096) + np.float32(0.5)).astype(np.int32)[..., None]
    mixed: I32 = (back * (4096 - a) + front * a + 2048) >> 12
    return mixed.astype(np.uint8)


def crossfade(previous: U8, following: U8, weight: int) -> U8:
    """(previous * (256 - weight) + following * weight) / 256, rounded."""
    total = previous.astype(np.int32) * (256 - weight) + following.astype(np.int32) * weight + 128
    return (total >> 8).astype(np.uint8)


def weighted_sum(layers: F32, weights: F32) -> U8:
    """See `composite.weighted_sum`; one layer after the other."""
    total = np.full(layers.shape[1:], np.float32(0.5))
    for layer, weight in zip(layers, weights, strict=True):
        total += weight * layer
    return np.clip(total, 0, 255).astype(np.uint8)
