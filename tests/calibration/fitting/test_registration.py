"""Mouths laid beside themselves are put back, by what the pictures show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lipstream.calibration.fitting.face_windows import FaceWindows
from lipstream.calibration.fitting.registration import registered
from lipstream.engine.face.model import Pose, face_model
from lipstream.engine.target.track import Track
from lipstream.engine.types import F32, U8
from lipstream.kernels.color import rgb_to_i420
from tests.synthetic import SyntheticFootage, make_footage

MODEL = face_model()


@pytest.fixture(scope="module")
def footage() -> SyntheticFootage:
    return make_footage(60, size=(192, 192), seed=5)


@pytest.fixture(scope="module")
def pictures(footage: SyntheticFootage) -> list[U8]:
    return [rgb_to_i420(footage.frame(i))[: footage.height] for i in range(len(footage))]


def wandered(track: Track, by: F32) -> Track:
    """Every face f32 [N, 2] px beside itself."""
    off = np.concatenate([by, np.zeros((len(by), 1), np.float32)], 1)
    pose = Pose(track.pose.scale, track.pose.rotation, track.pose.translation + off)
    return replace(track, landmarks=track.landmarks + off[:, None], pose=pose)


def wander(footage: SyntheticFootage) -> F32:
    rng = np.random.default_rng(1)
    return rng.normal(0, 0.012 * footage.pose.scale.mean(), (len(footage), 2)).astype(np.float32)


def laid(track: Track, pictures: list[U8]) -> Track:
    faces = FaceWindows.look(track, pictures.__getitem__, MODEL)
    assert faces is not None
    return registered(track, faces)[0]


def missed_px(track: Track, footage: SyntheticFootage) -> F32:
    """How far each face lies from the truth, but for what all have in common."""
    off = (track.landmarks - footage.exact)[..., :2].mean(1)
    return np.hypot(*(off - off.mean(0)).T).astype(np.float32)


def test_mouths_are_laid_back(footage: SyntheticFootage, pictures: list[U8]) -> None:
    astray = wandered(footage.track(), wander(footage))
    found = laid(astray, pictures)
    before, after = missed_px(astray, footage), missed_px(found, footage)
    assert np.median(after) < 0.35 * np.median(before), (np.median(after), np.median(before))
    # The pose moves with the face, and the face keeps its shape.
    np.testing.assert_allclose(
        found.pose.remove(found.landmarks), astray.pose.remove(astray.landmarks), atol=1e-4
    )
    np.testing.assert_array_equal(found.expression, astray.expression)


def test_a_true_track_stays_where_it_is(footage: SyntheticFootage, pictures: list[U8]) -> None:
    found = laid(footage.track(), pictures)
    assert np.percentile(missed_px(found, footage), 90) < 0.006 * footage.pose.scale.mean()


def test_what_cannot_be_painted_is_left_alone(
    footage: SyntheticFootage, pictures: list[U8]
) -> None:
    covered = np.arange(40, 46)
    grey = [np.full_like(p, 128) if i in covered else p for i, p in enumerate(pictures)]
    track = wandered(footage.track(), wander(footage))
    paintable = track.paintable.copy()
    paintable[covered] = False
    found = laid(replace(track, paintable=paintable), grey)
    np.testing.assert_array_equal(found.landmarks[covered], track.landmarks[covered])
    before, after = missed_px(track, footage), missed_px(found, footage)
    assert np.median(after[~np.isin(np.arange(len(footage)), covered)]) < 0.35 * np.median(before)


def test_too_little_footage_says_nothing(footage: SyntheticFootage) -> None:
    track = footage.track()
    short = replace(track, usable=np.arange(len(footage)) < 49)

    def unseen(frame: int) -> U8:
        raise AssertionError(f"frame {frame} was looked at")

    assert FaceWindows.look(short, unseen, MODEL) is None
