"""Inner edges of open lips are moved to where teeth and shadow end in the photo."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from lipstream.calibration.fitting.lip_edges import snap_to_lip_edges
from lipstream.calibration.footage.sources import cut_source
from lipstream.engine.face.mesh import build_mesh
from lipstream.engine.face.model import (
    INNER_LOWER_LIP,
    INNER_UPPER_LIP,
    OUTER_LOWER_LIP,
    OUTER_UPPER_LIP,
    Pose,
    face_model,
    fit_pose,
)
from lipstream.engine.face.retarget import Placement
from lipstream.engine.rendering.compositor import Compositor
from lipstream.engine.target.oral_cavity import mouth_of
from lipstream.engine.types import F32, U8
from lipstream.kernels.color import i420_to_rgb, rgb_to_i420

MODEL = face_model()
PX = 120.0  # per inter-ocular distance
SIZE = 480
SKIN, LIP, TEETH, SHADOW = (205, 160, 140), (180, 100, 105), (235, 228, 215), (60, 30, 30)
OPEN = np.float32(0.2) * MODEL.opener()
INNER = np.linspace(-1, 1, 11)


def face(turned: float = 0.0) -> F32:
    """Landmarks f32 [468, 3], px, of a mean face that smiles openly, with a tilted head."""
    vertices = MODEL.mean + MODEL.displacement(OPEN)
    c, s = np.cos(turned), np.sin(turned)
    rotation = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    placed: F32 = (vertices @ rotation * PX + [SIZE / 2, SIZE / 2, 0]).astype(np.float32)
    return placed


def photo(landmarks: F32, up: F32, down: F32, teeth: tuple[int, int, int] = TEETH) -> U8:
    """Skin, lips, and teeth over shadow, whose edges lie `up` and `down` f32 [11] px outside of the
    landmarks of the inner lips."""
    picture = np.full((SIZE, SIZE, 3), SKIN, np.uint8)
    outline = OUTER_UPPER_LIP + OUTER_LOWER_LIP[::-1]
    upper, lower = (landmarks[list(k), :2].copy() for k in (INNER_UPPER_LIP, INNER_LOWER_LIP))
    upper[:, 1] -= up
    lower[:, 1] += down

    def fill(points: F32, color: tuple[int, int, int]) -> None:
        fixed = (points * 16).round().astype(np.int32)
        cv2.fillPoly(picture, [fixed], color, cv2.LINE_AA, 4)

    fill(landmarks[list(outline), :2], LIP)
    fill(np.concatenate([upper, lower[::-1]]), teeth)
    fill(np.concatenate([upper + 0.8 * (lower - upper), lower[::-1]]), SHADOW)
    noise = np.random.default_rng(0).normal(0, 3, picture.shape)
    blurred = cv2.GaussianBlur(picture, (0, 0), 0.8) + noise
    noisy: U8 = np.clip(blurred, 0, 255).astype(np.uint8)
    return noisy


def bump(px: float) -> F32:
    """f32 [11], px: 0 at the corners."""
    return (px * (1 - INNER**6)).astype(np.float32)


@pytest.mark.parametrize("turned", [0.0, 0.15])
@pytest.mark.parametrize(("up", "down"), [(4.0, 0.0), (0.0, 5.0), (3.0, 3.0)])
def test_edges_move_to_where_teeth_end(turned: float, up: float, down: float) -> None:
    was = face(turned)
    picture = photo(was, bump(up), bump(down))
    snapped = snap_to_lip_edges(picture, was, MODEL)
    inner = slice(2, -2)
    for lip, moved in ((INNER_UPPER_LIP, -bump(up)), (INNER_LOWER_LIP, bump(down))):
        found = (snapped - was)[list(lip), 1]
        np.testing.assert_allclose(found[inner], moved[inner], atol=1.6)
    outline = list(OUTER_UPPER_LIP + OUTER_LOWER_LIP)
    np.testing.assert_allclose(snapped[outline], was[outline], atol=0.1)


def test_edges_that_are_right_stay() -> None:
    was = face()
    snapped = snap_to_lip_edges(photo(was, bump(0), bump(0)), was, MODEL)
    np.testing.assert_allclose(snapped, was, atol=1.6)  # the blur of an edge


def test_closed_lips_stay() -> None:
    was = (MODEL.mean * PX + [SIZE / 2, SIZE / 2, 0]).astype(np.float32)
    snapped = snap_to_lip_edges(photo(was, bump(3), bump(3)), was, MODEL)
    np.testing.assert_array_equal(snapped, was)


def closed(picture: U8, landmarks: F32) -> U8:
    """The photo with its lips closed, u8 [h, w, 3]."""
    pose: Pose = fit_pose(landmarks[None], MODEL.mean, MODEL.rigid)
    free = pose.remove(landmarks[None])[0]
    place = Placement(float(pose.scale[0]), pose.rotation[0], pose.translation[0], free, OPEN)
    mesh = build_mesh(MODEL)
    mouth = mouth_of(MODEL, MODEL.mean, np.array(SKIN, np.float32))
    painted = Compositor(mesh, mouth).paint(
        rgb_to_i420(picture), place, np.zeros_like(OPEN), [(cut_source(picture, place, mesh), 1.0)]
    )
    return i420_to_rgb(painted.frame)


def test_no_teeth_are_seen_between_closed_lips() -> None:
    """Teeth that the landmarks count as lip show as a white strip when the mouth closes."""
    was = face()
    picture = photo(was, bump(4), bump(0))

    def teeth(landmarks: F32) -> int:
        frame = closed(picture, landmarks)
        rows = slice(int(was[0, 1]) - 20, int(was[17, 1]) + 20)
        colors = frame[rows].astype(int)
        away = np.abs(colors - np.array(TEETH)).max(-1)
        return int((away < 25).sum())

    assert teeth(was) > 60
    assert teeth(snap_to_lip_edges(picture, was, MODEL)) == 0


@pytest.mark.parametrize("teeth", [TEETH, LIP, SKIN])
def test_a_drawing_of_few_colors(teeth: tuple[int, int, int]) -> None:
    """Without noise or shading: each part has one color, or that of its neighbour."""
    was = face()
    picture = np.full((SIZE, SIZE, 3), SKIN, np.uint8)
    for parts, color in (((OUTER_UPPER_LIP, OUTER_LOWER_LIP), LIP),
                         ((INNER_UPPER_LIP, INNER_LOWER_LIP), teeth)):  # fmt: skip
        points = was[list(parts[0] + parts[1][::-1]), :2]
        cv2.fillPoly(picture, [points.round().astype(np.int32)], color)
    found = snap_to_lip_edges(picture, was, MODEL)
    assert np.isfinite(found).all()
    assert np.abs(found - was).max() < 0.08 * PX
    nothing = snap_to_lip_edges(np.full_like(picture, 128), was, MODEL)
    assert np.abs(nothing - was).max() < 0.08 * PX
