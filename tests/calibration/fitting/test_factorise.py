"""Geometry, pose and expression of synthetic footage are recovered."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from lipstream.calibration.fitting.factorise import factorise, openings
from lipstream.calibration.footage.sources import choose_sources, source_features
from lipstream.engine.errors import CalibrationError
from lipstream.engine.face.model import VERTICES, face_model
from tests.synthetic import SyntheticFootage, make_footage

FPS = Fraction(25)
MODEL = face_model()


@pytest.fixture(scope="module")
def footage() -> SyntheticFootage:
    return make_footage(120, seed=3, noise_px=0.3)


def whole(footage: SyntheticFootage) -> np.ndarray:  # type: ignore[type-arg]
    return np.ones(len(footage), bool)


def test_truth_is_found_through_tracker_noise(footage: SyntheticFootage) -> None:
    track = factorise(footage.landmarks, (), whole(footage), whole(footage), FPS, MODEL)
    angles, truth = track.pose.angles_deg(), footage.pose.angles_deg()
    assert np.abs(angles - truth).max() < 1.5
    assert np.allclose(track.pose.scale / footage.pose.scale, 1, atol=0.03)
    error_px = np.abs(track.landmarks[..., :2] - footage.exact[..., :2])
    assert error_px.mean() < 0.3  # below the noise that went in
    opening = openings(track)
    assert np.corrcoef(opening, footage.opening)[0, 1] > 0.98
    assert np.abs(opening - footage.opening).mean() < 0.01


def test_a_shaken_head_is_followed_and_a_still_one_has_no_jitter(
    footage: SyntheticFootage,
) -> None:
    time_s = np.arange(len(footage)) / float(FPS)
    eyes = float(footage.pose.scale.mean())
    shake = np.zeros((len(footage), 1, 3), np.float32)
    shake[:, 0, 0] = 0.3 * eyes * np.sin(2 * np.pi * 3 * time_s) * (time_s > 2.4)
    track = factorise(footage.landmarks + shake, (), whole(footage), whole(footage), FPS, MODEL)
    exact = footage.exact + shake
    error = np.abs((track.landmarks - exact)[..., 0]).mean(1) / eyes  # a window of 9 for all: 0.19
    assert error[60:].max() < 0.012, error[60:].max()
    head = np.diff(track.landmarks[:55, MODEL.rigid, :2].mean(1), axis=0)
    raw = np.diff(footage.landmarks[:55, MODEL.rigid, :2].mean(1), axis=0)
    true = np.diff(footage.exact[:55, MODEL.rigid, :2].mean(1), axis=0)
    trembling, before = np.abs(head - true).mean(), np.abs(raw - true).mean()
    assert trembling < 0.6 * before, (trembling, before)


def test_lips_that_meet_for_one_frame_still_meet(footage: SyntheticFootage) -> None:
    shut, wide = int(footage.opening.argmin()), int(footage.opening.argmax())
    free = footage.pose.remove(footage.exact)
    spoken = np.tile(free[wide], (len(footage), 1, 1))
    spoken[60] = free[shut]
    landmarks = footage.landmarks.copy()
    landmarks[:, :VERTICES] += footage.pose.apply(spoken) - footage.exact
    found = openings(factorise(landmarks, (), whole(footage), whole(footage), FPS, MODEL))
    kept = (found[60] - footage.opening[shut]) / (footage.opening[wide] - footage.opening[shut])
    assert kept < 0.1, kept  # smoothed over five frames: 0.5
    assert found[55] == pytest.approx(footage.opening[wide], abs=0.02)


def test_smoothing_does_not_lag(footage: SyntheticFootage) -> None:
    """A lag here would be an audio-video offset later: the best shift is none."""
    track = factorise(footage.landmarks, (), whole(footage), whole(footage), FPS, MODEL)
    found, truth = openings(track), footage.opening
    score = {
        shift: np.corrcoef(found[5 + shift : -5 + shift or None][: len(truth) - 10], truth[5:-5])[
            0, 1
        ]
        for shift in (-2, -1, 0, 1, 2)
    }
    assert max(score, key=lambda k: score[k]) == 0


def test_missing_frames_are_bridged_and_never_usable(footage: SyntheticFootage) -> None:
    landmarks = footage.landmarks.copy()
    landmarks[40:50] = np.nan
    good = whole(footage)
    good[40:50] = False
    track = factorise(landmarks, (), good, whole(footage), FPS, MODEL)
    assert np.isfinite(track.landmarks).all()
    assert np.isfinite(track.expression).all()
    assert not track.usable[40:50].any()
    assert not track.paintable[40:50].any()
    assert track.usable[:40].all()


def test_no_usable_frame_is_an_error(footage: SyntheticFootage) -> None:
    with pytest.raises(CalibrationError, match="no frame can be used"):
        none = np.zeros(len(footage), bool)
        factorise(footage.landmarks, (), none, none, FPS, MODEL)


def test_a_cut_is_no_motion(footage: SyntheticFootage) -> None:
    landmarks = footage.landmarks.copy()
    landmarks[60:, :, 0] += 80  # the second shot shows the head elsewhere
    track = factorise(landmarks, (60,), whole(footage), whole(footage), FPS, MODEL)
    # Smoothing stops at the cut: frames beside it are where they were seen.
    assert np.abs(track.landmarks[59, :, 0] - footage.exact[59, :, 0]).mean() < 1.0
    assert np.abs(track.landmarks[60, :, 0] - 80 - footage.exact[60, :, 0]).mean() < 1.0
    assert track.head_speed[60] == 0


def test_sources_cover_the_mouth_shapes(footage: SyntheticFootage) -> None:
    track = footage.track()
    sharpness = np.ones(len(track), np.float32)
    chosen = choose_sources(track, MODEL, sharpness, 12)
    assert 2 <= len(chosen) <= 12
    assert len(set(chosen.tolist())) == len(chosen)
    opening = footage.opening
    assert opening[chosen].min() <= np.percentile(opening, 5) + 0.01
    assert opening[chosen].max() >= opening.max() - 0.01
    features = source_features(track, MODEL)
    distance = np.linalg.norm(features[:, None] - features[chosen], axis=-1).min(1)
    rng = np.random.default_rng(0)
    random = [
        np.linalg.norm(features[:, None] - features[rng.choice(len(track), 12, False)], axis=-1)
        .min(1)
        .max()
        for _ in range(20)
    ]
    assert distance.max() < np.median(random)  # k-centre leaves no frame far away


def test_rejected_frames_are_no_sources(footage: SyntheticFootage) -> None:
    from dataclasses import replace

    usable = whole(footage)
    usable[::2] = False
    track = replace(footage.track(), usable=usable)
    chosen = choose_sources(track, MODEL, np.ones(len(track), np.float32), 30)
    assert usable[chosen].all()
