"""What makes a photo unfit: a face beyond the border, and a mask over the mouth."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from lipstream.calibration.photo.checks import find_mirrored, photo_faults
from lipstream.calibration.tracking.landmarker import Face, Landmarker
from lipstream.engine.errors import CalibrationError

PHOTO = np.ascontiguousarray(data.astronaut()[0:300, 74:374, :3])
PATH = Path("p.jpg")


@pytest.fixture(scope="module")
def face(landmarker: Landmarker) -> Face:
    (found,) = landmarker.faces(PHOTO)
    return found


def test_a_whole_face_has_no_faults(face: Face) -> None:
    assert photo_faults(PATH, PHOTO, face) == ()


def cropped(landmarker: Landmarker, photo: np.ndarray) -> tuple[np.ndarray, Face]:
    photo = np.ascontiguousarray(photo)
    (found,) = landmarker.faces(photo)
    return photo, found


def test_a_chin_beyond_the_border_is_a_fault(landmarker: Landmarker, face: Face) -> None:
    chin, lip = face.landmarks[152, 1], face.landmarks[17, 1]
    photo, found = cropped(landmarker, PHOTO[: int(0.3 * lip + 0.7 * chin)])
    assert photo_faults(PATH, photo, found) == ("The chin lies beyond the border of the photo.",)


def test_a_mouth_beyond_the_border_is_refused(landmarker: Landmarker, face: Face) -> None:
    photo, found = cropped(landmarker, PHOTO[: int(face.landmarks[14, 1])])
    with pytest.raises(CalibrationError, match=r"p\.jpg: the mouth lies beyond the border"):
        photo_faults(PATH, photo, found)


def test_half_a_face_is_refused(landmarker: Landmarker, face: Face) -> None:
    for photo in (
        PHOTO[:, int(face.landmarks[168, 0] - 5) :],
        PHOTO[:, : int(face.landmarks[168, 0] + 5)],
    ):
        faces = landmarker.faces(np.ascontiguousarray(photo))
        for found in faces:  # where none is found, calibration says so
            with pytest.raises(CalibrationError, match="beyond the border"):
                photo_faults(PATH, photo, found)


@pytest.mark.parametrize("color", [(235, 235, 240), (120, 170, 220), (20, 20, 20)])
def test_a_mask_over_the_mouth_is_a_fault(face: Face, color: tuple[int, int, int]) -> None:
    outline = [227, 118, 197, 347, 447, 361, 397, 377, 152, 148, 172, 132]
    mask = np.zeros(PHOTO.shape[:2], np.uint8)
    cv2.fillPoly(mask, [face.landmarks[outline, :2].round().astype(np.int32)], 1)
    shade = cv2.GaussianBlur(PHOTO, (0, 0), 6).astype(float).mean(axis=2, keepdims=True) / 255
    photo = PHOTO.copy()
    photo[mask > 0] = (np.array(color) * (0.6 + 0.4 * shade))[mask > 0].astype(np.uint8)
    assert photo_faults(PATH, photo, face) == ("Something covers the mouth.",)


def fingers(photo: np.ndarray, face: Face, degrees: float, seed: int) -> np.ndarray:
    """Four fingers of the face's own color across the mouth."""
    landmarks = face.landmarks
    eyes = landmarks[[33, 133], :2].mean(0), landmarks[[362, 263], :2].mean(0)
    scale = float(np.linalg.norm(eyes[0] - eyes[1]))
    x, y = landmarks[[13, 14], :2].mean(0)
    skin = np.median([photo[int(r), int(c)] for c, r in landmarks[[151, 108, 337, 9], :2]], axis=0)
    rows, columns = np.mgrid[: photo.shape[0], : photo.shape[1]]
    angle, width = np.radians(degrees), 0.24 * scale
    along = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
    across = (rows - y) * np.cos(angle) - (columns - x) * np.sin(angle)
    grain = np.random.default_rng(seed).standard_normal(photo.shape[:2]).astype(np.float32)
    grain = 8 * cv2.GaussianBlur(grain, (0, 0), 1.2)
    out = photo.astype(np.float32)
    for k in range(-2, 2):
        off = np.abs(across - (k + 0.5) * width * 1.02) / (width / 2)
        on = (off < 1) & (along > -scale * (0.55 + 0.08 * k)) & (along < 1.6 * scale)
        shade = 0.72 + 0.28 * np.sqrt(np.clip(1 - off**2, 0, 1))
        out[on] = (0.95 * skin * shade[..., None] + grain[..., None])[on]
    return np.clip(cv2.GaussianBlur(out, (0, 0), 0.8), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("degrees", [25, 60, 90])
def test_a_hand_over_the_mouth_is_a_fault(
    landmarker: Landmarker, face: Face, degrees: float
) -> None:
    photo, found = cropped(landmarker, fingers(PHOTO, face, degrees, seed=0))
    mirrored = find_mirrored(photo, landmarker)
    assert "Something covers the mouth." in photo_faults(PATH, photo, found, mirrored)


def test_the_mirror_image_of_a_whole_face_agrees_with_it(
    landmarker: Landmarker, face: Face
) -> None:
    mirrored = find_mirrored(PHOTO, landmarker)
    assert mirrored is not None
    scale = np.linalg.norm(face.landmarks[33, :2] - face.landmarks[263, :2])
    assert np.median(np.linalg.norm(mirrored - face.landmarks[:468, :2], axis=1)) < 0.03 * scale
    assert photo_faults(PATH, PHOTO, face, mirrored) == ()


def test_a_cartoon_is_a_fault(face: Face) -> None:
    drawn = PHOTO
    for _ in range(5):
        drawn = cv2.bilateralFilter(drawn, 9, 40, 9)
    drawn = (drawn // 40 * 40 + 20).astype(np.uint8)
    assert photo_faults(PATH, drawn, face) == (
        "The face looks drawn or painted; expected a photograph.",
    )
