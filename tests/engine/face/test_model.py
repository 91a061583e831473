"""Pose, expression and lips, against exact synthetic faces."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from lipstream.engine.face.model import LEFT_EYE, RIGHT_EYE, Pose, face_model, fit_pose
from lipstream.engine.types import F32

MODEL = face_model()
angles = st.floats(-35, 35)


def pose_of(yaw: float, pitch: float, roll: float, scale: float) -> Pose:
    matrix = Rotation.from_euler("xyz", [pitch, yaw, roll], degrees=True).as_matrix()
    return Pose(
        np.array([scale], np.float32),
        matrix.astype(np.float32)[None],
        np.array([[300.0, 200.0, 5.0]], np.float32),
    )


def expression_of(seed: int) -> F32:
    return (np.random.default_rng(seed).normal(size=(1, MODEL.size)) * MODEL.spread).astype(
        np.float32
    )


@settings(max_examples=30, deadline=None)
@given(angles, angles, angles, st.floats(20, 300), st.integers(0, 1000))
def test_pose_and_expression_are_recovered(
    yaw: float, pitch: float, roll: float, scale: float, seed: int
) -> None:
    pose, expression = pose_of(yaw, pitch, roll, scale), expression_of(seed)
    vertices = MODEL.mean + MODEL.displacement(expression)
    image = pose.apply(vertices)
    # The rigid vertices move a little with the expression; the fit is by least squares.
    found = fit_pose(image, MODEL.mean, MODEL.rigid)
    assert np.allclose(found.scale / scale, 1, atol=0.01)
    assert np.allclose(found.rotation, pose.rotation, atol=0.02)
    again = MODEL.encode(pose.remove(image) - MODEL.mean)
    assert np.allclose(again, expression, atol=2e-3)


def test_removing_a_pose_undoes_applying_it() -> None:
    pose = pose_of(20, -10, 5, 77)
    vertices = MODEL.mean[None]
    assert np.allclose(pose.remove(pose.apply(vertices)), vertices, atol=1e-4)


def test_units_are_inter_ocular_distances() -> None:
    left, right = MODEL.mean[list(LEFT_EYE)].mean(0), MODEL.mean[list(RIGHT_EYE)].mean(0)
    assert np.isclose(np.linalg.norm(right - left), 1.0, atol=1e-5)
    assert np.allclose((left + right) / 2, 0, atol=1e-5)
    assert 0.7 < MODEL.rest_width() < 0.9
    assert MODEL.mean[152, 1] > 1.5  # y grows downwards, to the chin


def test_lips_follow_the_vertices() -> None:
    expression = expression_of(5)[0]
    moved = MODEL.mean + MODEL.displacement(expression)
    lips = MODEL.lips(expression)
    rest_gap = MODEL.mean[14, 1] - MODEL.mean[13, 1]
    gap = moved[14, 1] - moved[13, 1] - rest_gap
    assert np.isclose(lips.opening, max(0.0, gap), atol=1e-4)
    assert np.isclose(lips.width, moved[291, 0] - moved[61, 0], atol=1e-4)


def test_rest_is_zero() -> None:
    lips = MODEL.lips(np.zeros(MODEL.size, np.float32))
    assert lips.opening == 0
    assert lips.protrusion == 0
    assert lips.width == MODEL.rest_width()


def test_arkit_weights_of_an_open_jaw() -> None:
    """MediaPipe's order has jawOpen at 25."""
    row = MODEL.lip_rows()[0]
    direction = row * MODEL.spread**2
    wide = direction * np.float32(0.35 / float(row @ direction))
    weights = MODEL.arkit_weights(np.stack([np.zeros_like(wide), wide]))
    assert weights.shape == (2, 52)
    assert weights.min() >= 0
    assert weights.max() <= 1
    assert weights[1, 25] > weights[0, 25] + 0.2
