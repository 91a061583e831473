"""The twins of `kernels.crop`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lipstream.kernels.reference.composite import blend
from lipstream.kernels.reference.mesh import remap

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

NONE = 128  # of a stored difference: nothing to add


def crop_in(
    picture: U8,
    conditioning: U8,
    prior: U8 | None,
    previous: U8 | None,
    place: tuple[float, float, float],
    shape: tuple[int, int],
) -> tuple[U8, F32]:
    """See `crop.crop_in`."""
    left, top, step = (np.float32(value) for value in place)
    rows, columns = (np.arange(n, dtype=np.float32) + np.float32(0.5) for n in shape)
    x, y = columns * step + left, rows * step + top
    inward = plane(x, y)
    crop = np.concatenate([remap(picture, inward), remap(conditioning, inward)], axis=2)
    own = np.ascontiguousarray(crop[..., :3])
    layer = own
    if prior is not None:
        # Both pictures show the same rectangle, so their sizes tell how one lies on the other.
        across, down = (np.float32(prior.shape[i] / picture.shape[i]) for i in (1, 0))
        layer = remap(prior, plane(x * across, y * down))
        layer = blend(own, layer, np.ascontiguousarray(crop[..., 3]))
    stack = np.concatenate([crop, layer, own if previous is None else previous], axis=2)
    planes = np.ascontiguousarray(stack.transpose(2, 0, 1), np.float32) * np.float32(1 / 255)
    return crop, planes


def apply_gates(gates: F32, planes: F32) -> F32:
    """See `crop.apply_gates`."""
    coarse, fine = (np.clip(gate, 0, 1) for gate in gates[:2])
    own = np.clip(gates[2], np.float32(-0.5), 1)
    painted, apart = planes[:3], planes[6:9] - planes[:3]
    low = mean_of_five(mean_of_five(apart))
    high = painted - mean_of_five(mean_of_five(painted))
    result: F32 = (coarse * low + fine * (apart - low)) + own * high
    return result


def unsharp_mask(difference: F32, crop: U8, amount: float) -> F32:
    """See `crop.unsharp_mask`."""
    colour = np.ascontiguousarray(crop[..., :3].transpose(2, 0, 1), np.float32)
    difference = without_alternation(without_alternation(difference, 2), 1)
    refined = colour * np.float32(1 / 255) + difference
    soft = three(three(refined, 1), 2)
    result: F32 = difference + np.float32(amount) * (soft - mean_of_five(refined))
    return result


def without_alternation(planes: F32, axis: int) -> F32:
    """Less what alternates from number to number along an axis; the border repeats."""
    moved = np.moveaxis(planes, axis, 0)
    at = np.arange(len(moved))
    a, b, own, d, e = (moved[np.clip(at + step, 0, len(moved) - 1)] for step in range(-2, 3))
    kept = (own * np.float32(2 / 3) + (b + d) * np.float32(0.25)) - (a + e) * np.float32(1 / 12)
    return np.moveaxis(kept, 0, axis)


def three(planes: F32, axis: int) -> F32:
    """1 2 1 along an axis; the border repeats."""
    moved = np.moveaxis(planes, axis, 0)
    before, after = moved[[0, *range(len(moved) - 1)]], moved[[*range(1, len(moved)), -1]]
    return np.moveaxis(((before + 2 * moved) + after) * np.float32(0.25), 0, axis)


def mean_of_five(planes: F32) -> F32:
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
    """See `crop.attenuate_in_synthetic`."""
    largest = np.pad(crop[..., 5], 2)
    for axis in (0, 1):
        largest = np.lib.stride_tricks.sliding_window_view(largest, 5, axis).max(-1)
    weights = np.pad(table[largest].astype(np.int32), 1, mode="edge")
    for axis in (0, 1):
        weights = np.lib.stride_tricks.sliding_window_view(weights, 3, axis).sum(-1)
    result: F32 = difference * (weights.astype(np.float32) * np.float32(1 / (9 * 255)))
    return np.where(weights == 9 * 255, difference, result)


def crop_out(
    difference: F32, crop: U8, picture: U8, conditioning: U8, place: tuple[float, float, float]
) -> U8:
    """Add f32 [3, rows, columns] to `picture` in place, by the opacity, the first conditioning
    map; returns the crop with the same added, u8 [rows, columns, 3]."""
    left, top, step = place
    levels = difference.transpose(1, 2, 0) * np.float32(255) + np.float32(NONE + 0.5)
    stored = np.ascontiguousarray(np.clip(levels, 0, 255), np.uint8)
    height, width = picture.shape[:2]
    zoom, half = np.float32(1 / step), np.float32(0.5)
    columns = (np.arange(width, dtype=np.float32) + half - np.float32(left)) * zoom
    rows = (np.arange(height, dtype=np.float32) + half - np.float32(top)) * zoom
    own_size = remap(stored, plane(columns, rows))
    picture[:] = add_weighted(picture, own_size, conditioning[..., 0])
    return add_weighted(crop[..., :3], stored, crop[..., 3])


def add_weighted(levels: U8, difference: U8, opacity: U8) -> U8:
    """Levels u8 [h, w, 3] with a stored difference of the same size, by opacity u8 [h, w]."""
    change = (difference.astype(np.int32) - NONE) * opacity[..., None].astype(np.int32)
    # Rounded half up; the shift is a division by 255 that is exact in this range.
    total = levels.astype(np.int32) + ((change * 257 + (1 << 15)) >> 16)
    return np.clip(total, 0, 255).astype(np.uint8)


def plane(columns: F32, rows: F32) -> F32:
    """Where each pixel of a grid comes from, f32 [rows, columns, 2]."""
    out = np.empty((len(rows), len(columns), 2), np.float32)
    out[..., 0], out[..., 1] = columns, rows[:, None]
    return out
