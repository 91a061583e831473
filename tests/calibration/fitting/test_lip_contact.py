"""Closed lips of a photo are moved to the darkest line between them."""

from __future__ import annotations

import numpy as np
import pytest

from lipstream.calibration.fitting.lip_contact import snap_to_lip_contact
from lipstream.engine.face.model import (
    INNER_LOWER_LIP,
    INNER_UPPER_LIP,
    OUTER_LOWER_LIP,
    OUTER_UPPER_LIP,
    face_model,
)
from lipstream.engine.types import F32, U8

PX = 120.0  # per inter-ocular distance
SIZE = 480


def face(opening: float = 0.0, turned: float = 0.0) -> F32:
    """Landmarks f32 [468, 3], px, of a mean face with that lip opening and a tilted head."""
    model = face_model()
    opened = np.float32(opening) * model.opener()
    vertices = model.mean + np.tensordot(opened, model.basis, 1)
    if opening == 0:
        meet = (vertices[list(INNER_UPPER_LIP)] + vertices[list(INNER_LOWER_LIP)]) / 2
        vertices[list(INNER_UPPER_LIP)] = vertices[list(INNER_LOWER_LIP)] = meet
    c, s = np.cos(turned), np.sin(turned)
    rotation = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    placed: F32 = (vertices @ rotation * PX + [SIZE / 2, SIZE / 2, 0]).astype(np.float32)
    return placed


def photo(landmarks: F32, off: F32) -> U8:
    """Skin with a dark line `off` f32 [11] px below the inner upper lip, across it."""
    line = landmarks[list(INNER_UPPER_LIP), :2] + off[:, None] * np.array([0, 1], np.float32)
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    away = np.abs(y - np.interp(x, line[:, 0], line[:, 1]))
    dark = 70 * np.exp(-((away / 2.5) ** 2)) * ((x > line[0, 0]) & (x < line[-1, 0]))
    return np.repeat((150 - dark).astype(np.uint8)[..., None], 3, 2)


@pytest.mark.parametrize("turned", [0.0, 0.2])
def test_the_contact_moves_to_the_dark_line_and_the_outline_stays(turned: float) -> None:
    was = face(turned=turned)
    bent = 3 * np.sin(np.linspace(0, 2 * np.pi, 11)).astype(np.float32) - 1
    bent[[0, -1]] = 0
    snapped = snap_to_lip_contact(photo(was, bent), was, face_model())
    for lip in (INNER_UPPER_LIP, INNER_LOWER_LIP):
        moved = (snapped - was)[list(lip)[2:-2], 1]
        np.testing.assert_allclose(moved, bent[2:-2] * np.cos(turned), atol=0.8)
    outline = list(OUTER_UPPER_LIP + OUTER_LOWER_LIP)
    np.testing.assert_allclose(snapped[outline], was[outline], atol=0.01)
    beside = np.abs(snapped - was).max(1) > 0.05
    low, high = was[outline].min(0), was[outline].max(0)
    assert ((was[beside, :2] >= low[:2]) & (was[beside, :2] <= high[:2])).all()


def test_without_a_line_they_stay() -> None:
    was = face()
    snapped = snap_to_lip_contact(np.full((SIZE, SIZE, 3), 128, np.uint8), was, face_model())
    np.testing.assert_allclose(snapped, was, atol=0.01)


def test_the_contact_stays_within_the_lips() -> None:
    was = face()
    far = np.full(11, 40, np.float32)  # the line of a chin
    snapped = snap_to_lip_contact(photo(was, far), was, face_model())
    assert np.abs(snapped - was).max() < 0.06 * PX + 0.5


def test_open_lips_stay() -> None:
    was = face(opening=0.1)
    snapped = snap_to_lip_contact(photo(was, np.full(11, 3, np.float32)), was, face_model())
    np.testing.assert_array_equal(snapped, was)
