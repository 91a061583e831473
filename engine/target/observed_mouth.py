"""What the sources of a target show of its mouth: colours of lips and teeth, the upper teeth
themselves, and the light.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.target.oral_cavity import Camera, Mouth, ObservedMouth, UpperTeeth
from lipstream.engine.target.sources import MouthSource
from lipstream.engine.types import F32
from lipstream.kernels.oral_cavity import lip_shade

_ROWS: Final = 16  # samples across the gap
_COLUMNS: Final = 60
_LEAST_GAP: Final = 0.05  # inter-ocular distances, of a gap that may show teeth
_LEAST_SHARE: Final = 0.05  # of the samples in the gap
_LEAST_ROW: Final = 0.4  # inter-ocular distances; of a shorter row the colour alone is taken
_MOST_SOURCES: Final = 24
_INSET: Final = 0.012  # inter-ocular distances from the lips, where colours mix
_CORNER: Final = 0.24  # inter-ocular distances from the middle; corners are further out
_FADE: Final = 0.06  # inter-ocular distances, over which teeth end in the corners
_LEAST_SHADE: Final = 0.8  # that pixels of teeth are divided by
_LEAST_SHADE_OF_FEW: Final = 0.7  # the same for the colour alone, also of teeth in a narrow gap
# How far a tooth's hue is on the way from the lips' to grey: to show its pixels, and to tell their
# colour, for which a wrong one among many does no harm.
_PALE: Final = 0.5
_RATHER_PALE: Final = 0.35
_LUMA: Final = np.array([0.21, 0.72, 0.07], np.float32)
_LEFT_SKIN, _RIGHT_SKIN = (214, 212, 216, 207), (434, 432, 436, 427)  # beside the mouth


def with_observed(mouth: Mouth, sources: Sequence[MouthSource], teeth_grid: F32) -> Mouth:
    """The mouth as the sources show it; of many, those with the widest gaps.

    teeth_grid: `oral_cavity.upper_grid` of this mouth.
    """
    gaps = [float(np.ptp(s.placement.canonical_vertices[[13, 14], 1])) for s in sources]
    widest = [sources[i] for i in np.argsort(gaps)[::-1][:_MOST_SOURCES]]
    both = np.median([_lip_colors(source) for source in widest], axis=0).astype(np.float32)
    lips = both.mean(0)
    skin = np.median([_skin(source) for source in widest], axis=0)
    across = widest[0].placement.canonical_vertices[:, 0]
    apart = across[list(_RIGHT_SKIN)].mean() - across[list(_LEFT_SKIN)].mean()
    left, right = skin @ _LUMA
    gradient = float((right - left) / max(right + left, 1.0) * 2 * 0.4 / apart)
    seen = ObservedMouth(
        both, skin.mean(0).astype(np.float32), None, float(np.clip(gradient, -0.25, 0.25)), None,
        _camera(widest[0]),
    )  # fmt: skip
    found = [(source, *own) for source in widest if (own := _teeth(source, lips)) is not None]
    if not found:
        return replace(mouth, observed=seen)
    teeth = np.median([color for _, color, _ in found], axis=0).astype(np.float32)
    best = max(found, key=lambda one: one[2])[0]
    return replace(
        mouth,
        observed=replace(seen, teeth=teeth, upper=_upper_teeth(mouth, best, lips, teeth_grid)),
    )


def _upper_teeth(mouth: Mouth, source: MouthSource, lips: F32, grid: F32) -> UpperTeeth:
    """The row of upper teeth of one source."""
    place, (count, width) = source.placement, grid.shape[:2]
    x, y = grid[0, :, 0], grid[:, 0, 1]
    points = grid + np.array([source.lips[0, source.lips.shape[1] // 2, 0], 0, 0], np.float32)
    flat = points.reshape(-1, 3)
    colors = source.colors_at(flat).reshape(grid.shape)
    at = place.project(flat).reshape(count, width, 2)
    upper, lower = (place.project(line) for line in source.lips[:2])
    roof, floor = (np.interp(at[..., 0], line[:, 0], line[:, 1]) for line in (upper, lower))
    outside = (at[..., 0] < upper[0, 0]) | (at[..., 0] > upper[-1, 0])
    inside = np.minimum(at[..., 1] - roof, floor - at[..., 1]) / place.scale
    seen = np.clip((inside - _INSET) / _INSET, 0, 1) * ~outside

    # The uppermost run of teeth in each column; what is below its end is lower teeth or lip.
    tooth = is_tooth(colors, lips, _PALE) & (seen > 0)
    begun = np.cumsum(tooth, 0) >= 3
    ended = np.cumsum(begun & ~tooth, 0) > 0
    row = tooth & ~ended
    last = count - 1 - np.argmax(row[::-1], 0)
    central = row.any(0) & (np.abs(x) < 0.14)
    edge = mouth.upper_edge
    if central.any():
        end = y[last[central]]
        lowest = y[count - 1 - np.argmax((seen > 0)[::-1], 0)][central]
        hidden = np.median(lowest - end) < 0.015  # the lower lip covers the edge
        edge = max(edge, float(np.median(end)) + 0.02) if hidden else float(np.median(end))
    own = colors / np.maximum(_source_shade(source, points), _LEAST_SHADE)[..., None]
    # A mouth that shows no teeth next to its corners has none further out. One corner may lie in
    # shade: the other tells for both.
    shown, furthest = row.any(0), np.abs(x).max()
    ends = [np.abs(x[side & shown]).max(initial=0) for side in (x <= 0, x >= 0)]
    dark = [(seen[:, side & (np.abs(x) > max(ends))] > 0.5).any() for side in (x <= 0, x >= 0)]
    end = max(*ends, _CORNER) if all(ends) and any(dark) else furthest
    fading = np.clip((np.abs(x) - end) / _FADE, 0, 1).astype(np.float32)
    closed = np.tile(fading, (count, 1))
    if not shown.any() or np.ptp(x[shown]) < _LEAST_ROW:
        row, closed = np.zeros_like(row), np.zeros_like(closed)
    layers = np.stack([_soften(np.where(row, seen, 0)), _soften(closed)], -1)
    table = np.concatenate([np.clip(own, 0, 255), layers], -1)
    return UpperTeeth(edge, table.astype(np.float32))


def _source_shade(source: MouthSource, points: F32) -> F32:
    """The shade of the lips on points f32 [h, w, 3] of the source's own mouth, f32 [h, w]."""
    roof, floor = (
        np.interp(points[..., 0], line[:, 0], line[:, 1]).astype(np.float32)
        for line in source.lips[:2]
    )
    return lip_shade(points[..., 1], roof, floor)


def _soften(image: F32) -> F32:
    """Mean of 3 x 3, f32 [h, w]."""
    padded = np.pad(image, 1, mode="edge")
    rows, columns = image.shape
    parts = [padded[i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
    return np.mean(parts, axis=0).astype(np.float32)


def _lip_colors(source: MouthSource) -> F32:
    """Median of the inner half of either lip, f32 [2, 3]."""
    colors = []
    for inner, outer in zip(source.lips[:2, 2:-2], source.lips[2:, 2:-2], strict=True):
        points = np.concatenate([inner + t * (outer - inner) for t in (0.25, 0.35, 0.45, 0.55)])
        colors.append(np.median(source.colors_at(points), axis=0))
    return np.stack(colors).astype(np.float32)


def _teeth(source: MouthSource, lips: F32) -> tuple[F32, float] | None:
    """Median of the lighter half of what is tooth, f32 [3], and its area; None for too little."""
    gap = float(np.ptp(source.placement.canonical_vertices[[13, 14], 1]))
    if gap < _LEAST_GAP:
        return None
    count = source.lips.shape[1]
    columns = np.linspace(1, count - 2, _COLUMNS)
    upper, lower = (
        np.stack([np.interp(columns, np.arange(count), axis) for axis in line.T], 1)
        for line in source.lips[:2]
    )
    down = np.linspace(0.12, 0.88, _ROWS)[:, None, None]
    points = upper + down * (lower - upper)
    colors = source.colors_at(points.reshape(-1, 3)).reshape(points.shape)
    tooth = is_tooth(colors, lips, _RATHER_PALE)
    if tooth.mean() < _LEAST_SHARE:
        return None
    shade = np.maximum(_source_shade(source, points)[tooth], _LEAST_SHADE_OF_FEW)
    teeth = colors[tooth] / shade[:, None]
    luma = teeth @ _LUMA
    color: F32 = np.median(teeth[luma >= np.median(luma)], axis=0).astype(np.float32)
    return np.minimum(color, np.float32(250)), float(tooth.mean()) * gap


def is_tooth(colors: F32, lips: F32, pale: float) -> NDArray[np.bool_]:
    """Which colours f32 [..., 3] are not dark, and `pale` of the way from the hue of the lips,
    f32 [3], to grey, or further: 0 to 1."""
    own = lips[1] / lips[0]
    green, least = colors[..., 1], own + pale * (1 - own)
    found: NDArray[np.bool_] = (green > least * colors[..., 0]) & (
        colors @ _LUMA > 0.75 * (lips @ _LUMA)
    )
    return found


def _skin(source: MouthSource) -> F32:
    """Colour of the skin on the left and right of the mouth, f32 [2, 3]."""
    vertices = source.placement.canonical_vertices
    sides = (source.colors_at(vertices[list(side)]) for side in (_LEFT_SKIN, _RIGHT_SKIN))
    return np.stack([np.median(side, axis=0) for side in sides]).astype(np.float32)


def _camera(source: MouthSource) -> Camera:
    """Blur, from how much another blur takes from the strongest gradients (Zhuo and Sim, Defocus
    map estimation from a single image, 2011); grain, from what it takes where there are none.
    """
    luma = source.rgb.astype(np.float32) @ _LUMA
    soft = _soften_by_one(luma)
    before, after = (np.hypot(*np.gradient(image)) for image in (luma, soft))
    strong = before >= max(float(np.percentile(before, 97)), 0.3 * float(before.max()), 1.0)
    taken = before[strong] / np.maximum(after[strong], 1e-3)
    ratio = float(np.median(taken)) if strong.any() else 1.0
    pixel = 1 / (source.placement.scale * source.zoom)
    even = before <= np.percentile(before, 40)
    return Camera(pixel / max(ratio**2 - 1, 0.1) ** 0.5, float((luma - soft)[even].std()), pixel)


def _soften_by_one(image: F32) -> F32:
    """f32 [h, w] with 1 2 1 twice along either axis: a blur of one pixel."""
    for axis in (0, 0, 1, 1):
        padded = np.pad(image, [(1, 1) if k == axis else (0, 0) for k in (0, 1)], mode="edge")
        low, middle, high = (
            np.take(padded, np.arange(image.shape[axis]) + k, axis) for k in range(3)
        )
        image = ((low + 2 * middle + high) / 4).astype(np.float32)
    return image
