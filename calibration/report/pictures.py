"""Pictures of the report: cropped, with the mesh drawn, and embedded as JPEG.

Without OpenCV, whose system libraries may be missing where a demo target is built.
"""

from __future__ import annotations

import base64
import io
from fractions import Fraction
from typing import Any, Final

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from lipstream.engine.types import F32, I32, U8

SIDE_PX: Final = 280  # shown at half the size, for dense screens
_LINE: Final = np.array([90, 235, 255], np.float32)
_LIP_LINE: Final = np.array([255, 214, 70], np.float32)
_LIPS_OUTER: Final = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185,
)  # fmt: skip
_LIPS_INNER: Final = (
    78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191,
)  # fmt: skip


def data_uri(rgb: U8) -> str:
    """u8 [h, w, 3] as an embedded JPEG."""
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24").reformat(
        format="yuvj420p",
        dst_colorspace=Colorspace.ITU601,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.JPEG,
    )
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = picture.width, picture.height, "yuvj420p"
    encoder.time_base = Fraction(1)
    encoder.options = {"qmin": "4", "qmax": "4"}
    data = io.BytesIO()
    for packet in [*encoder.encode(picture), *encoder.encode(None)]:
        data.write(bytes(packet))
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


def face_crop(rgb: U8, landmarks: F32 | None) -> tuple[U8, F32 | None]:
    """The face with a margin as u8 [280, 280, 3], and its points f32 [n, 2] there."""
    height, width = rgb.shape[:2]
    if landmarks is None or not np.isfinite(landmarks).all():
        side = float(min(width, height))
        centre = np.array([width / 2, height / 2])
        points = None
    else:
        points = landmarks[:, :2].astype(np.float64)
        low, high = points.min(axis=0), points.max(axis=0)
        centre, side = (low + high) / 2, float((high - low).max()) * 1.35
    corner = centre - side / 2
    scale = SIDE_PX / side
    crop = _resized(rgb, corner, side)
    if points is None:
        return crop, None
    return crop, ((points - corner) * scale).astype(np.float32)


def _resized(rgb: U8, corner: NDArray[np.float64], side: float) -> U8:
    """The square at `corner` (x, y) px, scaled to 280 by FFmpeg, with repeated edges."""
    height, width = rgb.shape[:2]
    whole = max(2, round(side))
    xs = np.clip(np.arange(whole) + round(float(corner[0])), 0, width - 1)
    ys = np.clip(np.arange(whole) + round(float(corner[1])), 0, height - 1)
    square = np.ascontiguousarray(rgb[ys[:, None], xs[None, :]])
    frame = av.VideoFrame.from_ndarray(square, format="rgb24")
    small = frame.reformat(width=SIDE_PX, height=SIDE_PX, interpolation="AREA")
    return np.ascontiguousarray(small.to_ndarray(), np.uint8)


def with_mesh(rgb: U8, points: F32, triangles: I32 | None) -> U8:
    """The picture u8 [h, w, 3] with the mesh drawn over it, lips stronger."""
    out = rgb.astype(np.float32)
    if triangles is not None:
        pairs = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
        pairs = np.unique(np.sort(pairs, axis=1), axis=0)
        _lines(out, points, pairs, _LINE, 0.22)
    else:
        for x, y in points[:468]:
            _dot(out, float(x), float(y))
    for ring in (_LIPS_OUTER, _LIPS_INNER):
        loop = np.column_stack([ring, np.roll(ring, -1)])
        _lines(out, points, loop, _LIP_LINE, 0.9)
    drawn: U8 = np.clip(out + 0.5, 0, 255).astype(np.uint8)
    return drawn


def _lines(
    out: F32, points: F32, pairs: NDArray[np.integer[Any]], color: F32, alpha: float
) -> None:
    """Blend anti-aliased lines into f32 [h, w, 3]."""
    height, width = out.shape[:2]
    start, end = points[pairs[:, 0]].astype(np.float64), points[pairs[:, 1]].astype(np.float64)
    length = np.linalg.norm(end - start, axis=1)
    weight = np.zeros((height, width), np.float32)
    steps = max(2, int(np.ceil(length.max() * 1.5)) + 1)
    for t in np.linspace(0.0, 1.0, steps):
        at = start + (end - start) * t - 0.5
        x0, y0 = np.floor(at[:, 0]).astype(int), np.floor(at[:, 1]).astype(int)
        fx, fy = at[:, 0] - x0, at[:, 1] - y0
        for dx, dy, bilinear in (
            (0, 0, (1 - fx) * (1 - fy)),
            (1, 0, fx * (1 - fy)),
            (0, 1, (1 - fx) * fy),
            (1, 1, fx * fy),
        ):
            x, y = x0 + dx, y0 + dy
            inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
            np.maximum.at(weight, (y[inside], x[inside]), bilinear[inside].astype(np.float32))
    cover = (np.minimum(weight * 1.4, 1.0) * alpha)[..., None]
    out *= 1 - cover
    out += cover * color


def _dot(out: F32, x: float, y: float) -> None:
    column, row = round(x), round(y)
    if 0 <= row < out.shape[0] and 0 <= column < out.shape[1]:
        out[row, column] = 0.3 * out[row, column] + 0.7 * _LINE
