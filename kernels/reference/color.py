"""The twins of `kernels.color`: BT.709, limited range, in 16.16 fixed point."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]

# 16.16 fixed point. Each row of chroma weights sums to zero, so greys stay exactly grey.
_Y_FROM_RGB = (11966, 40254, 4064)
_U_FROM_RGB = (-6596, -22189, 28785)
_V_FROM_RGB = (28784, -26145, -2639)
_RGB_FROM_Y = 76309
_R_FROM_V = 117489
_G_FROM_U, _G_FROM_V = -13975, -34925
_B_FROM_U = 138438
_HALF = 1 << 15


def i420_planes(i420: U8) -> tuple[U8, U8, U8]:
    """Views on the planes Y u8 [h, w], U and V u8 [h/2, w/2] of u8 [h*3/2, w]."""
    h, w = i420.shape[0] * 2 // 3, i420.shape[1]
    flat = i420.reshape(-1)
    quarter = (h // 2) * (w // 2)
    y = flat[: h * w].reshape(h, w)
    u = flat[h * w : h * w + quarter].reshape(h // 2, w // 2)
    v = flat[h * w + quarter :].reshape(h // 2, w // 2)
    return y, u, v


def i420_region_to_rgb(i420: U8, x: int, y: int, w: int, h: int) -> U8:
    """Rectangle of an I420 picture as u8 [h, w, 3]; each chroma sample serves its 2x2 pixels."""
    luma, u_plane, v_plane = i420_planes(i420)
    rows, columns = slice(y // 2, (y + h) // 2), slice(x // 2, (x + w) // 2)
    c = (luma[y : y + h, x : x + w].astype(np.int32) - 16) * _RGB_FROM_Y + _HALF
    u = (u_plane[rows, columns].astype(np.int32) - 128).repeat(2, axis=0).repeat(2, axis=1)
    v = (v_plane[rows, columns].astype(np.int32) - 128).repeat(2, axis=0).repeat(2, axis=1)
    r = (c + _R_FROM_V * v) >> 16
    g = (c + _G_FROM_U * u + _G_FROM_V * v) >> 16
    b = (c + _B_FROM_U * u) >> 16
    return np.clip(np.stack([r, g, b], axis=-1), 0, 255).astype(np.uint8)


def rgb_region_into_i420(rgb: U8, i420: U8, x: int, y: int, mask: U8 | None) -> None:
    """Write u8 [h, w, 3] into `i420` in place, at (x, y), where `mask` (u8 [h, w]) is above 0.

    A chroma sample is the mean of its four pixels; it is written when any of them is masked in.
    No mask means everywhere.
    """
    h, w = rgb.shape[:2]
    luma, u_plane, v_plane = i420_planes(i420)
    pixels = rgb.astype(np.int32)
    quads = pixels.reshape(h // 2, 2, w // 2, 2, 3).sum(axis=(1, 3))  # of 4 pixels: 0..1020
    new_y = ((pixels @ np.array(_Y_FROM_RGB, np.int32) + _HALF) >> 16) + 16
    bias = (128 << 18) + (1 << 17)
    new_u = (quads @ np.array(_U_FROM_RGB, np.int32) + bias) >> 18
    new_v = (quads @ np.array(_V_FROM_RGB, np.int32) + bias) >> 18
    change = np.ones((h, w), bool) if mask is None else mask > 0
    change_chroma = change.reshape(h // 2, 2, w // 2, 2).any(axis=(1, 3))
    rows, columns = slice(y // 2, (y + h) // 2), slice(x // 2, (x + w) // 2)
    np.copyto(luma[y : y + h, x : x + w], new_y.astype(np.uint8), where=change)
    np.copyto(u_plane[rows, columns], new_u.astype(np.uint8), where=change_chroma)
    np.copyto(v_plane[rows, columns], new_v.astype(np.uint8), where=change_chroma)
