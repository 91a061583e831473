"""NumPy twin of kernels/watermark.cpp."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK = 8  # pixels a side
BASE, GAIN, MOST = 24, 40, 120  # of a block's strength: flat, per 256 of its texture, at most
BLACK, DARK = 16, 32  # luma of black, and how far above it strength is whole
# 120 is a root mean square of 1.9 levels, so a frame of nothing but texture keeps 42 dB.
SHIFT = 11  # a strength of 64 on a pattern of 32 is one level


def strengths(luma: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Of each block, i32 [ceil(h/8), ceil(w/8)]."""
    h, w = luma.shape
    rows, columns = -(-h // BLOCK), -(-w // BLOCK)
    values = luma.astype(np.int32)
    texture = np.abs(np.diff(values, axis=1, append=values[:, -1:]))
    texture += np.abs(np.diff(values, axis=0, append=values[-1:]))
    pad = ((0, rows * BLOCK - h), (0, columns * BLOCK - w))

    def per_block(plane: NDArray[np.int32]) -> NDArray[np.int32]:
        return np.pad(plane, pad).reshape(rows, BLOCK, columns, BLOCK).sum((1, 3), np.int32)

    heights = np.minimum(BLOCK, h - BLOCK * np.arange(rows))
    widths = np.minimum(BLOCK, w - BLOCK * np.arange(columns))
    size = np.outer(heights, widths).astype(np.int32)
    whole = BLOCK * BLOCK
    textured = np.minimum(BASE + (per_block(texture) * whole // size * GAIN >> 8), MOST)
    above_black = np.clip(per_block(values) // size - BLACK, DARK // 4, DARK)
    return textured * above_black // DARK


def add_waves(i420: NDArray[np.uint8], waves: NDArray[np.int8], dither: NDArray[np.uint8]) -> None:
    """See `kernels.watermark.add_pattern`."""
    h, w = waves.shape
    luma = i420[:h]
    strength = np.repeat(np.repeat(strengths(luma), BLOCK, 0), BLOCK, 1)[:h, :w]
    threshold = dither[np.arange(h) % len(dither)].astype(np.int32) << SHIFT - 8
    changed = luma + (waves * strength + threshold >> SHIFT)
    luma[:] = np.clip(changed, np.minimum(luma, BLACK), np.maximum(luma, 235))
