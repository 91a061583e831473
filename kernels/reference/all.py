"""The NumPy twin of every kernel: what the compiled code must compute, written to be read.

These functions are the truth. They check nothing (the wrappers do), and they are also what runs
where no compiler was at hand. Integer kernels and the min-plus step agree with the compiled code
bit for bit; so do the float ones, because both sides use the same operations in the same order
and the compilers are told not to fuse multiply and add.

Colour: BT.709, limited range. Coordinates: the image plane is continuous, its origin is the
top-left corner of the top-left pixel, so pixel (row r, column c) has its centre at
(x, y) = (c + 0.5, r + 0.5).

Source: ours; the fill rule is the top-left rule of the Direct3D and Vulkan specifications.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I16 = NDArray[np.int16]
I32 = NDArray[np.int32]
U8 = NDArray[np.uint8]

SUBPIXELS = 256  # vertex positions are rounded to 1/256 px, so that the edge tests are exact

# ---------------------------------------------------------------------------- colour

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


# ------------------------------------------------------------------ dynamic programming


def min_plus(score: F32, predecessors: I32, transition_cost: F32, emission: F32) -> tuple[F32, I32]:
    """One step of Viterbi in pull form, ties to the lowest slot.

    score f32 [N], predecessors i32 [N, P], transition_cost f32 [N, P], emission f32 [N] -> new
    score f32 [N] and back pointer i32 [N], which is the chosen predecessor, or -1 where every way
    in costs infinity (the new score is then infinite).
    """
    candidates = score[predecessors] + transition_cost  # f32 [N, P]
    slot = candidates.argmin(axis=1)
    states = np.arange(score.size)
    best = candidates[states, slot]
    back = np.where(np.isinf(best), np.int32(-1), predecessors[states, slot])
    return best + emission, back


def trace_back(backs: list[I32], states: I32) -> I32:
    """Follow back pointers: ancestor i32 [S] of each of `states`, through `backs` newest first.

    A state of -1 stays -1.
    """
    ancestors = states
    for back in backs:
        ancestors = np.where(ancestors >= 0, back[ancestors], np.int32(-1))
    return ancestors


def feature_distance(features: F32, wanted: F32, base: F32) -> F32:
    """base[n] + sum over k of (features[k, n] - wanted[k])^2, summed in the order of k: f32 [N]."""
    total = base.copy()
    for row, value in zip(features, wanted, strict=True):
        difference = row - value
        total += difference * difference
    return total


# ---------------------------------------------------------------------------- mesh


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
    crossfade: I32 = (top * (256 - wy) + bottom * wy + (1 << 15)) >> 16
    return crossfade.astype(np.uint8)


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


# ------------------------------------------------------------------------- composite


def warp_region(
    i420: U8, box: tuple[int, int, int, int], source_xy: F32, target_xy: F32, triangles: I32
) -> U8:
    """See `mesh.warp_region`."""
    patch = i420_region_to_rgb(i420, *box)
    warped, covered = warp_mesh(patch, source_xy, target_xy, triangles, patch.shape[:2], (0, 0))
    out = i420.copy()
    rgb_region_into_i420(warped, out, box[0], box[1], covered)
    return out


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
    crossfade: I32 = (back * (4096 - a) + front * a + 2048) >> 12
    return crossfade.astype(np.uint8)


def match_color(layer: U8, gain: F32, bias: F32) -> U8:
    """round(layer * gain + bias), clipped to u8; gain and bias f32 [3]."""
    value: F32 = layer.astype(np.float32) * gain + bias
    bounded: F32 = np.clip(np.floor(value + np.float32(0.5)), 0, 255)
    return bounded.astype(np.uint8)


def blend_matched(background: U8, layer: U8, alpha: U8 | F32, gain: F32, bias: F32) -> U8:
    """`blend` of the layer after `match_color`."""
    return blend(background, match_color(layer, gain, bias), alpha)


def crossfade(old: U8, new: U8, weight: int) -> U8:
    """(old * (256 - weight) + new * weight) / 256, rounded."""
    total = old.astype(np.int32) * (256 - weight) + new.astype(np.int32) * weight + 128
    return (total >> 8).astype(np.uint8)


def weighted_sum(layers: F32, weights: F32) -> U8:
    """See `composite.summed`; one layer after the other."""
    total = np.full(layers.shape[1:], np.float32(0.5))
    for layer, share in zip(layers, weights, strict=True):
        total += share * layer
    return np.clip(total, 0, 255).astype(np.uint8)


# ------------------------------------------------------------------------------ crop

NONE = 128  # of a stored difference: nothing to add


def crop_in(
    picture: U8,
    guides: U8,
    prior: U8 | None,
    previous: U8 | None,
    place: tuple[float, float, float],
    shape: tuple[int, int],
) -> tuple[U8, F32]:
    """See `crop.crop_in`."""
    left, top, step = (np.float32(value) for value in place)
    rows, columns = (np.arange(n, dtype=np.float32) + np.float32(0.5) for n in shape)
    x, y = columns * step + left, rows * step + top
    inward = _plane(x, y)
    crop = np.concatenate([remap(picture, inward), remap(guides, inward)], axis=2)
    own = np.ascontiguousarray(crop[..., :3])
    layer = own
    if prior is not None:
        # Both pictures show the same rectangle, so their sizes tell how one lies on the other.
        across, down = (np.float32(prior.shape[i] / picture.shape[i]) for i in (1, 0))
        layer = remap(prior, _plane(x * across, y * down))
        layer = blend(own, layer, np.ascontiguousarray(crop[..., 3]))
    stack = np.concatenate([crop, layer, own if previous is None else previous], axis=2)
    planes = np.ascontiguousarray(stack.transpose(2, 0, 1), np.float32) * np.float32(1 / 255)
    return crop, planes


def fused(gates: F32, planes: F32) -> F32:
    """See `crop.fused`."""
    coarse, fine = (np.clip(gate, 0, 1) for gate in gates[:2])
    own = np.clip(gates[2], np.float32(-0.5), 1)
    painted, apart = planes[:3], planes[6:9] - planes[:3]
    low = _mean_of_five(_mean_of_five(apart))
    high = painted - _mean_of_five(_mean_of_five(painted))
    result: F32 = (coarse * low + fine * (apart - low)) + own * high
    return result


def unsharp_mask(difference: F32, crop: U8, amount: float) -> F32:
    """See `crop.sharpened`."""
    colour = np.ascontiguousarray(crop[..., :3].transpose(2, 0, 1), np.float32)
    difference = _without_alternation(_without_alternation(difference, 2), 1)
    refined = colour * np.float32(1 / 255) + difference
    soft = _three(_three(refined, 1), 2)
    result: F32 = difference + np.float32(amount) * (soft - _mean_of_five(refined))
    return result


def _without_alternation(planes: F32, axis: int) -> F32:
    """Less what alternates from number to number along an axis; the border repeats."""
    moved = np.moveaxis(planes, axis, 0)
    at = np.arange(len(moved))
    a, b, own, d, e = (moved[np.clip(at + step, 0, len(moved) - 1)] for step in range(-2, 3))
    kept = (own * np.float32(2 / 3) + (b + d) * np.float32(0.25)) - (a + e) * np.float32(1 / 12)
    return np.moveaxis(kept, 0, axis)


def _three(planes: F32, axis: int) -> F32:
    """1 2 1 along an axis; the border repeats."""
    moved = np.moveaxis(planes, axis, 0)
    before, after = moved[[0, *range(len(moved) - 1)]], moved[[*range(1, len(moved)), -1]]
    return np.moveaxis(((before + 2 * moved) + after) * np.float32(0.25), 0, axis)


def _mean_of_five(planes: F32) -> F32:
    """Over 5 x 5, of what is inside."""
    total, high = _five(planes, 1)
    total, wide = _five(total, 2)
    mean: F32 = total / (high[:, None] * wide)
    return mean


def _five(planes: F32, axis: int) -> tuple[F32, F32]:
    """Sums of up to five neighbours along an axis, in order, and of how many: f32 [size]."""
    moved = np.moveaxis(planes, axis, 0)
    size = len(moved)
    total = np.empty_like(moved)
    for at in range(size):
        near = range(max(at - 2, 0), min(at + 2, size - 1) + 1)
        total[at] = moved[near[0]]
        for other in near[1:]:
            total[at] += moved[other]
    places = np.arange(size)
    count = np.minimum(places + 2, size - 1) - np.maximum(places - 2, 0) + 1
    return np.moveaxis(total, 0, axis), count.astype(np.float32)


def attenuate_in_synthetic(difference: F32, crop: U8, table: U8) -> F32:
    """See `crop.withheld`."""
    largest = np.pad(crop[..., 5], 2)
    for axis in (0, 1):
        largest = np.lib.stride_tricks.sliding_window_view(largest, 5, axis).max(-1)
    weights = np.pad(table[largest].astype(np.int32), 1, mode="edge")
    for axis in (0, 1):
        weights = np.lib.stride_tricks.sliding_window_view(weights, 3, axis).sum(-1)
    result: F32 = difference * (weights.astype(np.float32) * np.float32(1 / (9 * 255)))
    return np.where(weights == 9 * 255, difference, result)


def crop_out(
    difference: F32, crop: U8, picture: U8, guides: U8, place: tuple[float, float, float]
) -> U8:
    """Add f32 [3, rows, columns] to `picture` in place, by the opacity in the guides' first
    channel; returns the crop with the same added, u8 [rows, columns, 3]."""
    left, top, step = place
    levels = difference.transpose(1, 2, 0) * np.float32(255) + np.float32(NONE + 0.5)
    stored = np.ascontiguousarray(np.clip(levels, 0, 255), np.uint8)
    height, width = picture.shape[:2]
    zoom, half = np.float32(1 / step), np.float32(0.5)
    columns = (np.arange(width, dtype=np.float32) + half - np.float32(left)) * zoom
    rows = (np.arange(height, dtype=np.float32) + half - np.float32(top)) * zoom
    own_size = remap(stored, _plane(columns, rows))
    picture[:] = _add_weighted(picture, own_size, guides[..., 0])
    return _add_weighted(crop[..., :3], stored, crop[..., 3])


def _add_weighted(levels: U8, difference: U8, opacity: U8) -> U8:
    change = (difference.astype(np.int32) - NONE) * opacity[..., None].astype(np.int32)
    # Rounded half up; the shift is a division by 255 that is exact in this range.
    total = levels.astype(np.int32) + ((change * 257 + (1 << 15)) >> 16)
    return np.clip(total, 0, 255).astype(np.uint8)


def _plane(columns: F32, rows: F32) -> F32:
    out = np.empty((len(rows), len(columns), 2), np.float32)
    out[..., 0], out[..., 1] = columns, rows[:, None]
    return out


# ------------------------------------------------------------------------- recurrent


def affine(x: F32, weights: NDArray[np.float16], bias: F32) -> F32:
    """bias + sum over i, in order, of x[i] * weights[:, i]: f32 [outputs]."""
    total = bias.copy()
    for value, column in zip(x, weights.T.astype(np.float32), strict=True):
        total += value * column
    return total


# ------------------------------------------------------------------------------ face

# Lips are four lines of n vertices, i32 [4, n], from the image's left to its right: the inner
# upper and lower lip and the outer upper and lower one. A pose is f32 [9]: scale, the first two
# rows of a rotation, x and y of a translation. All is f32, but for the fit of the light.

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
    share = (np.arange(rows, dtype=np.float32) / np.float32(rows - 1))[:, None, None]
    grid = vertices[upper] + share * (vertices[lower] - vertices[upper])
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
    moved = [begin + motion * share for begin, (_, share) in zip(start, rings, strict=True)]
    return np.concatenate([before, *start]), np.concatenate([after, *moved])


def moving_triangles(start: F32, moved: F32, triangles: I32, still_px: float) -> tuple[I32, F32]:
    """See `face.stirred`."""
    stirs = np.abs(moved - start).max(1) > np.float32(still_px)
    kept = triangles[stirs[triangles].any(1)]
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
    """See `face.lend`."""
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
    drawn_in = closing * _smooth((span - f(0.008)) / f(0.03)) * (f(inset) + f(0.8) / pose[0])
    drawn_in = np.minimum(drawn_in, f(0.35) * np.maximum(thickness, f(0)))
    edge = canonical_vertices.copy()
    edge[upper, 1] -= drawn_in
    edge[lower, 1] += drawn_in
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
    """See `face.halve_into`."""
    wide = fine.astype(np.uint16)
    mean = (wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2] + 2) >> 2
    whole = covered[::2, ::2] & covered[1::2, ::2] & covered[::2, 1::2] & covered[1::2, 1::2]
    np.copyto(window, mean.astype(np.uint8), where=whole[..., None] > 0)


# ----------------------------------------------------------------------- convolution

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
