"""Judges a photo by itself: is the face whole, seen from the front, photographed, and its mouth
uncovered?"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipstream.calibration.media.color import LUMA
from lipstream.calibration.tracking.landmarker import Face, Landmarker
from lipstream.calibration.tracking.raw_track import inter_ocular_px
from lipstream.calibration.tracking.rejection import (
    PROFILE_DEGREES,
    SMALL_FACE_PX,
    yaw_degrees,
)
from lipstream.engine.errors import CalibrationError
from lipstream.engine.face.model import FACE_OVAL, face_model
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
# A mouth that the landmarker has to guess lies elsewhere in the mirrored photo: mean distance, in
# inter-ocular distances, that does for a mouth without lips, and for any.
_GUESSED_MOUTH: Final = (0.028, 0.075)
_GUESSED: Final = (61, 291, 0, 17, 13, 14, 39, 269, 181, 405, 78, 308)
_DRAWN: Final = 18.0  # gradients of the face, 99th percentile over median; photos have up to 17
_DRAWN_SCALE_PX: Final = 64  # between the eyes, at which they are taken


def photo_faults(path: Path, photo: U8, face: Face, mirrored: F32 | None = None) -> tuple[str, ...]:
    """Reasons why a target of this photo, u8 [h, w, 3], would be poor.

    mirrored: landmarks f32 [≥468, 3] found in the photo's mirror image, and mirrored back.

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
    if _covered(photo, face.landmarks, mirrored):
        faults.append("Something covers the mouth.")
    elif _drawn(photo, face.landmarks):  # what covers a mouth may itself be flat
        faults.append("The face looks drawn or painted; expected a photograph.")
    return tuple(faults)


def find_mirrored(photo: U8, landmarker: Landmarker) -> F32 | None:
    """Landmarks f32 [468, 2] of the largest face in the mirrored photo, mirrored back.

    None where no face is found in it.
    """
    faces = landmarker.faces(np.ascontiguousarray(photo[:, ::-1]))
    if not faces:
        return None
    largest = max(faces, key=lambda face: face.box[2])
    mean = face_model().mean
    mirror = mean * np.array([-1, 1, 1], np.float32)
    other = ((mirror[:, None] - mean[None]) ** 2).sum(2).argmin(1)
    back = largest.landmarks[other, :2].copy()
    back[:, 0] = photo.shape[1] - back[:, 0]
    return back


def _beyond(photo: U8, points: F32) -> NDArray[np.bool_]:
    """bool [n]: which points f32 [n, >=2] lie on or beyond the border of u8 [h, w, 3]."""
    high = np.array([photo.shape[1] - 1, photo.shape[0] - 1])
    outside = (points[:, :2] <= 0) | (points[:, :2] >= high)
    return outside[:, 0] | outside[:, 1]


def _covered(photo: U8, landmarks: F32, mirrored: F32 | None) -> bool:
    """Whether a mask or a hand hides the mouth.

    A mask: its color is not the forehead's, and no lips show. A hand: the mouth has to be guessed.
    """
    upper, lower, lips, around = (
        _colors(photo, landmarks, vertices)
        for vertices in (_UPPER_SKIN, _LOWER_SKIN, _LIPS, _ROUND_LIPS)
    )
    distance = float(np.linalg.norm(np.median(upper, axis=0) - np.median(lower, axis=0)))
    contrast = float(np.linalg.norm(np.median(lips, axis=0) - np.median(around, axis=0)))
    without_lips = contrast < _LIP_CONTRAST
    guessed = 0.0 if mirrored is None else _mouth_distance(landmarks, mirrored)
    lipless, any_mouth = _GUESSED_MOUTH
    return (
        (distance > _MASK_DISTANCE and without_lips)
        or (guessed > lipless and without_lips)
        or guessed > any_mouth
    )


def _mouth_distance(landmarks: F32, mirrored: F32) -> float:
    """Mean distance of the mouth's landmarks to those of the mirrored photo, inter-ocular."""
    apart = mirrored[:, :2] - landmarks[: len(mirrored), :2]
    apart = apart - np.median(apart[[*_EYES, 1, 168]], axis=0)
    return float(
        np.linalg.norm(apart[list(_GUESSED)], axis=1).mean() / inter_ocular_px(landmarks[None])[0]
    )


def _drawn(photo: U8, landmarks: F32) -> bool:
    """Whether the face has the flat areas and hard edges of a drawing; light shades a real one."""
    import cv2

    scale = min(1.0, _DRAWN_SCALE_PX / float(inter_ocular_px(landmarks[None])[0]))
    outline = landmarks[list(FACE_OVAL), :2]
    low = np.maximum(outline.min(0).astype(int), 0)
    high = np.minimum(np.ceil(outline.max(0)).astype(int), (photo.shape[1], photo.shape[0]))
    face = np.ascontiguousarray(photo[low[1] : high[1], low[0] : high[0]])
    small = cv2.resize(face, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    inside = np.zeros(small.shape[:2], np.uint8)
    cv2.fillPoly(inside, [((outline - low) * scale).round().astype(np.int32)], (1,))
    luma = small.astype(np.float32) @ LUMA
    gradient = np.hypot(
        cv2.Sobel(luma, cv2.CV_32F, 1, 0, scale=1 / 8),
        cv2.Sobel(luma, cv2.CV_32F, 0, 1, scale=1 / 8),
    )[inside > 0]
    usual, sharpest = np.percentile(gradient, (50, 99))
    return bool(sharpest / (usual + 0.1) > _DRAWN)


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
