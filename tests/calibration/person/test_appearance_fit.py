"""Looks that follow from readings are foretold, noise is not; no moment is its own witness."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lipstream.calibration import bundle_writer
from lipstream.calibration.person.appearance_fit import Learned, MouthTextures, distances, learn
from lipstream.calibration.person.leave_one_out import LeaveOneOutPredictor
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
    """The demo, whose mouths look alike where their shapes are."""
    plain = load_target(target)
    track = plain.track
    rng = np.random.default_rng(0)
    lively = (rng.normal(0, 1, track.expression.shape) * face_model().spread).astype(np.float32)
    similarity = by_shape(lively, track.pose.angles_deg(), plain.source_frames, face_model())
    return replace(plain, similarity=similarity)


def textures(follows: bool) -> MouthTextures:
    """Pictures of two directions that a slow reading bends one way and the other, or noise."""
    rng = np.random.default_rng(1)
    time = np.arange(FRAMES) / 25
    features = np.stack([np.sin(5 * time), np.cos(3.1 * time), rng.normal(0, 0.1, FRAMES)], 1)
    told = np.stack([features[:, 0] ** 2, features[:, 0] * features[:, 1]], 1)
    if not follows:
        told = rng.normal(0, 0.5, told.shape)
    across, down = (
        np.linspace(-1, 1, TEXTURE_SHAPE[1]),
        np.linspace(-1, 1, TEXTURE_SHAPE[0])[:, None],
    )
    directions = np.stack([np.cos(4 * across) * (1 + 0 * down), np.sin(5 * down) * across])
    levels = 120 + 40 * np.tensordot(told, directions, 1)[..., None] * [1.0, 0.8, 0.7]
    seen = np.clip(levels + rng.normal(0, 1, levels.shape), 0, 255).astype(np.uint8)
    return MouthTextures(np.arange(FRAMES), seen, features.astype(np.float32), seen[::40])


def looked(found: Learned, features: F32) -> NDArray[np.float64]:
    """What is expected of a mouth, levels."""
    told = found.appearance.picture(found.appearance.predict(features), 0.2)
    return told.texture.astype(float)


def test_what_follows_is_foretold_where_it_was_not_seen() -> None:
    whole = textures(True)
    kept = np.arange(FRAMES) % 40 < 30
    some = whole.of_frames(kept, FRAMES)
    found = learn(some, 5)
    assert found is not None
    mean = some.seen.mean(0)
    missed, reference_distance = 0.0, 0.0
    for at in np.flatnonzero(~kept):
        truth = whole.seen[at].astype(float)
        missed += ((looked(found, whole.features[at]) - truth) ** 2).mean()
        reference_distance += ((mean - truth) ** 2).mean()
    assert missed < 0.05 * reference_distance


def test_noise_is_left_to_the_mean() -> None:
    noise = textures(False)
    found = learn(noise, 5)
    assert found is not None
    rng, apart = np.random.default_rng(2), []
    for _ in range(20):
        told = looked(found, rng.normal(0, 0.7, 3).astype(np.float32))
        apart.append(np.abs(told - noise.seen.mean(0)).mean())
    assert np.mean(apart) < 0.25 * np.abs(noise.seen - noise.seen.mean(0)).mean()


def test_few_frames_tell_nothing() -> None:
    whole = textures(True)
    assert learn(whole.of_frames(whole.frames < 49, FRAMES), 5) is None


def test_what_mouths_to_be_lent_look_like_is_told_as_of_any_frame() -> None:
    whole = textures(True)
    found = learn(whole, 5)
    assert found is not None
    np.testing.assert_allclose(found.appearance.sources, found.pca_coefficients[::40], atol=1e-3)


def test_unlike_is_how_far_a_look_is_from_what_was_foretold(loaded: Target) -> None:
    elsewhen, track = LeaveOneOutPredictor(loaded, MESH), loaded.track
    others = np.arange(0, len(track), 7)
    unlike = elsewhen.unlike(elsewhen.predict(100, track.expression[100]), others)
    assert unlike is not None and loaded.similarity is not None
    found = MouthTextures.of(
        track, loaded.frames.decoder().read, loaded.similarity, MESH, loaded.source_frames
    )
    known, told = learn(found, 12.5), elsewhen.predict(100, track.expression[100])
    assert known is not None and told is not None
    levels = found.seen.reshape(len(found.seen), -1).astype(float)
    axes = (
        known.appearance.textures[1:].reshape(len(told.pca_coefficients), -1)
        / known.appearance.spread()[:, None]
    )
    wanted = (
        known.appearance.textures[0].reshape(-1)
        + (told.pca_coefficients * known.appearance.spread()) @ axes
    )
    off = (((levels[others] - wanted) @ axes.T) ** 2).sum(1)
    reference_distance = 2 * ((levels - levels.mean(0)) @ axes.T).var(0).sum()
    np.testing.assert_allclose(unlike, off / reference_distance, rtol=2e-2, atol=1e-3)


def test_a_look_is_the_mouth_of_its_frame(loaded: Target) -> None:
    assert loaded.similarity is not None
    read = loaded.frames.decoder().read
    found = MouthTextures.of(loaded.track, read, loaded.similarity, MESH, loaded.source_frames)
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
        found.seen[40], canonical_uv(MESH), points, MESH.lip_triangles, rgb.shape[:2]
    )
    inside = covered > 0
    assert inside.sum() > 1000
    assert np.abs(back[inside].astype(float) - rgb[inside]).mean() < 4
    assert np.abs(back[inside].astype(float) - rgb[inside].mean(0)).mean() > 8


def test_a_moment_is_not_its_own_witness(loaded: Target) -> None:
    """What block matrices say of a moment left out is what the others say of it."""
    assert loaded.similarity is not None
    read = loaded.frames.decoder().read
    found = MouthTextures.of(loaded.track, read, loaded.similarity, MESH, loaded.source_frames)
    known = learn(found, 0.5 * float(loaded.fps))
    assert known is not None
    whole, noise = known.appearance, known.noise
    elsewhen = LeaveOneOutPredictor(loaded, MESH, 0.5)
    # By the same reach and noise, with the others alone.
    frame, expression = 100, loaded.track.expression[100]
    others = np.abs(found.frames - frame) >= 0.5 * float(loaded.fps)
    distance, weights = distances(found.features), np.zeros_like(known.pca_coefficients)
    for k, loud in enumerate(noise):
        if np.isfinite(loud):
            kernel = matern(distance / whole.length_scale[k]) + loud * np.eye(len(distance))
            rest = kernel[np.ix_(others, others)]
            weights[others, k] = np.linalg.solve(rest, known.pca_coefficients[others, k])
    alone = replace(whole, weights=weights.astype(np.float32))
    features: F32 = loaded.similarity.features(expression, frame)
    told = elsewhen.picture(elsewhen.predict(frame, expression), expression)
    assert told is not None
    wanted = alone.picture(alone.predict(features), 0.2)
    assert np.abs(told.texture.astype(int) - wanted.texture).max() <= 1


def test_without_resemblance_nothing_is_expected(loaded: Target) -> None:
    alone = LeaveOneOutPredictor(replace(loaded, similarity=None), MESH)
    assert alone.predict(3, loaded.track.expression[3]) is None
    assert alone.picture(None, loaded.track.expression[3]) is None


def test_a_bundle_keeps_it(loaded: Target, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    found = learn(textures(True), 5)
    assert found is not None
    bundle_writer.write_appearance(tmp_path, found.appearance)
    kept = load_file(tmp_path / "appearance.safetensors")
    np.testing.assert_array_equal(kept["weights"], found.appearance.weights)
    assert np.abs(kept["textures"].astype(np.float32) - found.appearance.textures).max() < 0.1
