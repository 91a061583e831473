"""Pose, expression and lips, against exact synthetic faces."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from lipstream.engine.face.arkit import ARKIT_NAMES
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


def weights_of(
    opening: float = 0.0, width: float = 0.0, protrusion: float = 0.0
) -> dict[str, float]:
    """ARKit weights by name of the most probable expression with these three measures."""
    rows, variance = MODEL.lip_rows(), MODEL.spread**2
    wanted = np.array([opening, width, protrusion], np.float32)
    expression = variance * (rows.T @ np.linalg.solve((rows * variance) @ rows.T, wanted))
    return dict(zip(ARKIT_NAMES, MODEL.arkit_weights(expression).tolist(), strict=True))


def test_arkit_weights_of_rest_are_zero() -> None:
    assert not MODEL.arkit_weights(np.zeros(MODEL.size, np.float32)).any()


def test_only_jaw_and_mouth_have_arkit_weights() -> None:
    weights = MODEL.arkit_weights(np.concatenate([expression_of(k) for k in range(200)]))
    assert weights.shape == (200, 52)
    assert weights.min() >= 0 and weights.max() <= 1
    moved = {ARKIT_NAMES[k] for k in np.flatnonzero(weights.any(axis=0))}
    assert all(name.startswith(("jaw", "mouth")) for name in moved)
    assert len(moved) > 20


def test_arkit_weights_of_an_open_jaw() -> None:
    weights = weights_of(opening=0.35)
    assert weights["jawOpen"] > 0.25
    assert max(weights["mouthSmileLeft"], weights["mouthSmileRight"]) < 0.05


def test_arkit_weights_of_rounded_lips() -> None:
    """Narrow lips pucker; narrow lips that are open funnel as well."""
    closed, rounded, wide = weights_of(width=-0.1), weights_of(0.15, -0.1), weights_of(width=0.15)
    assert closed["mouthPucker"] > 0.3 and rounded["mouthPucker"] > 0.3
    assert rounded["mouthFunnel"] > closed["mouthFunnel"] + 0.02
    assert wide["mouthPucker"] == wide["mouthFunnel"] == 0
    assert min(wide["mouthSmileLeft"], wide["mouthSmileRight"]) > 0.2
    assert max(rounded["mouthSmileLeft"], rounded["mouthSmileRight"]) < 0.05
