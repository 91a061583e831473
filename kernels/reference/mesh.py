"""The twins of `kernels.mesh`.

The image plane is continuous: its origin is the top-left corner of the top-left pixel, so pixel
(row r, column c) has its centre at (x, y) = (c + 0.5, r + 0.5).

Source: ours; the fill rule is the top-left rule of the Direct3D and Vulkan specifications.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lipstream.kernels.reference.color import i420_region_to_rgb, rgb_region_into_i420

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
U8 = NDArray[np.uint8]

SUBPIXELS = 256  # vertex positions are rounded to 1/256 px, so that the edge tests are exact


def _edge(ax: F64, ay: F64, bx: F64, by: F64, px: F64, py: F64) -> F64:
    """Twice the signed area of (a, b, p), in subpixels squared; exact, all are integers."""
    return (bx - ax) * (py - ay) - (by - ay) * (px - ax)


def _is_top_left(ax: F64, ay: F64, bx: F64, by: F64) -> NDArray[np.bool_]:
    """Whether edge a -> b of a clockwise (on screen) triangle owns the pixels exactly on it."""
    owns: NDArray[np.bool_] = (by < ay) | ((by == ay) & (bx > ax))
    return owns


def mesh_map(
    source_xy: F32,
    target_xy: F32,
    triangles: I32,
    out_shape: tuple[int, int],
    origin: tuple[int, int],
) -> tuple[F32, U8]:
    """Where each output pixel comes from: map f32 [h, w, 2] (x, y) and coverage u8 [h, w] (0, 255).

    Output pixel (r, c) is the image pixel (origin_y + r, origin_x + c). A pixel on an edge that
    two triangles share belongs to exactly one of them (top-left rule); where triangles overlap,
    the one that comes last in the list wins. Either winding is drawn; triangles without area
    draw nothing. Uncovered pixels have map 0.
    """
    h, w = out_shape
    shift = np.array(origin, np.float64) * SUBPIXELS
    fixed = np.floor(target_xy.astype(np.float64) * SUBPIXELS + 0.5) - shift
    corners = fixed[triangles]  # f64 [T, 3, 2]
    ids = triangles.copy()
    area = _edge(*(corners[:, i, j] for i in range(3) for j in range(2)))
    flip = area < 0
    ids[flip] = ids[flip][:, [0, 2, 1]]
    keep = area != 0
    ids, area = ids[keep], np.abs(area[keep])
    corners = fixed[ids]

    # Bounding boxes in whole pixels, clipped to the output.
    half = SUBPIXELS // 2
    first = np.ceil((corners.min(axis=1) - half) / SUBPIXELS).astype(np.int64)
    last = np.floor((corners.max(axis=1) - half) / SUBPIXELS).astype(np.int64)
    first = np.maximum(first, 0)
    last = np.minimum(last, np.array([w - 1, h - 1]))
    size = np.maximum(last - first + 1, 0)
    count = size[:, 0] * size[:, 1]

    # Every (triangle, pixel of its box) pair, in the order of the triangles.
    triangle = np.repeat(np.arange(len(ids)), count)
    within = np.arange(len(triangle)) - np.repeat(np.cumsum(count) - count, count)
    box_w = np.maximum(size[triangle, 0], 1)
    column = first[triangle, 0] + within % box_w
    row = first[triangle, 1] + within // box_w
    px = (column * SUBPIXELS + half).astype(np.float64)
    py = (row * SUBPIXELS + half).astype(np.float64)

    inside = np.ones(len(triangle), bool)
    edges = []
    for i in range(3):
        a, b = corners[:, (i + 1) % 3], corners[:, (i + 2) % 3]  # the edge opposite to vertex i
        owns = _is_top_left(a[:, 0], a[:, 1], b[:, 0], b[:, 1])
        a, b, owns = a[triangle], b[triangle], owns[triangle]
        e = _edge(a[:, 0], a[:, 1], b[:, 0], b[:, 1], px, py)
        inside &= (e > 0) | ((e == 0) & owns)
        edges.append(e)

    e0, e1, e2 = (e[inside] for e in edges)
    row, column, triangle = row[inside], column[inside], triangle[inside]
    source = source_xy.astype(np.float64)[ids[triangle]]  # f64 [hits, 3, 2]
    weight = 1.0 / area[triangle]
    mapped = np.zeros((h, w, 2), np.float32)
    coverage = np.zeros((h, w), np.uint8)
    for axis in range(2):
        s = source[:, :, axis]
        value = (e0 * s[:, 0] + e1 * s[:, 1] + e2 * s[:, 2]) * weight
        mapped[row, column, axis] = value.astype(np.float32)  # repeated pixels keep the last value
    coverage[row, column] = 255
    return mapped, coverage


def remap(image: U8, mapped: F32) -> U8:
    """Bilinear samples of u8 [H, W, C] at f32 [h, w, 2]; the border repeats. u8 [h, w, C].

    Fractions are rounded to 1/256 px; a map that points at pixel centres copies pixels exactly.
    """
    height, width = image.shape[:2]
    x, y = mapped[..., 0], mapped[..., 1]
    fx = _fixed_coordinate(x, width)
    fy = _fixed_coordinate(y, height)
    x0, y0 = fx >> 8, fy >> 8
    x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
    wx, wy = (fx & 255)[..., None], (fy & 255)[..., None]
    pixels = image.astype(np.int32)
    top = pixels[y0, x0] * (256 - wx) + pixels[y0, x1] * wx
    bottom = pixels[y1, x0] * (256 - wx) + pixels[y1, x1] * wx
    mixed: I32 = (top * (256 - wy) + bottom * wy + (1 << 15)) >> 16
    return mixed.astype(np.uint8)


def _fixed_coordinate(position: F32, size: int) -> I32:
    """Position in 1/256 px from the first pixel's centre, clamped to the image; NaN becomes 0."""
    scaled = position * np.float32(SUBPIXELS) - np.float32(SUBPIXELS / 2 - 0.5)
    bounded = np.where(scaled > 0, np.minimum(scaled, np.float32((size - 1) * SUBPIXELS)), 0)
    return np.floor(bounded).astype(np.int32)


def warp_mesh(
    source: U8,
    source_xy: F32,
    target_xy: F32,
    triangles: I32,
    out_shape: tuple[int, int],
    origin: tuple[int, int],
    onto: U8 | None = None,
) -> tuple[U8, U8]:
    """See `mesh.warp_mesh`."""
    mapped, coverage = mesh_map(source_xy, target_xy, triangles, out_shape, origin)
    warped = remap(source, mapped)
    uncovered = coverage == 0
    warped[uncovered] = 0 if onto is None else onto[uncovered]
    return warped, coverage


def warp_region(
    i420: U8, box: tuple[int, int, int, int], source_xy: F32, target_xy: F32, triangles: I32
) -> U8:
    """See `mesh.warp_region`."""
    patch = i420_region_to_rgb(i420, *box)
    warped, covered = warp_mesh(patch, source_xy, target_xy, triangles, patch.shape[:2], (0, 0))
    out = i420.copy()
    rgb_region_into_i420(warped, out, box[0], box[1], covered)
    return out
