"""Similarity features: mouths that look alike are near, in the stated units."""

from __future__ import annotations

import numpy as np
import pytest

from lipstream.calibration.fitting.face_windows import FaceWindows
from lipstream.calibration.person.similarity_features import similarity_of
from lipstream.engine.face.model import face_model
from lipstream.engine.target.similarity import MouthSimilarity, by_shape, random_pair_cost
from lipstream.engine.types import F32, U8
from lipstream.kernels.color import rgb_to_i420
from tests.synthetic import SyntheticFootage, make_footage

MODEL = face_model()
_CHIN = 200  # vertex
_SHAPE = MODEL.size + 2  # features
SOURCES = np.arange(0, 120, 2, dtype=np.int32)


@pytest.fixture(scope="module")
def footage() -> SyntheticFootage:
    return make_footage(120, size=(192, 192), seed=5)


def lumas(footage: SyntheticFootage, creased: set[int]) -> list[U8]:
    """Luma u8 [h, w] of each frame; the frames `creased` have a dark crease in the chin."""
    found = []
    for index in range(len(footage)):
        luma = rgb_to_i420(footage.frame(index))[: footage.height].copy()
        if index in creased:
            x, y = np.rint(footage.exact[index, _CHIN, :2]).astype(int)
            luma[y - 1 : y + 1, x - 8 : x + 8] //= 2
        found.append(luma)
    return found


def measured(footage: SyntheticFootage, frames: list[U8]) -> MouthSimilarity:
    track = footage.track()
    faces = FaceWindows.of(track, frames.__getitem__, MODEL)
    assert faces is not None
    return similarity_of(faces, track, SOURCES, MODEL)


def features(footage: SyntheticFootage, similarity: MouthSimilarity) -> F32:
    return (footage.expression @ similarity.projection.T + similarity.frame_offset).astype(
        np.float32
    )


def test_the_nearest_mouth_has_a_similar_opening(footage: SyntheticFootage) -> None:
    """And random sources are as far apart as stated."""
    similarity = measured(footage, lumas(footage, set()))
    read = features(footage, similarity)
    assert random_pair_cost(read[SOURCES, :_SHAPE]) == pytest.approx(1, abs=1e-3)
    assert random_pair_cost(read[SOURCES, _SHAPE:-8]) == pytest.approx(0.17, abs=1e-3)
    assert random_pair_cost(read[SOURCES, -8:]) == pytest.approx(0.1, abs=1e-3)
    assert random_pair_cost(similarity.source_descriptors) == pytest.approx(1, abs=1e-3)
    asked = np.arange(1, 120, 2)
    distance = ((read[asked, None] - read[None, SOURCES]) ** 2).sum(2)
    nearest = SOURCES[distance.argmin(1)]
    error = np.abs(footage.opening[asked] - footage.opening[nearest])
    random = np.abs(footage.opening[asked] - np.roll(footage.opening[asked], 17))
    assert error.mean() < 0.25 * random.mean()


def test_a_crease_in_the_chin_separates_mouths_of_one_shape(footage: SyntheticFootage) -> None:
    creased = set(np.flatnonzero((np.arange(120) // 6) % 2).tolist())
    read = features(footage, measured(footage, lumas(footage, creased)))
    has = np.isin(np.arange(120), list(creased))
    distance = ((read[:, None, -8:] - read[None, :, -8:]) ** 2).sum(2)
    same = has[:, None] == has[None]
    assert distance[same].mean() < 0.6 * distance[~same].mean()


def test_descriptors_of_similar_sources_are_near(footage: SyntheticFootage) -> None:
    similarity = measured(footage, lumas(footage, set()))
    opening = footage.opening[SOURCES]
    distance = (
        (similarity.source_descriptors[:, None] - similarity.source_descriptors[None]) ** 2
    ).sum(2)
    gap = np.abs(opening[:, None] - opening[None])
    assert distance[gap > 0.08].mean() > 2 * distance[gap < 0.01].mean()


def test_without_pixels_shape_and_pose_are_the_features(footage: SyntheticFootage) -> None:
    track = footage.track()
    similarity = by_shape(track.expression, track.pose.angles_deg(), SOURCES, MODEL)
    read = features(footage, similarity)
    assert random_pair_cost(read[SOURCES]) == pytest.approx(1.15, abs=1e-3)
    assert random_pair_cost(similarity.source_descriptors) == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(
        read[SOURCES, : similarity.source_descriptors.shape[1]],
        similarity.source_descriptors,
        atol=1e-4,
    )
