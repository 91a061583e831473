"""The twins of the kernels of `cuda/lipstream.cu`, one by one, of one row of a batch.

h, w: sides of the picture; rows, columns: of the crop. `lipstream.engine.rendering.refiner` says
what they make together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lipstream.kernels.reference import crop as whole
from lipstream.kernels.reference.mesh import remap

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
Place = tuple[float, float, float]


def crop(
    picture: U8,
    conditioning: U8,
    prior: U8 | None,
    previous: U8 | None,
    place: Place,
    shape: tuple[int, int],
    doubt: float,
    synthetic: int,
) -> tuple[U8, F32]:
    """ls_gpu_crop: crop u8 [rows, columns, 6] and planes f32 [12, rows, columns].

    doubt: 1 less the confidence in the prior, where the gap is `synthetic` and more.
    """
    pixels, planes = whole.crop_in(picture, conditioning, prior, previous, place, shape)
    if prior is not None:
        gap = np.minimum(pixels[..., 5].astype(np.float32) * np.float32(1 / synthetic), 1)
        less = 1 - (1 - np.float32(doubt) * gap)
        planes[6:9] += less * (planes[:3] - planes[6:9])
    return pixels, planes


def near_gap(crop: U8, table: U8) -> U8:
    """ls_gpu_near_gap: u8 [rows, columns], of the largest last map within 5 x 5."""
    largest = np.pad(crop[..., 5], 2)
    for axis in (0, 1):
        largest = np.lib.stride_tricks.sliding_window_view(largest, 5, axis).max(-1)
    return table[largest]


def mean_once(planes: F32) -> F32:
    """ls_gpu_mean_once: f32 [6, rows, columns], means of 5 x 5 of the prior less the painted crop,
    and of the painted crop."""
    painted = planes[:3]
    both: F32 = np.concatenate([planes[6:9] - painted, painted])
    return whole.mean_of_five(both)


def gates(gates: F32, planes: F32, once: F32, weights: U8, has_prior: bool) -> F32:
    """ls_gpu_gates: the difference, f32 [3, rows, columns]. A gate that is no number is closed."""
    given = gates
    if has_prior:
        own = _kept(weights)
        shown = np.array([1, 1, 0], np.float32)[:, None, None]
        given = np.where(own < 1, shown + own * (gates - shown), gates)
    least = np.array([0, 0, -0.5], np.float32)[:, None, None]
    bounded = np.where(given > least, given, least)
    coarse, fine, sharp = np.where(bounded < 1, bounded, np.float32(1))
    painted, apart = planes[:3], planes[6:9] - planes[:3]
    low, soft = np.split(whole.mean_of_five(once), 2)
    result: F32 = (coarse * low + fine * (apart - low)) + sharp * (painted - soft)
    return result


def grid_along(difference: F32) -> F32:
    """ls_gpu_grid_along: f32 [3, rows, columns] less what alternates along rows."""
    return whole.without_alternation(difference, 2)


def grid_across(spare: F32, crop: U8) -> tuple[F32, F32]:
    """ls_gpu_grid_across: the difference less what alternates across rows, and the crop with it;
    both f32 [3, rows, columns]."""
    difference = whole.without_alternation(spare, 1)
    colour = np.ascontiguousarray(crop[..., :3].transpose(2, 0, 1), np.float32)
    return difference, colour * np.float32(1 / 255) + difference


def sharpen(
    difference: F32, refined: F32, crop: U8, weights: U8 | None, amount: float
) -> tuple[U8, U8]:
    """ls_gpu_sharpen: the difference in levels, and the crop with it; both u8 [rows, columns, 3].

    weights: of `near_gap`; None with a prior, where all of the difference stays.
    """
    fine = whole.three(whole.three(refined, 1), 2) - whole.mean_of_five(refined)
    change = difference + np.float32(amount) * fine
    if weights is not None:
        own = _kept(weights)
        change = np.where(own < 1, change * own, change)
    levels = change.transpose(1, 2, 0) * np.float32(255) + np.float32(whole.NONE + 0.5)
    stored = np.ascontiguousarray(np.clip(levels, 0, 255), np.uint8)
    return stored, whole.add_weighted(crop[..., :3], stored, crop[..., 3])


def paste(picture: U8, conditioning: U8, stored: U8, place: Place) -> U8:
    """ls_gpu_paste: the picture u8 [h, w, 3] with what was stored of its crop."""
    left, top, step = place
    height, width = picture.shape[:2]
    zoom, half = np.float32(1 / step), np.float32(0.5)
    columns = (np.arange(width, dtype=np.float32) + half - np.float32(left)) * zoom
    rows = (np.arange(height, dtype=np.float32) + half - np.float32(top)) * zoom
    own_size = remap(stored, whole.plane(columns, rows))
    return whole.add_weighted(picture, own_size, conditioning[..., 0])


def _kept(weights: U8) -> F32:
    """The mean of 3 x 3 of u8 [rows, columns], 0 to 1; the border repeats."""
    total = np.pad(weights.astype(np.int32), 1, mode="edge")
    for axis in (0, 1):
        total = np.lib.stride_tricks.sliding_window_view(total, 3, axis).sum(-1)
    kept = total.astype(np.float32) * np.float32(1 / (9 * 255))
    return np.where(total == 9 * 255, np.float32(1), kept)
