"""Finds where closed lips meet in a photo, and moves the lip landmarks there.

The landmarker places the contact line of closed lips up to a few hundredths of the inter-ocular
distance beside the visible one. In footage the open mouth comes from other frames. A photo's own
lips are parted along the line, and pixels of the wrong lip remain as a bright rim. The contact line
is the darkest path from corner to corner. It is found by dynamic programming, as live wires are
(Mortensen and Barrett, 1995), and the vertices of the lips are moved to it.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from lipstream.calibration.media.color import LUMA
from lipstream.engine.face.mesh import LIPS
from lipstream.engine.face.model import VERTICES, FaceModel, fit_pose
from lipstream.engine.retrieval.viterbi import Transitions, viterbi
from lipstream.engine.types import F32, I32, U8
from lipstream.kernels.mesh import remap

CLOSED: Final = 0.03  # inter-ocular distances; lips with a smaller gap are closed
_MAX_DEPTH: Final = 0.45  # of the thickness of a lip: how far into it the line may lie
_MAX_SHIFT: Final = 0.06  # inter-ocular distances
_STEPS: Final = 21  # candidates above the landmarks, and as many below
_COLUMNS: Final = 61
_CORNERS: Final = 0.12  # of the width at either end, where skin is as dark as the line
_SLOPE_COST: Final = 1.5  # levels, times the square of the steps from column to column
_MAX_SLOPE: Final = 4  # steps from column to column; more costs no more
_SHIFT_COST: Final = 6.0  # levels at the largest shift


def snap_to_lip_contact(photo: U8, landmarks: F32, model: FaceModel) -> F32:
    """Landmarks f32 [≥468, 3], px, with closed lips moved to where they meet in the photo
    u8 [h, w, 3]; unchanged if the lips are open."""
    pose = fit_pose(landmarks[None], model.mean, model.rigid)
    free = pose.remove(landmarks[None, :VERTICES])[0]
    upper, lower, outer_upper, outer_lower = free[LIPS]
    if (lower - upper)[:, 1].max() > CLOSED:
        return landmarks
    middle = (upper + lower) / 2
    across = np.linspace(middle[0, 0], middle[-1, 0], _COLUMNS)
    line, depth = (np.interp(across, middle[:, 0], middle[:, axis]) for axis in (1, 2))
    high, low = (np.interp(across, x, y) for x, y, _ in (outer_upper.T, outer_lower.T))
    up = np.clip(_MAX_DEPTH * (line - high), 0, _MAX_SHIFT)
    down = np.clip(_MAX_DEPTH * (low - line), 0, _MAX_SHIFT)
    step = np.linspace(-1, 1, 2 * _STEPS + 1)
    shifts = np.where(step < 0, up[:, None] * step, down[:, None] * step)  # f64 [columns, steps]
    points = np.stack(
        np.broadcast_arrays(across[:, None], line[:, None] + shifts, depth[:, None]), -1
    )
    placed = pose.apply(points.reshape(1, -1, 3).astype(np.float32))[..., :2]
    sampled = remap(photo, np.ascontiguousarray(placed))
    luma = (sampled.astype(np.float32) @ LUMA).reshape(shifts.shape)
    cost = luma - np.median(luma, 1, keepdims=True) + _SHIFT_COST * step**2
    path = shifts[
        np.arange(_COLUMNS), cheapest_path(cost.astype(np.float32), _SLOPE_COST, _MAX_SLOPE)
    ]
    # The corners are dark all over: towards them the line returns to the landmarks.
    inward = np.clip(np.minimum(across - across[0], across[-1] - across), 0, None)
    path *= np.clip(inward / (_CORNERS * (across[-1] - across[0])), 0, 1)

    moved = free.copy()
    x, y = free[:, 0], free[:, 1]
    shift, contact, top, base = (np.interp(x, across, row) for row in (path, line, high, low))
    inside = (x > across[0]) & (x < across[-1]) & (y > top) & (y < base)
    above, below = np.maximum(contact - top, 1e-3), np.maximum(base - contact, 1e-3)
    nearness = np.minimum(
        (y - top) / above, (base - y) / below
    )  # 0 at the outline, 1 at the contact
    moved[inside, 1] += (shift * np.clip(nearness, 0, 1))[inside]
    snapped = landmarks.copy()
    snapped[:VERTICES] = pose.apply(moved[None].astype(np.float32))[0]
    return snapped


def cheapest_path(cost: F32, slope_cost: float, max_slope: int) -> I32:
    """The row in each column, i32 [columns], on the cheapest path through f32 [columns, rows].

    slope_cost: of a step from column to column, times its square; steps of `max_slope` and more
    cost as much as that one.
    """
    rows, slope = np.arange(cost.shape[1])[:, None], np.arange(1 - max_slope, max_slope)
    before = np.clip(rows + slope, 0, len(rows) - 1).astype(np.int32)
    costs = np.where(before == rows + slope, slope_cost * slope**2, np.inf).astype(np.float32)
    return viterbi(Transitions(before, costs, slope_cost * max_slope**2), cost)
