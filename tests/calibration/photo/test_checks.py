"""What makes a photo unfit: a face beyond the border, and a mask over the mouth."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from lipstream.calibration import assets
from lipstream.calibration.photo.checks import photo_faults
from lipstream.calibration.tracking.landmarker import Face, Landmarker
from lipstream.engine.errors import AssetError, CalibrationError

PHOTO = np.ascontiguousarray(data.astronaut()[0:300, 74:374, :3])
PATH = Path("p.jpg")


@pytest.fixture(scope="module")
def landmarker() -> Landmarker:
    path = assets.find()
    if path is None:
        pytest.skip("no face landmarker here: lipstream assets fetch")
    try:
        return Landmarker(path)
    except AssetError as error:
        pytest.skip(str(error))


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
