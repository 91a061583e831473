"""Eyes of a photo: the lid covers the eye with skin, and the iris moves without the lids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from lipstream.calibration.photo.eyes import EyePainter
from lipstream.engine.types import F32, U8
from tests.synthetic import SKIN, SyntheticFootage, make_footage

EYES = ((159, 145, 468), (386, 374, 473))  # upper lid, lower lid, iris


@dataclass(frozen=True)
class Photo:
    pixels: U8
    landmarks: F32


@pytest.fixture(scope="module")
def photo() -> Photo:
    footage: SyntheticFootage = make_footage(3, seed=5)
    return Photo(footage.frame(0), footage.landmarks[0])


def painted(photo: Photo, closed: float, gaze: tuple[float, float] = (0.0, 0.0)) -> U8:
    onto = photo.pixels.copy()
    EyePainter(photo.pixels, photo.landmarks).paint(onto, closed, gaze)
    return onto


def openings(photo: Photo) -> list[tuple[slice, slice]]:
    """Rows and columns in the middle of either eye."""
    boxes = []
    for upper, lower, _ in EYES:
        x, top = photo.landmarks[upper, :2].astype(int)
        bottom = int(photo.landmarks[lower, 1])
        boxes.append((slice(top + 1, bottom), slice(x - 2, x + 3)))
    return boxes


def test_open_eyes_that_look_ahead_are_those_of_the_photo(photo: Photo) -> None:
    assert (painted(photo, 0.0) == photo.pixels).all()


def test_a_closed_lid_is_skin(photo: Photo) -> None:
    shut = painted(photo, 1.0)
    for box in openings(photo):
        before = np.abs(photo.pixels[box].astype(float) - SKIN).mean()
        rows = slice(box[0].start, box[0].stop - 3)  # lashes lie below
        after = np.abs(shut[rows, box[1]].astype(float) - SKIN).mean()
        assert after < 0.5 * before


def test_a_lid_falls_steadily(photo: Photo) -> None:
    """What is seen of the eye shrinks with each step, from above."""
    for box in openings(photo):
        before = photo.pixels[box].astype(float)
        whole = np.abs(painted(photo, 1.0)[box] - before).mean()
        covered = [np.abs(painted(photo, c)[box] - before).mean() / whole for c in (0.3, 0.6)]
        assert 0.1 < covered[0] < covered[1] - 0.1 < 0.9


def test_no_pixel_moves_outside_the_eyes(photo: Photo) -> None:
    changed = (painted(photo, 1.0) != photo.pixels).any(axis=2)
    changed |= (painted(photo, 0.0, (0.03, 0.01)) != photo.pixels).any(axis=2)
    scale = float(np.linalg.norm(photo.landmarks[33, :2] - photo.landmarks[263, :2])) / 1.45
    rows, columns = np.nonzero(changed)
    distance = np.min(
        [
            np.hypot(columns - photo.landmarks[iris, 0], rows - photo.landmarks[iris, 1])
            for *_, iris in EYES
        ],
        axis=0,
    )
    assert distance.max() < 0.4 * scale


def test_gaze_moves_the_iris_and_not_the_lids(photo: Photo) -> None:
    shift = 0.03
    looking = painted(photo, 0.0, (shift, 0.0)).astype(float)
    scale = float(np.linalg.norm(photo.landmarks[33, :2] - photo.landmarks[263, :2])) / 1.45
    for upper, lower, iris in EYES:
        x, y = photo.landmarks[iris, :2]
        row = slice(int(y) - 1, int(y) + 2)
        across = slice(int(x - 0.2 * scale), int(x + 0.2 * scale))
        dark = [
            255 - f[row, across].mean(axis=(0, 2)) for f in (photo.pixels.astype(float), looking)
        ]
        centres = [(d**4 @ np.arange(len(d))) / (d**4).sum() for d in dark]
        assert centres[1] - centres[0] > 0.3 * shift * scale
        for lid, away in ((upper, -2), (lower, 2)):
            column, edge = photo.landmarks[lid, :2].astype(int)
            patch = np.s_[edge + away : edge + away + 1, column - 3 : column + 4]
            assert (looking[patch] == photo.pixels[patch]).all()


def test_without_irises_they_are_taken_to_look_ahead(photo: Photo) -> None:
    onto = photo.pixels.copy()
    EyePainter(photo.pixels, photo.landmarks[:468]).paint(onto, 0.0, (0.02, 0.0))
    assert (onto != photo.pixels).any()


def test_an_eye_that_is_turned_away_is_left_as_it_is(photo: Photo) -> None:
    narrow = photo.landmarks.copy()
    left = [33, 246, 161, 160, 159, 158, 157, 173, 133]
    narrow[left, 0] = narrow[33, 0] + np.arange(9) * 0.1
    onto = photo.pixels.copy()
    EyePainter(photo.pixels, narrow).paint(onto, 1.0, (0.0, 0.0))
    upper, lower, _ = EYES[0]
    x, y = photo.landmarks[[upper, lower], :2].mean(0).astype(int)
    assert (onto[y, x] == photo.pixels[y, x]).all()
