"""Where closed lips meet, read off a photo.

The landmarker puts the line between closed lips up to a few hundredths of the inter-ocular distance
beside the one that the picture shows. In footage other frames lend the open mouth; of a photo the
same lips are parted there, and what belongs to the other lip stays behind as a bright rim. Where
lips meet is the darkest line from corner to corner: it is found by dynamic programming, as live
wires are (Mortensen and Barrett, 1995), and the vertices of the lips are moved to it.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from lipstream.engine.face.mesh import LIPS
from lipstream.engine.face.model import VERTICES, FaceModel, fit_pose
from lipstream.engine.retrieval.viterbi import Transitions, viterbi
from lipstream.engine.types import F32, I32, U8
from lipstream.kernels.mesh import remap

_CLOSED: Final = 0.03  # inter-ocular distances between the lips, up to which they are closed
_REACH: Final = 0.45  # of a lip's thickness, as far as the line may lie within it
_FARTHEST: Final = 0.06  # inter-ocular distances
_STEPS: Final = 21  # up and as many down
_COLUMNS: Final = 61
_CORNERS: Final = 0.12  # of the width on either side, where skin is as dark as the line
_STIFF: Final = 1.5  # levels that a bend by one step a column costs, by its square
_STEEPEST: Final = 4  # steps a column; more costs no more
_HELD: Final = 6.0  # levels that lying as far off as may be costs
_LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)


def snap_to_lip_contact(photo: U8, landmarks: F32, model: FaceModel) -> F32:
    """Landmarks f32 [≥468, 3], px, with closed lips where the photo u8 [h, w, 3] shows them to
    meet; as they are if the lips are open."""
    pose = fit_pose(landmarks[None], model.mean, model.rigid)
    free = pose.remove(landmarks[None, :VERTICES])[0]
    upper, lower, outer_upper, outer_lower = free[LIPS]
    if (lower - upper)[:, 1].max() > _CLOSED:
        return landmarks
    middle = (upper + lower) / 2
    across = np.linspace(middle[0, 0], middle[-1, 0], _COLUMNS)
    line, depth = (np.interp(across, middle[:, 0], middle[:, axis]) for axis in (1, 2))
    high, low = (np.interp(across, x, y) for x, y, _ in (outer_upper.T, outer_lower.T))
    up = np.clip(_REACH * (line - high), 0, _FARTHEST)
    down = np.clip(_REACH * (low - line), 0, _FARTHEST)
    share = np.linspace(-1, 1, 2 * _STEPS + 1)
    off = np.where(share < 0, up[:, None] * share, down[:, None] * share)  # f64 [columns, steps]
    points = np.stack(np.broadcast_arrays(across[:, None], line[:, None] + off, depth[:, None]), -1)
    placed = pose.apply(points.reshape(1, -1, 3).astype(np.float32))[..., :2]
    seen = remap(photo, np.ascontiguousarray(placed))
    luma = (seen.astype(np.float32) @ _LUMA).reshape(off.shape)
    cost = luma - np.median(luma, 1, keepdims=True) + _HELD * share**2
    path = off[np.arange(_COLUMNS), _smoothest(cost.astype(np.float32))]
    # The corners are dark all over; there the line goes on to where the landmarker saw them.
    sure = np.clip(np.minimum(across - across[0], across[-1] - across), 0, None)
    path *= np.clip(sure / (_CORNERS * (across[-1] - across[0])), 0, 1)

    moved = free.copy()
    x, y = free[:, 0], free[:, 1]
    shift, seam, top, base = (np.interp(x, across, row) for row in (path, line, high, low))
    inside = (x > across[0]) & (x < across[-1]) & (y > top) & (y < base)
    above, below = np.maximum(seam - top, 1e-3), np.maximum(base - seam, 1e-3)
    nearness = np.minimum((y - top) / above, (base - y) / below)  # 0 at the outline, 1 at the seam
    moved[inside, 1] += (shift * np.clip(nearness, 0, 1))[inside]
    told = landmarks.copy()
    told[:VERTICES] = pose.apply(moved[None].astype(np.float32))[0]
    return told


def _smoothest(cost: F32) -> I32:
    """The row of each column f32 [columns, rows] on the path that costs least, i32 [columns]."""
    rows, bend = np.arange(cost.shape[1])[:, None], np.arange(1 - _STEEPEST, _STEEPEST)
    before = np.clip(rows + bend, 0, len(rows) - 1).astype(np.int32)
    ways = np.where(before == rows + bend, _STIFF * bend**2, np.inf).astype(np.float32)
    return viterbi(Transitions(before, ways, _STIFF * _STEEPEST**2), cost)
