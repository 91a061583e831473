"""Layer over background by alpha, with an optional colour match; exact at both ends of alpha."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lipstream.kernels import native
from lipstream.kernels.checks import require
from lipstream.kernels.dispatch import use_native
from lipstream.kernels.errors import UsageError
from lipstream.kernels.reference import all as reference

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]


def blend(background: U8, layer: U8, alpha: U8 | F32) -> U8:
    """Layer over background, both u8 [h, w, 3], by alpha [h, w]: u8 0..255 or f32 0..1.

    Alpha 0 returns the background's bits, full alpha the layer's. Float alpha counts in steps of
    1/4096. Returns a new u8 [h, w, 3].
    """
    _require_layers(background, layer, alpha)
    if use_native():
        return native.blend(background, layer, alpha, None)
    return reference.blend(background, layer, alpha)


def blend_matched(background: U8, layer: U8, alpha: U8 | F32, gain: F32, bias: F32) -> U8:
    """`blend` of round(layer * gain + bias), clipped; gain and bias f32 [3], levels of 0..255."""
    _require_layers(background, layer, alpha)
    require("gain", gain, np.float32, (3,))
    require("bias", bias, np.float32, (3,))
    if not (np.isfinite(gain).all() and np.isfinite(bias).all()):
        raise UsageError(f"gain {gain} and bias {bias}; expected finite numbers")
    if use_native():
        return native.blend(background, layer, alpha, (gain, bias))
    return reference.blend_matched(background, layer, alpha, gain, bias)


def crossfade(old: U8, new: U8, share: float) -> U8:
    """Cross-fade of two arrays u8 of one shape and any layout; `share` of the new, in 1/256."""
    require("new", new, np.uint8, old.shape)
    require("old", old, np.uint8, new.shape)
    if not 0 <= share <= 1:
        raise UsageError(f"share {share}; expected 0 to 1")
    implementation = native if use_native() else reference
    return implementation.crossfade(old, new, round(share * 256))


def weighted_sum(layers: F32, weights: F32) -> U8:
    """Sum of layers f32 [L, ...] by their shares f32 [L], in levels, rounded, u8 [...]."""
    require("shares", weights, np.float32, (None,))
    require("layers", layers, np.float32, (len(weights), *(None,) * (layers.ndim - 1)))
    implementation = native if use_native() else reference
    return implementation.weighted_sum(layers, weights)


def _require_layers(background: U8, layer: U8, alpha: U8 | F32) -> None:
    require("background", background, np.uint8, (None, None, 3))
    require("layer", layer, np.uint8, background.shape)
    if not isinstance(alpha, np.ndarray) or alpha.dtype != np.uint8:
        require("alpha", alpha, np.float32, background.shape[:2])
    else:
        require("alpha", alpha, np.uint8, background.shape[:2])
