"""Measurements of the lower face in one frame: its sharpness, and the colors of its skin."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.face.model import (
    INNER_LOWER_LIP,
    INNER_UPPER_LIP,
    LEFT_EYE,
    RIGHT_EYE,
    face_model,
)
from lipstream.engine.types import F32, U8

_ALIGNED_PX: Final = 96  # side of the aligned lower face, so that sharpness is comparable
# Upright square over the lower face, in inter-ocular distances from the midpoint of the eyes: from
# the root of the nose to below the chin.
_HALF_WIDTH: Final = 0.85
_TOP: Final = 0.55
_MOUTH: Final = slice(_ALIGNED_PX // 5, _ALIGNED_PX * 4 // 5)
_COARSE_PX: Final = 6
_CHEEKS: Final = (50, 280, 205, 425)  # vertices
_LIP_PX: Final = 5
_SKIN_TOP: Final = 0.75  # skin below this is compared; the eyes are at 0, the chin at about 1.9


@dataclass(frozen=True, slots=True)
class FaceMetrics:
    """Measurements of one face in one frame."""

    sharpness: float  # fine over coarse detail around the mouth, along the softer axis
    skin: U8  # u8 [P, 3], colors at `skin_points`


@cache
def skin_points() -> tuple[NDArray[np.int64], F32]:
    """Points where skin is compared: vertices i64 [P, 3] whose mean is the point, and its position
    f32 [P, 2] on the mean face.

    They are the centres of the mesh's triangles below the tip of the nose, with the lips and
    without the open mouth, and move with the skin when the jaw drops.
    """
    model = face_model()
    places = model.mean[model.triangles][:, :, :2].mean(axis=1)
    inner = np.isin(model.triangles, INNER_UPPER_LIP + INNER_LOWER_LIP).all(axis=1)
    # The outermost triangles lie on the outline, half on hair, collar or background.
    wide = np.abs(places[:, 0]) > 0.72
    keep = (places[:, 1] > _SKIN_TOP) & ~inner & ~wide
    return model.triangles[keep].astype(np.int64), places[keep].astype(np.float32)


def cheek_color(rgb: U8, landmarks: F32) -> F32:
    """Median color of the cheeks in u8 [h, w, 3] at f32 [≥468, ≥2] px, f32 [3]."""
    patches = []
    for x, y in landmarks[list(_CHEEKS), :2]:
        column, row = int(np.clip(x, 3, rgb.shape[1] - 4)), int(np.clip(y, 3, rgb.shape[0] - 4))
        patches.append(rgb[row - 3 : row + 4, column - 3 : column + 4].reshape(-1, 3))
    return np.median(np.concatenate(patches), axis=0).astype(np.float32)


def frame_signature(rgb: U8) -> F32:
    """The frame at 16 × 16, f32 [16, 16, 3], 0 to 1, for detecting cuts."""
    import cv2

    small = cv2.resize(rgb, (16, 16), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32) / np.float32(255.0)


def measure_face(rgb: U8, landmarks: F32) -> FaceMetrics:
    """Measure the lower face of u8 [h, w, 3] at f32 [478, 3] px."""
    import cv2

    matrix = _to_aligned(landmarks)
    shrink = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    aligned = cv2.warpAffine(
        _softened(rgb, landmarks, shrink),
        matrix,
        (_ALIGNED_PX, _ALIGNED_PX),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    inner = landmarks[list(INNER_UPPER_LIP + INNER_LOWER_LIP[::-1]), :2]
    hole = np.zeros((_ALIGNED_PX, _ALIGNED_PX), np.uint8)
    cv2.fillPoly(hole, [np.round(inner @ matrix[:, :2].T + matrix[:, 2]).astype(np.int32)], 1)
    skin = cv2.dilate(hole, np.ones((_LIP_PX, _LIP_PX), np.uint8)) == 0
    grey = cv2.cvtColor(aligned, cv2.COLOR_RGB2GRAY).astype(np.float32)
    sharpness = _sharpness(grey[_MOUTH, _MOUTH], skin[_MOUTH, _MOUTH])
    vertices, _ = skin_points()
    at = landmarks[vertices][:, :, :2].mean(axis=1) @ matrix[:, :2].T + matrix[:, 2]
    smooth = cv2.blur(aligned, (5, 5))
    column = np.clip(at[:, 0] + 0.5, 0, _ALIGNED_PX - 1).astype(np.int64)
    row = np.clip(at[:, 1] + 0.5, 0, _ALIGNED_PX - 1).astype(np.int64)
    return FaceMetrics(sharpness, np.ascontiguousarray(smooth[row, column], np.uint8))


def _sharpness(grey: F32, skin: NDArray[np.bool_]) -> float:
    """Fine over coarse detail of f32 [h, w] where `skin` bool [h, w], along the softer axis.

    The ratio does not depend on how much detail there is. Teeth are left out: they appear and
    vanish with speech, and are sharper than any lip.
    """
    ratios = []
    for axis in (0, 1):
        fine = np.diff(grey, axis=axis)[_both(skin, 1, axis)]
        coarse = _differences(grey, _COARSE_PX, axis)[_both(skin, _COARSE_PX, axis)]
        ratios.append(float(fine.std() * _COARSE_PX / (coarse.std() + 3.0)) if fine.size else 0.0)
    return min(ratios)


def _differences(grey: F32, step: int, axis: int) -> F32:
    """Differences of values at a distance of `step`."""
    ahead = np.moveaxis(grey, axis, 0)
    return np.moveaxis(ahead[step:] - ahead[:-step], 0, axis)


def _both(skin: NDArray[np.bool_], step: int, axis: int) -> NDArray[np.bool_]:
    ahead = np.moveaxis(skin, axis, 0)
    return np.moveaxis(ahead[step:] & ahead[:-step], 0, axis)


def _softened(rgb: U8, landmarks: F32, shrink: float) -> U8:
    """The frame, averaged around the face if it will shrink, so that sampling does not alias."""
    import cv2

    size = int(1 / max(shrink, 1e-3))
    if size < 2:
        return rgb
    x0, y0 = np.maximum(landmarks[:, :2].min(axis=0) - 4 * size, 0).astype(int)
    x1, y1 = (landmarks[:, :2].max(axis=0) + 4 * size).astype(int)
    if x1 <= x0 or y1 <= y0:
        return rgb
    out = rgb.copy()
    out[y0:y1, x0:x1] = cv2.blur(rgb[y0:y1, x0:x1], (size, size))
    return out


def _to_aligned(landmarks: F32) -> NDArray[np.float64]:
    """The affine map f64 [2, 3] from frame px to the aligned lower face."""
    left, right = landmarks[list(LEFT_EYE)].mean(axis=0), landmarks[list(RIGHT_EYE)].mean(axis=0)
    middle = (left + right)[:2] / 2
    # A turned head reduces the distance of the eyes in the frame but not in space.
    iod = max(float(np.linalg.norm(right - left)), 1e-3)
    across = (right - left)[:2]
    x_axis = across / max(float(np.linalg.norm(across)), 1e-6)
    y_axis = np.array([-x_axis[1], x_axis[0]])
    # A turned head also moves the mouth sideways relative to the eyes.
    aside = float(np.dot(landmarks[2, :2] - middle, x_axis))
    corner = middle + y_axis * (_TOP * iod) + x_axis * (aside - _HALF_WIDTH * iod)
    turn = np.stack([x_axis, y_axis]) * (_ALIGNED_PX / (2 * _HALF_WIDTH * iod))
    return np.concatenate([turn, -(turn @ corner)[:, None]], axis=1)
