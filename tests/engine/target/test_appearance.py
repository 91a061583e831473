"""A predicted texture is the mean plus components, weighted by the nearness of training frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lipstream.engine.errors import UsageError
from lipstream.engine.face.mesh import build_mesh
from lipstream.engine.face.model import face_model
from lipstream.engine.target.appearance import TEXTURE_SHAPE, Appearance, canonical_uv, matern
from lipstream.kernels.composite import weighted_sum

RNG = np.random.default_rng(0)
TEXTURES = RNG.uniform(0, 60, (3, *TEXTURE_SHAPE, 3)).astype(np.float32)
KNOWN = Appearance(
    relevance=np.array([1.0, 0.5], np.float32),
    features=np.array([[0.0, 3.0], [0.0, 4.0]], np.float32),  # two frames, 5 apart
    length_scale=np.array([5.0, 2.0], np.float32),
    weights=np.array([[0.5, -0.25], [1.0, 0.75]], np.float32),
    textures=TEXTURES,
    sources=np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]], np.float32),
    reference_distance=2.0,
)


@pytest.mark.parametrize(("features", "near", "far"), [((0, 0), 0, 1), ((3, 8), 1, 0)])
def test_near_frames_count_by_the_kernel(
    features: tuple[float, float], near: int, far: int
) -> None:
    kernel = np.array(
        [float(matern(np.array([5.0 / length_scale]))[0]) for length_scale in (5.0, 2.0)]
    )
    pca_coefficients = np.array([1, *(KNOWN.weights[near] + kernel * KNOWN.weights[far])])
    wanted = np.tensordot(pca_coefficients, TEXTURES.astype(np.float64), 1)
    texture, confidence = KNOWN.picture(KNOWN.predict(np.array(features, np.float32)), 0.3)
    assert confidence == 1
    assert texture.dtype == np.uint8 and texture.shape == (*TEXTURE_SHAPE, 3)
    assert np.abs(texture - np.clip(wanted, 0, 255)).max() <= 0.51


def test_far_from_all_training_frames_it_is_the_mean() -> None:
    texture, confidence = KNOWN.picture(KNOWN.predict(np.full(2, 1e4, np.float32)), 0.3)
    assert confidence == 0
    np.testing.assert_array_equal(texture, weighted_sum(TEXTURES[:1], np.ones(1, np.float32)))


def test_confidence_falls_with_the_distance_to_training_frames() -> None:
    confidences = [
        KNOWN.predict(np.array([-far, 0], np.float32)).confidence for far in (2.9, 4.0, 5.0)
    ]
    assert confidences == pytest.approx([1, 0.5, 0])
    # A gap so thin that only its shadow shows is the same in any mouth.
    nowhere = KNOWN.predict(np.full(2, 1e4, np.float32))
    confidences = [
        KNOWN.picture(nowhere, opening).confidence for opening in (-0.02, 0.0, 0.075, 0.2)
    ]
    assert confidences == pytest.approx([1, 1, 0.5, 0])


def test_spread_is_the_norm_of_each_component() -> None:
    np.testing.assert_allclose(KNOWN.spread() ** 2, (TEXTURES[1:] ** 2).sum((1, 2, 3)), rtol=1e-4)


def test_the_kernel_falls_from_one_to_nothing() -> None:
    values = matern(np.linspace(0, 20, 200))
    assert values[0] == 1 and values[-1] < 1e-6 and (np.diff(values) < 0).all()


def test_levels_are_cut_and_rounded() -> None:
    layers = np.array([[-40.0, 10.4, 10.6, 400.0]], np.float32)
    np.testing.assert_array_equal(weighted_sum(layers, np.ones(1, np.float32)), [0, 10, 11, 255])
    with pytest.raises(UsageError, match="layers"):
        weighted_sum(layers, np.ones(2, np.float32))


def test_the_lips_lie_inside_a_look() -> None:
    mesh = build_mesh(face_model())
    points = canonical_uv(mesh)
    shown = points[np.unique(mesh.lip_triangles)]
    assert shown.min() > 0 and (shown < TEXTURE_SHAPE[::-1]).all()
    gap = points[len(mesh.model.mean) :]
    assert np.ptp(gap[:, 1]) > 10, "its lips are apart: a closed mouth would hide the teeth"


def test_what_does_not_belong_together_is_refused() -> None:
    with pytest.raises(UsageError, match="disagree"):
        replace(KNOWN, weights=KNOWN.weights[:1])
    with pytest.raises(UsageError, match="disagree"):
        replace(KNOWN, textures=TEXTURES[:2])
    with pytest.raises(UsageError, match="sources"):
        replace(KNOWN, sources=np.zeros((3, 1), np.float32))
    with pytest.raises(UsageError, match="length scale"):
        replace(KNOWN, length_scale=np.zeros(2, np.float32))
    with pytest.raises(UsageError, match="length scale"):
        replace(KNOWN, reference_distance=0.0)
