"""Layers over each other: by alpha, by weights, by a cross-fade. Exact at both ends of alpha."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lipstream.kernels import native
from lipstream.kernels.checks import require
from lipstream.kernels.dispatch import kernel
from lipstream.kernels.errors import UsageError
from lipstream.kernels.reference import composite as reference

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]


def blend(background: U8, layer: U8, alpha: U8 | F32) -> U8:
    """Layer over background, both u8 [h, w, 3], by alpha [h, w]: u8 0..255 or f32 0..1.

    Alpha 0 returns the background's bits, full alpha the layer's. Float alpha counts in steps of
    1/4096; NaN counts as 0. Returns a new u8 [h, w, 3].
    """
    require("background", background, np.uint8, (None, None, 3))
    require("layer", layer, np.uint8, background.shape)
    if not isinstance(alpha, np.ndarray) or alpha.dtype != np.uint8:
        require("alpha", alpha, np.float32, background.shape[:2])
    else:
        require("alpha", alpha, np.uint8, background.shape[:2])
    return layer_over(background, layer, alpha)


def crossfade(previous: U8, following: U8, weight: float) -> U8:
    """Cross-fade of two arrays u8 of one shape and any layout.

    weight: of the following one, 0 to 1, in steps of 1/256.
    """
    require("following", following, np.uint8, previous.shape)
    require("previous", previous, np.uint8, following.shape)
    if not 0 <= weight <= 1:
        raise UsageError(f"weight {weight}; expected 0 to 1")
    return fade(previous, following, round(weight * 256))


def weighted_sum(layers: F32, weights: F32) -> U8:
    """Sum of layers f32 [L, ...] by their weights f32 [L], in levels, rounded, u8 [...]."""
    require("weights", weights, np.float32, (None,))
    require("layers", layers, np.float32, (len(weights), *(None,) * (layers.ndim - 1)))
    return add_layers(layers, weights)


@kernel(reference.blend)
def layer_over(background: U8, layer: U8, alpha: U8 | F32) -> U8:
    """`blend` without its checks."""
    background, layer = np.ascontiguousarray(background), np.ascontiguousarray(layer)
    weights: NDArray[Any] = np.ascontiguousarray(alpha)
    out = native.empty(background.shape, np.uint8)
    library = native.library()
    over = library.ls_blend if weights.dtype == np.uint8 else library.ls_blend_fractions
    over(weights.size, background, layer, weights, out)
    return out


@kernel(reference.crossfade)
def fade(previous: U8, following: U8, weight: int) -> U8:
    """`crossfade` without its checks; the weight in 256ths."""
    previous, following = np.ascontiguousarray(previous), np.ascontiguousarray(following)
    out = native.empty(previous.shape, np.uint8)
    native.library().ls_crossfade(previous.size, previous, following, weight, out)
    return out


@kernel(reference.weighted_sum)
def add_layers(layers: F32, weights: F32) -> U8:
    """`weighted_sum` without its checks."""
    layers, weights = np.ascontiguousarray(layers), np.ascontiguousarray(weights)
    out = native.empty(layers.shape[1:], np.uint8)
    native.library().ls_weighted_sum(len(weights), out.size, layers, weights, out)
    return out
