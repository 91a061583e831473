"""Textures that depend on features are predicted, noise is not; a frame's window is left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lipstream.calibration import bundle_writer
from lipstream.calibration.person.appearance_fit import (
    AppearanceFit,
    MouthTextures,
    distances,
    fit_appearance,
)
from lipstream.calibration.person.leave_one_out import EXCLUSION_WINDOW_S, LeaveOneOutPredictor
from lipstream.engine.face.mesh import build_mesh, inner_grid
from lipstream.engine.face.model import face_model
from lipstream.engine.target.appearance import TEXTURE_SHAPE, canonical_uv, matern
from lipstream.engine.target.bundle import Target, load_target
from lipstream.engine.target.similarity import by_shape
from lipstream.engine.types import F32
from lipstream.kernels.color import i420_to_rgb
from lipstream.kernels.mesh import warp_mesh

MESH = build_mesh(face_model())
FRAMES = 240


@pytest.fixture(scope="module")
def loaded(target: Path) -> Target:
    """The demo with similarity by shape and random expressions."""
    plain = load_target(target)
    track = plain.track
    rng = np.random.default_rng(0)
    lively = (rng.normal(0, 1, track.expression.shape) * face_model().spread).astype(np.float32)
    similarity = by_shape(lively, track.pose.angles_deg(), plain.source_frames, face_model())
    return replace(plain, similarity=similarity)


@pytest.fixture(scope="module")
def found(loaded: Target) -> MouthTextures:
    assert loaded.similarity is not None
    read = loaded.frames.decoder().read
    return MouthTextures.of(loaded.track, read, loaded.similarity, MESH, loaded.source_frames)


@pytest.fixture(scope="module")
def fit(loaded: Target, found: MouthTextures) -> AppearanceFit:
    fit = fit_appearance(found, EXCLUSION_WINDOW_S * float(loaded.fps))
    assert fit is not None
    return fit


@pytest.fixture(scope="module")
def predictor(loaded: Target) -> LeaveOneOutPredictor:
    return LeaveOneOutPredictor(loaded, MESH)


def textures(follows: bool) -> MouthTextures:
    """Textures with two components, which depend on slow features or are noise."""
    rng = np.random.default_rng(1)
    time = np.arange(FRAMES) / 25
    features = np.stack([np.sin(5 * time), np.cos(3.1 * time), rng.normal(0, 0.1, FRAMES)], 1)
    components = np.stack([features[:, 0] ** 2, features[:, 0] * features[:, 1]], 1)
    if not follows:
        components = rng.normal(0, 0.5, components.shape)
    across, down = (
        np.linspace(-1, 1, TEXTURE_SHAPE[1]),
        np.linspace(-1, 1, TEXTURE_SHAPE[0])[:, None],
    )
    directions = np.stack([np.cos(4 * across) * (1 + 0 * down), np.sin(5 * down) * across])
    levels = 120 + 40 * np.tensordot(components, directions, 1)[..., None] * [1.0, 0.8, 0.7]
    pixels = np.clip(levels + rng.normal(0, 1, levels.shape), 0, 255).astype(np.uint8)
    return MouthTextures(np.arange(FRAMES), pixels, features.astype(np.float32), pixels[::40])


def predicted(fit: AppearanceFit, features: F32) -> NDArray[np.float64]:
    """The predicted texture f64 [*TEXTURE_SHAPE, 3], levels."""
    prior = fit.appearance.picture(fit.appearance.predict(features), 0.2)
    return prior.texture.astype(float)


def test_textures_that_depend_on_features_are_predicted_for_held_out_frames() -> None:
    whole = textures(True)
    kept = np.arange(FRAMES) % 40 < 30
    some = whole.of_frames(kept, FRAMES)
    fit = fit_appearance(some, 5)
    assert fit is not None
    mean = some.pixels.mean(0)
    error, error_of_mean = 0.0, 0.0
    for at in np.flatnonzero(~kept):
        truth = whole.pixels[at].astype(float)
        error += ((predicted(fit, whole.features[at]) - truth) ** 2).mean()
        error_of_mean += ((mean - truth) ** 2).mean()
    assert error < 0.05 * error_of_mean


def test_noise_is_predicted_by_its_mean() -> None:
    noise = textures(False)
    fit = fit_appearance(noise, 5)
    assert fit is not None
    rng, error = np.random.default_rng(2), []
    for _ in range(20):
        texture = predicted(fit, rng.normal(0, 0.7, 3).astype(np.float32))
        error.append(np.abs(texture - noise.pixels.mean(0)).mean())
    assert np.mean(error) < 0.25 * np.abs(noise.pixels - noise.pixels.mean(0)).mean()


def test_fewer_than_50_frames_are_not_fitted() -> None:
    whole = textures(True)
    assert fit_appearance(whole.of_frames(whole.frames < 49, FRAMES), 5) is None


def test_coefficients_of_sources_are_those_of_their_frames() -> None:
    whole = textures(True)
    found = fit_appearance(whole, 5)
    assert found is not None
    np.testing.assert_allclose(found.appearance.sources, found.pca_coefficients[::40], atol=1e-3)


def test_texture_distance_is_the_squared_distance_from_the_prediction(
    loaded: Target, found: MouthTextures, fit: AppearanceFit, predictor: LeaveOneOutPredictor
) -> None:
    track = loaded.track
    others = np.arange(0, len(track), 7)
    prediction = predictor.predict(100, track.expression[100])
    distance = predictor.texture_distance(prediction, others)
    assert distance is not None and prediction is not None
    levels = found.pixels.reshape(len(found.pixels), -1).astype(float)
    axes = (
        fit.appearance.textures[1:].reshape(len(prediction.pca_coefficients), -1)
        / fit.appearance.spread()[:, None]
    )
    wanted = (
        fit.appearance.textures[0].reshape(-1)
        + (prediction.pca_coefficients * fit.appearance.spread()) @ axes
    )
    off = (((levels[others] - wanted) @ axes.T) ** 2).sum(1)
    reference_distance = 2 * ((levels - levels.mean(0)) @ axes.T).var(0).sum()
    np.testing.assert_allclose(distance, off / reference_distance, rtol=2e-2, atol=1e-3)


def test_a_texture_warped_back_is_the_mouth_of_its_frame(
    loaded: Target, found: MouthTextures
) -> None:
    read = loaded.frames.decoder().read
    assert len(found.frames) == np.sum(loaded.track.usable & loaded.track.paintable)
    frame = int(found.frames[40])
    place = loaded.track.placement(frame)
    points = np.concatenate(
        [
            place.project(place.canonical_vertices),
            place.project(inner_grid(place.canonical_vertices)),
        ]
    )
    rgb = i420_to_rgb(read(frame))
    back, covered = warp_mesh(
        found.pixels[40], canonical_uv(MESH), points, MESH.lip_triangles, rgb.shape[:2]
    )
    inside = covered > 0
    assert inside.sum() > 1000
    assert np.abs(back[inside].astype(float) - rgb[inside]).mean() < 4
    assert np.abs(back[inside].astype(float) - rgb[inside].mean(0)).mean() > 8


def test_leaving_a_window_out_equals_a_fit_without_it(
    loaded: Target, found: MouthTextures, fit: AppearanceFit, predictor: LeaveOneOutPredictor
) -> None:
    assert loaded.similarity is not None
    whole, noise = fit.appearance, fit.noise
    # The same length scale and noise, solved for the other frames alone.
    frame, expression = 100, loaded.track.expression[100]
    others = np.abs(found.frames - frame) >= EXCLUSION_WINDOW_S * float(loaded.fps)
    distance, weights = distances(found.features), np.zeros_like(fit.pca_coefficients)
    for k, variance in enumerate(noise):
        if np.isfinite(variance):
            kernel = matern(distance / whole.length_scale[k]) + variance * np.eye(len(distance))
            rest = kernel[np.ix_(others, others)]
            weights[others, k] = np.linalg.solve(rest, fit.pca_coefficients[others, k])
    alone = replace(whole, weights=weights.astype(np.float32))
    features: F32 = loaded.similarity.features(expression, frame)
    prior = predictor.picture(predictor.predict(frame, expression), expression)
    assert prior is not None
    wanted = alone.picture(alone.predict(features), 0.2)
    assert np.abs(prior.texture.astype(int) - wanted.texture).max() <= 1


def test_without_similarity_there_is_no_prior(loaded: Target) -> None:
    alone = LeaveOneOutPredictor(replace(loaded, similarity=None), MESH)
    assert alone.predict(3, loaded.track.expression[3]) is None
    assert alone.picture(None, loaded.track.expression[3]) is None


def test_a_bundle_keeps_the_appearance(loaded: Target, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    found = fit_appearance(textures(True), 5)
    assert found is not None
    bundle_writer.write_appearance(tmp_path, found.appearance)
    kept = load_file(tmp_path / "appearance.safetensors")
    np.testing.assert_array_equal(kept["weights"], found.appearance.weights)
    assert np.abs(kept["textures"].astype(np.float32) - found.appearance.textures).max() < 0.1
