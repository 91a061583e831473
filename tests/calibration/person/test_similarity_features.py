"""Which mouths look alike is read off the pictures."""

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
_SHAPE = MODEL.size + 2  # readings
SOURCES = np.arange(0, 120, 2, dtype=np.int32)


@pytest.fixture(scope="module")
def footage() -> SyntheticFootage:
    return make_footage(120, size=(192, 192), seed=5)


def pictures(footage: SyntheticFootage, creased: set[int]) -> list[U8]:
    """Luma; the frames `creased` have a dark crease in the chin."""
    found = []
    for index in range(len(footage)):
        luma = rgb_to_i420(footage.frame(index))[: footage.height].copy()
        if index in creased:
            x, y = np.rint(footage.exact[index, _CHIN, :2]).astype(int)
            luma[y - 1 : y + 1, x - 8 : x + 8] //= 2
        found.append(luma)
    return found


def measured(footage: SyntheticFootage, shown: list[U8]) -> MouthSimilarity:
    track = footage.track()
    faces = FaceWindows.look(track, shown.__getitem__, MODEL)
    assert faces is not None
    return similarity_of(faces, track, SOURCES, MODEL)


def features(footage: SyntheticFootage, similarity: MouthSimilarity) -> F32:
    return (footage.expression @ similarity.projection.T + similarity.frame_offset).astype(
        np.float32
    )


def test_what_a_mouth_looks_like_is_told_by_its_shape(footage: SyntheticFootage) -> None:
    """The nearest by readings is near in opening, and units are as stated."""
    similarity = measured(footage, pictures(footage, set()))
    read = features(footage, similarity)
    assert random_pair_cost(read[SOURCES, :_SHAPE]) == pytest.approx(1, abs=1e-3)
    assert random_pair_cost(read[SOURCES, _SHAPE:-8]) == pytest.approx(0.17, abs=1e-3)
    assert random_pair_cost(read[SOURCES, -8:]) == pytest.approx(0.1, abs=1e-3)
    assert random_pair_cost(similarity.source_descriptors) == pytest.approx(1, abs=1e-3)
    asked = np.arange(1, 120, 2)
    unlike = ((read[asked, None] - read[None, SOURCES]) ** 2).sum(2)
    lent = SOURCES[unlike.argmin(1)]
    missed = np.abs(footage.opening[asked] - footage.opening[lent])
    random = np.abs(footage.opening[asked] - np.roll(footage.opening[asked], 17))
    assert missed.mean() < 0.25 * random.mean()


def test_skin_round_the_lips_counts(footage: SyntheticFootage) -> None:
    """Two mouths of one shape: the one with the same crease in the chin is nearer."""
    creased = set(np.flatnonzero((np.arange(120) // 6) % 2).tolist())
    read = features(footage, measured(footage, pictures(footage, creased)))
    has = np.isin(np.arange(120), list(creased))
    unlike = ((read[:, None, -8:] - read[None, :, -8:]) ** 2).sum(2)
    same = has[:, None] == has[None]
    assert unlike[same].mean() < 0.6 * unlike[~same].mean()


def test_sources_that_look_alike_are_told(footage: SyntheticFootage) -> None:
    similarity = measured(footage, pictures(footage, set()))
    opening = footage.opening[SOURCES]
    unlike = (
        (similarity.source_descriptors[:, None] - similarity.source_descriptors[None]) ** 2
    ).sum(2)
    apart = np.abs(opening[:, None] - opening[None])
    assert unlike[apart > 0.08].mean() > 2 * unlike[apart < 0.01].mean()


def test_without_pictures_shape_and_pose_tell(footage: SyntheticFootage) -> None:
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
