"""What one picture shows of the lower face, in a few numbers, taken while it is at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from lipstream.engine.types import F32, U8

PATCH_PX: Final = 24
_ALIGNED_PX: Final = 72  # the lower face at one size, so that sharpness can be compared
# Upright square over the lower face, in inter-ocular distances from the eyes' middle: from the
# nose's root down past the chin.
_HALF_WIDTH: Final = 0.85
_TOP: Final = 0.55
_EYES: Final = ((33, 133), (362, 263))


@dataclass(frozen=True, slots=True)
class FaceMeasures:
    """Of one face in one picture."""

    sharpness: float  # Laplacian energy over contrast of the mouth region
    patch: U8  # u8 [24, 24, 3], lower face, upright


def frame_signature(rgb: U8) -> F32:
    """f32 [16, 16, 3], 0 to 1: the picture at a glance, for finding cuts."""
    import cv2

    small = cv2.resize(rgb, (16, 16), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / 255.0


def measure_face(rgb: U8, landmarks: F32) -> FaceMeasures:
    """Measure the lower face of u8 [h, w, 3] at f32 [478, 3] px."""
    import cv2

    aligned = lower_face(rgb, landmarks, _ALIGNED_PX)
    grey = cv2.cvtColor(aligned, cv2.COLOR_RGB2GRAY).astype(np.float32)
    mouth = grey[_ALIGNED_PX // 4 : _ALIGNED_PX * 3 // 4, _ALIGNED_PX // 5 : _ALIGNED_PX * 4 // 5]
    edges = cv2.Laplacian(mouth, cv2.CV_32F, ksize=3)
    sharpness = float(edges.std() / (mouth.std() + 4.0))
    patch = cv2.resize(aligned, (PATCH_PX, PATCH_PX), interpolation=cv2.INTER_AREA)
    return FaceMeasures(sharpness, np.ascontiguousarray(patch, np.uint8))


def lower_face(rgb: U8, landmarks: F32, side_px: int) -> U8:
    """Lower face of u8 [h, w, 3], turned upright, as u8 [side, side, 3]."""
    import cv2

    left = landmarks[list(_EYES[0]), :2].mean(axis=0)
    right = landmarks[list(_EYES[1]), :2].mean(axis=0)
    across = right - left
    # A turned head narrows the eyes' distance in the picture but not in space.
    iod = float(
        np.linalg.norm(
            landmarks[list(_EYES[1])].mean(axis=0) - landmarks[list(_EYES[0])].mean(axis=0)
        )
    )
    x_axis = across / max(float(np.linalg.norm(across)), 1e-6)
    y_axis = np.array([-x_axis[1], x_axis[0]])
    # The nose's root to its base gives the side step of a turned head.
    corner = (
        (left + right) / 2
        + y_axis * (_TOP * iod)
        - x_axis * (_HALF_WIDTH * iod)
        + x_axis * float(np.dot(landmarks[2, :2] - (left + right) / 2, x_axis))
    )
    scale = 2 * _HALF_WIDTH * iod / side_px
    matrix = np.array(
        [
            [x_axis[0] * scale, y_axis[0] * scale, corner[0]],
            [x_axis[1] * scale, y_axis[1] * scale, corner[1]],
        ]
    )
    aligned = cv2.warpAffine(
        rgb,
        matrix,
        (side_px, side_px),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(aligned, np.uint8)
