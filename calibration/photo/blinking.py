"""Blinks of a photo: when, how fast, and how the lids move."""

from __future__ import annotations

import numpy as np

from lipstream.engine.types import F32

LOOP_FRAMES = 300  # 12 s, as long as the idle motion
_BLINKS = (41, 118, 133, 224)  # first frames; two form a double blink
_BLINK_SHAPE = (0.35, 0.85, 1.0, 0.7, 0.35, 0.1)
# Upper and lower lid, corner to corner, of the eye on the image's left and right.
_LIDS = (
    ((246, 161, 160, 159, 158, 157, 173), (7, 163, 144, 145, 153, 154, 155)),
    ((398, 384, 385, 386, 387, 388, 466), (382, 381, 380, 374, 373, 390, 249)),
)
_LID_CREASE = (
    (247, 30, 29, 27, 28, 56, 190),
    (414, 286, 258, 257, 259, 260, 467),
)


def blink_curve() -> F32:
    """How far the lids are closed in each frame, f32 [frames], 0 to 1."""
    closed = np.zeros(LOOP_FRAMES, np.float32)
    for start in _BLINKS:
        for k, amount in enumerate(_BLINK_SHAPE):
            closed[(start + k) % LOOP_FRAMES] = max(closed[(start + k) % LOOP_FRAMES], amount)
    return closed


def lower_lids(vertices: F32, closed: float) -> F32:
    """Canonical vertices f32 [468, 3] with the upper lids lowered by `closed`, 0 to 1."""
    if closed <= 0:
        return vertices
    moved = vertices.copy()
    for (upper, lower), crease in zip(_LIDS, _LID_CREASE, strict=True):
        meet = vertices[list(lower)] + 0.04 * (vertices[list(upper)] - vertices[list(lower)])
        fall = closed * (meet - vertices[list(upper)])
        moved[list(upper)] += fall
        moved[list(crease)] += 0.45 * fall
    return moved
