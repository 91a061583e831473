"""I420 to RGB and back, BT.709 limited range: whole pictures and even-aligned rectangles.

A chroma sample serves its 2x2 pixels unchanged, and is made as their mean. Integers only, so every
implementation gives the same bytes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lipstream.kernels import native
from lipstream.kernels.checks import require, require_i420, require_region
from lipstream.kernels.dispatch import kernel
from lipstream.kernels.errors import UsageError
from lipstream.kernels.reference import color as reference

U8 = NDArray[np.uint8]


def i420_to_rgb(i420: U8) -> U8:
    """u8 [h*3/2, w] to RGB u8 [h, w, 3]."""
    h, w = require_i420("i420", i420)
    return i420_region_to_rgb(i420, 0, 0, w, h)


def rgb_to_i420(rgb: U8) -> U8:
    """RGB u8 [h, w, 3], even sides, to u8 [h*3/2, w]."""
    require("rgb", rgb, np.uint8, (None, None, 3))
    h, w = rgb.shape[:2]
    if h % 2 or w % 2 or not h or not w:
        raise UsageError(f"rgb is {w}x{h} pixels; expected even sides (crop or pad one pixel)")
    i420 = native.empty((h * 3 // 2, w), np.uint8)
    region_into_i420(rgb, i420, 0, 0, None)
    return i420


def i420_region_to_rgb(i420: U8, x: int, y: int, w: int, h: int) -> U8:
    """The rectangle with its top-left pixel at (x, y) as RGB u8 [h, w, 3]; all four are even."""
    height, width = require_i420("i420", i420)
    require_region(x, y, w, h, width, height)
    return region_to_rgb(i420, x, y, w, h)


def rgb_region_into_i420(rgb: U8, i420: U8, x: int, y: int, mask: U8 | None = None) -> None:
    """Write RGB u8 [h, w, 3] into `i420` **in place**, its top-left pixel at (x, y).

    Only pixels whose `mask` (u8 [h, w]) is above 0 change; no mask means all. A chroma sample
    changes when any of its four pixels is masked in, and is then the mean of all four. x, y, w
    and h are even.
    """
    height, width = require_i420("i420", i420)
    require("rgb", rgb, np.uint8, (None, None, 3))
    h, w = rgb.shape[:2]
    require_region(x, y, w, h, width, height)
    if mask is not None:
        require("mask", mask, np.uint8, (h, w))
    if not i420.flags.writeable:
        raise UsageError("i420 is read-only; pass a writable copy, it is changed in place")
    region_into_i420(rgb, i420, x, y, mask)


@kernel(reference.i420_region_to_rgb)
def region_to_rgb(i420: U8, x: int, y: int, w: int, h: int) -> U8:
    """`i420_region_to_rgb` without its checks."""
    rgb = native.empty((h, w, 3), np.uint8)
    height, width = i420.shape[0] * 2 // 3, i420.shape[1]
    native.library().ls_i420_region_to_rgb(i420, width, height, x, y, w, h, rgb)
    return rgb


@kernel(reference.rgb_region_into_i420)
def region_into_i420(rgb: U8, i420: U8, x: int, y: int, mask: U8 | None) -> None:
    """`rgb_region_into_i420` without its checks."""
    rgb = np.ascontiguousarray(rgb)
    mask = None if mask is None else np.ascontiguousarray(mask)
    h, w = rgb.shape[:2]
    height, width = i420.shape[0] * 2 // 3, i420.shape[1]
    native.library().ls_rgb_region_into_i420(rgb, mask, width, height, x, y, w, h, i420)
