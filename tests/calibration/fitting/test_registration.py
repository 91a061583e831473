"""Sub-pixel registration moves displaced mouths back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lipstream.calibration.fitting.face_windows import FaceWindows
from lipstream.calibration.fitting.registration import register, register_faces
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


def displaced(track: Track, by: F32) -> Track:
    """Every face moved by f32 [N, 2] px."""
    off = np.concatenate([by, np.zeros((len(by), 1), np.float32)], 1)
    pose = Pose(track.pose.scale, track.pose.rotation, track.pose.translation + off)
    return replace(track, landmarks=track.landmarks + off[:, None], pose=pose)


def drift(footage: SyntheticFootage) -> F32:
    rng = np.random.default_rng(1)
    return rng.normal(0, 0.012 * footage.pose.scale.mean(), (len(footage), 2)).astype(np.float32)


def registered(track: Track, pictures: list[U8]) -> Track:
    faces = FaceWindows.of(track, pictures.__getitem__, MODEL)
    assert faces is not None
    return register(track, faces)[0]


def error_px(track: Track, footage: SyntheticFootage) -> F32:
    """Distance of each face from the truth, without the mean error."""
    off = (track.landmarks - footage.exact)[..., :2].mean(1)
    return np.hypot(*(off - off.mean(0)).T).astype(np.float32)


def test_displaced_mouths_are_moved_back(footage: SyntheticFootage, pictures: list[U8]) -> None:
    moved = displaced(footage.track(), drift(footage))
    found = registered(moved, pictures)
    before, after = error_px(moved, footage), error_px(found, footage)
    assert np.median(after) < 0.35 * np.median(before), (np.median(after), np.median(before))
    # The pose moves with the face, and the face keeps its shape.
    np.testing.assert_allclose(
        found.pose.remove(found.landmarks), moved.pose.remove(moved.landmarks), atol=1e-4
    )
    np.testing.assert_array_equal(found.expression, moved.expression)


def test_an_exact_track_stays(footage: SyntheticFootage, pictures: list[U8]) -> None:
    found = registered(footage.track(), pictures)
    assert np.percentile(error_px(found, footage), 90) < 0.006 * footage.pose.scale.mean()


def test_frames_that_are_not_paintable_stay(footage: SyntheticFootage, pictures: list[U8]) -> None:
    covered = np.arange(40, 46)
    grey = [np.full_like(p, 128) if i in covered else p for i, p in enumerate(pictures)]
    track = displaced(footage.track(), drift(footage))
    paintable = track.paintable.copy()
    paintable[covered] = False
    found = registered(replace(track, paintable=paintable), grey)
    np.testing.assert_array_equal(found.landmarks[covered], track.landmarks[covered])
    before, after = error_px(track, footage), error_px(found, footage)
    assert np.median(after[~np.isin(np.arange(len(footage)), covered)]) < 0.35 * np.median(before)


def test_fewer_than_50_frames_are_not_registered(footage: SyntheticFootage) -> None:
    track = footage.track()
    short = replace(track, usable=np.arange(len(footage)) < 49)

    def not_read(frame: int) -> U8:
        raise AssertionError(f"frame {frame} was read")

    assert register_faces(short, not_read, MODEL) == (short, None)
