"""Canonical coordinates: the eyes one unit apart, their midpoint the origin, no head pose.

Geometry is a person's neutral face in these coordinates; expression is measured against it.
"""

from __future__ import annotations

import numpy as np

from lipstream.engine.face.model import LEFT_EYE, RIGHT_EYE
from lipstream.engine.types import F32


def to_canonical_units(vertices: F32) -> F32:
    """Vertices f32 [468, 3], moved and scaled so that the eyes are 1 apart round the origin."""
    left = vertices[list(LEFT_EYE)].mean(0)
    right = vertices[list(RIGHT_EYE)].mean(0)
    return ((vertices - (left + right) / 2) / np.linalg.norm(right - left)).astype(np.float32)


def neutral_face(free: F32) -> F32:
    """Neutral face f32 [468, 3] of pose-free frames f32 [N, 468, 3]: the median of those whose
    lips are closed."""
    opening = lip_opening(free)
    closed = opening <= max(0.12 * float(np.percentile(opening, 95)), float(opening.min()) + 0.004)
    if closed.sum() < 3:
        closed = opening <= np.percentile(opening, 10)
    return np.median(free[closed], axis=0).astype(np.float32)


def lip_opening(free: F32) -> F32:
    """Gap between the inner lips of pose-free vertices f32 [..., 468, 3], in their unit."""
    return np.linalg.norm(free[..., 14, :] - free[..., 13, :], axis=-1).astype(np.float32)
