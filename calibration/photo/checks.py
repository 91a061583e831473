"""Judges a photo by itself: is the face whole, seen from the front, and its mouth uncovered?"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipstream.calibration.tracking.landmarker import Face
from lipstream.calibration.tracking.raw_track import inter_ocular_px
from lipstream.calibration.tracking.rejection import (
    PROFILE_DEGREES,
    SMALL_FACE_PX,
    yaw_degrees,
)
from lipstream.engine.errors import CalibrationError
from lipstream.engine.types import F32, U8

_MOUTH: Final = (61, 291, 0, 17, 13, 14)
_EYES: Final = (33, 133, 362, 263)
_CHIN: Final = (152, 148, 377, 176, 400)
_OUTLINE: Final = (234, 454, 132, 361, 172, 397)
# Patches of skin, of lips, and of the skin round the lips.
_UPPER_SKIN: Final = (151, 9, 8, 108, 337, 69, 299, 168, 6)  # above any mask
_LOWER_SKIN: Final = (164, 18, 200, 199, 214, 434, 216, 436, 212, 432)
_LIPS: Final = (37, 267, 39, 269, 84, 314, 181, 405, 17, 0)
_ROUND_LIPS: Final = (164, 165, 391, 18, 83, 313, 182, 406, 186, 410)
_MASK_DISTANCE: Final = 26.0  # CIE Lab, between the forehead and the skin below the nose
_LIP_CONTRAST: Final = 3.2  # CIE Lab; lips and beards differ by more


def photo_faults(path: Path, photo: U8, face: Face) -> tuple[str, ...]:
    """Reasons why a target of this photo, u8 [h, w, 3], would be poor.

    Raises:
        CalibrationError: eyes or mouth lie beyond the border, or the face is too small.
    """
    if _beyond(photo, face.landmarks[list(_MOUTH)]).any():
        raise CalibrationError(
            f"{path}: the mouth lies beyond the border of the photo; use one that shows the whole "
            "face"
        )
    if _beyond(photo, face.landmarks[list(_EYES)]).any():
        raise CalibrationError(
            f"{path}: half of the face lies beyond the border of the photo; use one that shows the "
            "whole face"
        )
    apart = float(inter_ocular_px(face.landmarks[None])[0])
    if apart < SMALL_FACE_PX:
        raise CalibrationError(
            f"{path}: the eyes are {apart:.0f} pixels apart; expected {SMALL_FACE_PX:.0f} or more"
        )
    faults: list[str] = []
    if _beyond(photo, face.landmarks[list(_CHIN)]).any():
        faults.append("The chin lies beyond the border of the photo.")
    elif _beyond(photo, face.landmarks[list(_OUTLINE)]).any():
        faults.append("A part of the face lies beyond the border of the photo.")
    if abs(float(yaw_degrees(face.transform[None])[0])) > PROFILE_DEGREES:
        faults.append("The head is turned too far away from the camera.")
    if _covered(photo, face.landmarks):
        faults.append("Something covers the mouth.")
    return tuple(faults)


def _beyond(photo: U8, points: F32) -> NDArray[np.bool_]:
    """bool [n]: which points f32 [n, >=2] lie on or beyond the border of u8 [h, w, 3]."""
    high = np.array([photo.shape[1] - 1, photo.shape[0] - 1])
    outside = (points[:, :2] <= 0) | (points[:, :2] >= high)
    return outside[:, 0] | outside[:, 1]


def _covered(photo: U8, landmarks: F32) -> bool:
    """Whether a mask hides the mouth: its color is not the forehead's, and no lips show."""
    upper, lower, lips, around = (
        _colors(photo, landmarks, vertices)
        for vertices in (_UPPER_SKIN, _LOWER_SKIN, _LIPS, _ROUND_LIPS)
    )
    distance = float(np.linalg.norm(np.median(upper, axis=0) - np.median(lower, axis=0)))
    contrast = float(np.linalg.norm(np.median(lips, axis=0) - np.median(around, axis=0)))
    return distance > _MASK_DISTANCE and contrast < _LIP_CONTRAST


def _colors(photo: U8, landmarks: F32, vertices: tuple[int, ...]) -> F32:
    """CIE Lab f32 [n, 3] of patches at vertices, a 25th of the inter-ocular distance wide."""
    import cv2

    half = max(1, round(float(inter_ocular_px(landmarks[None])[0]) / 50))
    colors = np.empty((len(vertices), 1, 3), np.float32)
    for k, (x, y) in enumerate(landmarks[list(vertices), :2]):
        column = int(np.clip(x, half, photo.shape[1] - 1 - half))
        row = int(np.clip(y, half, photo.shape[0] - 1 - half))
        patch = photo[row - half : row + half + 1, column - half : column + half + 1]
        colors[k, 0] = patch.reshape(-1, 3).mean(axis=0) / 255.0
    lab: F32 = cv2.cvtColor(colors, cv2.COLOR_RGB2Lab)[:, 0]
    return lab
