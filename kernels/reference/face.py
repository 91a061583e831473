"""The twins of `kernels.face`. All is f32, but for the fit of the light."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
U8 = NDArray[np.uint8]

_PARTED = np.float32(0.02)  # below this gap lips lie at one depth, inter-ocular distances


def drive(
    basis: F32, canonical_vertices: F32, own: F32, wanted: F32, lips: I32, rows: int
) -> tuple[F32, F32]:
    """See `face.drive`."""
    size = basis.shape[1:]
    change = np.zeros(size, np.float32)
    heights = np.zeros((2, lips.shape[1]), np.float32)
    for row, before, after in zip(basis, own, wanted, strict=True):
        change += (after - before) * row
        heights += after * row[lips[:2], 1]
    vertices = canonical_vertices + change
    upper, lower, outer_upper, outer_lower = lips
    gap = np.maximum(heights[1] - heights[0], np.float32(0))
    miss = (gap - (vertices[lower, 1] - vertices[upper, 1])) / 2
    miss[[0, -1]] = 0  # the corners are one vertex
    vertices[upper, 1] -= miss
    vertices[lower, 1] += miss
    vertices[outer_upper, 1] -= miss / 2
    vertices[outer_lower, 1] += miss / 2
    closed = np.clip(1 - gap / _PARTED, np.float32(0), np.float32(1))[:, None]
    middle = (vertices[upper] + vertices[lower]) / 2
    pressed = [vertices[line] + closed * (middle - vertices[line]) for line in (upper, lower)]
    vertices[upper], vertices[lower] = pressed
    down = (np.arange(rows, dtype=np.float32) / np.float32(rows - 1))[:, None, None]
    grid = vertices[upper] + down * (vertices[lower] - vertices[upper])
    return vertices, grid.reshape(-1, 3)


def project(pose: F32, vertices: F32) -> F32:
    """f32 [V, 3] into the picture: f32 [V, 2], px."""
    x, y, z = vertices.T
    rows = pose[1:7].reshape(2, 3)
    moved = [(x * r[0] + y * r[1] + z * r[2]) * pose[0] + t for r, t in zip(rows, pose[7:])]  # noqa: B905
    return np.stack(moved, 1)


def place(
    pose: F32, canonical_vertices: F32, vertices: F32, grid: F32, line: I32, centre: int, rings: F32
) -> tuple[F32, F32, F32]:
    """See `face.place`."""
    before, after = project(pose, canonical_vertices), project(pose, vertices)
    start, moved = with_rings(before, after, line, centre, float(pose[0]), rings)
    return start, moved, np.concatenate([after, project(pose, grid)])


def with_rings(
    before: F32, after: F32, line: I32, centre: int, scale: float, rings: F32
) -> tuple[F32, F32]:
    """See `face.with_rings`."""
    at, motion = before[line], after[line] - before[line]
    outward = at - before[centre]
    norm = np.sqrt(outward[:, 0] * outward[:, 0] + outward[:, 1] * outward[:, 1])
    outward = outward / np.maximum(norm, np.float32(1e-6))[:, None]
    start = [at + outward * (distance * np.float32(scale)) for distance, _ in rings]
    moved = [begin + motion * kept for begin, (_, kept) in zip(start, rings, strict=True)]
    return np.concatenate([before, *start]), np.concatenate([after, *moved])


def moving_triangles(start: F32, moved: F32, triangles: I32, still_px: float) -> tuple[I32, F32]:
    """See `face.moving_triangles`."""
    moves = np.abs(moved - start).max(1) > np.float32(still_px)
    kept = triangles[moves[triangles].any(1)]
    corners = moved[kept].reshape(-1, 2)
    low = corners.min(0, initial=np.inf)
    return kept, np.concatenate([low, corners.max(0, initial=-np.inf)]).astype(np.float32)


# Pixels this far inside a tracked lip edge may still be lip, and farther at the corners.
_LIP_EDGE, _SIDEWAYS = np.float32(0.1), np.float32(0.3)


def map_to_source(
    vertices: F32,
    grid: F32,
    canonical_vertices: F32,
    pose: F32,
    view: F32,
    lips: I32,
    chin: I32,
    inset: float,
) -> tuple[F32, F32, float]:
    """See `face.map_to_source`."""
    f = np.float32
    upper, lower, outer_upper, outer_lower = lips
    n, middle = len(upper), len(upper) // 2
    points = grid.reshape(-1, n, 3)
    jaw = _mean_in_order(canonical_vertices[chin]) - _mean_in_order(vertices[chin])
    gaps = [v[lower[middle], 1] - v[upper[middle], 1] for v in (canonical_vertices, vertices)]
    like = gaps[0] / np.maximum(gaps[1], f(1e-3))
    likeness = _smooth((like - f(0.45)) / f(0.35)) * _smooth((f(0.11) - np.abs(jaw[1])) / f(0.07))
    down = np.arange(len(points), dtype=f) / f(len(points) - 1)
    points = points + (likeness * _smooth(down))[:, None, None] * jaw
    roof, floor = canonical_vertices[upper, 1], canonical_vertices[lower, 1]
    span = floor - roof
    beyond = np.maximum(points[..., 1] - np.maximum(floor, roof), f(0))
    thin = _smooth((span - f(0.01)) / f(0.04))
    confidence = np.maximum(likeness, thin * (1 - _smooth(beyond / f(0.03))))
    left, right = canonical_vertices[upper[0], 0], canonical_vertices[upper[-1], 0]
    points[..., 0] = np.clip(points[..., 0], left, right)
    side = np.minimum(canonical_vertices[upper, 0] - left, right - canonical_vertices[upper, 0])
    depth = np.minimum(np.minimum(down, 1 - down)[:, None] * span, _SIDEWAYS * side)
    along = canonical_vertices[upper] + down[:, None, None] * (
        canonical_vertices[lower] - canonical_vertices[upper]
    )
    off = points - along
    off[..., 1] = np.clip(off[..., 1], f(-0.4) * depth, f(0.4) * depth)  # rows stay in order
    points = along + _smooth(depth / _LIP_EDGE)[..., None] * off

    wanted = vertices[lower, 1] - vertices[upper, 1]
    closing = _smooth((f(0.6) - wanted / np.maximum(span, f(1e-3))) / f(0.5))
    thickness = np.minimum(
        roof - canonical_vertices[outer_upper, 1], canonical_vertices[outer_lower, 1] - floor
    )
    closing = closing * _smooth((span - f(0.008)) / f(0.03))
    # Parted wider, lips show no line where they met, or where they bordered on teeth.
    parting = (f(1) - _smooth((like - f(0.45)) / f(0.35))) * _smooth(wanted / f(0.06))
    inward = np.maximum(closing, f(1.3) * parting) * (f(inset) + f(0.8) / pose[0])
    inward = np.minimum(inward, f(0.35) * np.maximum(thickness, f(0)))
    edge = canonical_vertices.copy()
    edge[upper, 1] -= inward
    edge[lower, 1] += inward
    placed = project(pose, np.concatenate([edge, points.reshape(-1, 3)]))
    lowered = float(vertices[upper[middle], 1] - canonical_vertices[upper[middle], 1])
    return (placed - view[:2]) * view[2], confidence.reshape(-1), lowered


def _mean_in_order(rows: F32) -> F32:
    total = np.zeros(rows.shape[1:], np.float32)
    for row in rows:
        total += row
    return total / np.float32(len(rows))


def _smooth(x: F32) -> F32:
    t = np.clip(x, np.float32(0), np.float32(1))
    smoothed: F32 = t * t * (3 - 2 * t)
    return smoothed


def relight(
    layer: U8, below: U8, points: F32, skin: I32, limits: tuple[int, float, float, float]
) -> None:
    """See `face.relight`."""
    least, stiffness, reach, tint = limits
    h, w = layer.shape[:2]
    at = np.floor(points[skin])
    at = at[(at >= 1).all(1) & (at[:, 0] < w - 1) & (at[:, 1] < h - 1)].astype(np.int64)
    if len(at) < least:
        return
    x, y = at.T
    shown, wanted = layer.astype(np.int64), below.astype(np.int64)
    near = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
    difference = sum(wanted[y + dy, x + dx] - shown[y + dy, x + dx] for dx, dy in near) / 5
    middle = np.median(difference, axis=0)
    # A vertex on a shadow's edge or a hair must not tilt the plane.
    difference = middle + np.clip(difference - middle, -np.float32(reach), np.float32(reach))
    terms = np.stack([np.ones(len(at)), x / w - 0.5, y / h - 0.5], 1)
    design = _sum_in_order(terms[:, :, None] * terms[:, None])
    design[[1, 2], [1, 2]] += np.float32(stiffness)
    own = shown[y, x].sum(0) / len(at) + 8
    plane = (
        np.stack([_solved(design, _sum_in_order(d[:, None] * terms)) for d in difference.T], 1)
        / own
    )  # [term, channel]
    plane = plane.astype(np.float32)
    strength = (plane[:, 0] + plane[:, 1] + plane[:, 2])[:, None] / 3
    plane = strength + np.clip(plane - strength, -np.float32(tint), np.float32(tint))
    along, down = (np.arange(n, dtype=np.float32) / np.float32(n) - np.float32(0.5) for n in (w, h))
    gain = 1 + (plane[0] + plane[1] * along[:, None] + (plane[2] * down[:, None])[:, None])
    layer[:] = np.clip(layer * gain + np.float32(0.5), 0, 255).astype(np.uint8)


def _sum_in_order(rows: F64) -> F64:
    total: F64 = np.add.accumulate(rows, axis=0)[-1]
    return total


def _solved(matrix: F64, right: F64) -> F64:
    """x of matrix x = right, f64 [3, 3] and [3], by elimination without pivots."""
    a = np.concatenate([matrix, right[:, None]], axis=1)
    for i in range(3):
        for j in range(i + 1, 3):
            a[j, i:] -= a[j, i] / a[i, i] * a[i, i:]
    x = np.zeros(3)
    for i in (2, 1, 0):
        rest = a[i, 3]
        for j in range(i + 1, 3):
            rest -= a[i, j] * x[j]
        x[i] = rest / a[i, i]
    return x


def downsample2x(fine: U8, covered: U8, window: U8) -> None:
    """See `face.downsample2x`."""
    wide = fine.astype(np.uint16)
    mean = (wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2] + 2) >> 2
    whole = covered[::2, ::2] & covered[1::2, ::2] & covered[::2, 1::2] & covered[1::2, 1::2]
    np.copyto(window, mean.astype(np.uint8), where=whole[..., None] > 0)
