"""The look that is told is the mean and the principal looks, by how near the known frames are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lipstream.engine.appearance import LOOK_SHAPE, Appearance, look_points, matern
from lipstream.engine.errors import UsageError
from lipstream.engine.face_model import face_model
from lipstream.engine.warp import build_mesh
from lipstream.kernels.composite import summed

RNG = np.random.default_rng(0)
LOOKS = RNG.uniform(0, 60, (3, *LOOK_SHAPE, 3)).astype(np.float32)
KNOWN = Appearance(
    counts=np.array([1.0, 0.5], np.float32),
    readings=np.array([[0.0, 3.0], [0.0, 4.0]], np.float32),  # two frames, 5 apart
    reach=np.array([5.0, 2.0], np.float32),
    weights=np.array([[0.5, -0.25], [1.0, 0.75]], np.float32),
    looks=LOOKS,
    sources=np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]], np.float32),
    usual=2.0,
)


@pytest.mark.parametrize(("readings", "near", "far"), [((0, 0), 0, 1), ((3, 8), 1, 0)])
def test_near_frames_count_by_the_kernel(
    readings: tuple[float, float], near: int, far: int
) -> None:
    kernel = np.array([float(matern(np.array([5.0 / reach]))[0]) for reach in (5.0, 2.0)])
    shares = np.array([1, *(KNOWN.weights[near] + kernel * KNOWN.weights[far])])
    wanted = np.tensordot(shares, LOOKS.astype(np.float64), 1)
    told, trust = KNOWN.picture(KNOWN.foretell(np.array(readings, np.float32)), 0.3)
    assert trust == 1
    assert told.dtype == np.uint8 and told.shape == (*LOOK_SHAPE, 3)
    assert np.abs(told - np.clip(wanted, 0, 255)).max() <= 0.51


def test_far_from_all_that_is_known_it_is_the_mean() -> None:
    told, trust = KNOWN.picture(KNOWN.foretell(np.full(2, 1e4, np.float32)), 0.3)
    assert trust == 0
    np.testing.assert_array_equal(told, summed(LOOKS[:1], np.ones(1, np.float32)))


def test_trust_ends_where_nothing_like_it_was_seen() -> None:
    trusts = [KNOWN.foretell(np.array([-far, 0], np.float32)).trust for far in (2.9, 4.0, 5.0)]
    assert trusts == pytest.approx([1, 0.5, 0])
    # But a gap so thin that only its shadow shows looks the same in any mouth.
    nowhere = KNOWN.foretell(np.full(2, 1e4, np.float32))
    trusts = [KNOWN.picture(nowhere, opening).trust for opening in (-0.02, 0.0, 0.075, 0.2)]
    assert trusts == pytest.approx([1, 1, 0.5, 0])


def test_a_share_of_one_is_worth_its_levels() -> None:
    np.testing.assert_allclose(KNOWN.spread() ** 2, (LOOKS[1:] ** 2).sum((1, 2, 3)), rtol=1e-4)


def test_the_kernel_falls_from_one_to_nothing() -> None:
    values = matern(np.linspace(0, 20, 200))
    assert values[0] == 1 and values[-1] < 1e-6 and (np.diff(values) < 0).all()


def test_levels_are_cut_and_rounded() -> None:
    layers = np.array([[-40.0, 10.4, 10.6, 400.0]], np.float32)
    np.testing.assert_array_equal(summed(layers, np.ones(1, np.float32)), [0, 10, 11, 255])
    with pytest.raises(UsageError, match="layers"):
        summed(layers, np.ones(2, np.float32))


def test_the_lips_lie_inside_a_look() -> None:
    mesh = build_mesh(face_model())
    points = look_points(mesh)
    shown = points[np.unique(mesh.lip_triangles)]
    assert shown.min() > 0 and (shown < LOOK_SHAPE[::-1]).all()
    gap = points[len(mesh.model.mean) :]
    assert np.ptp(gap[:, 1]) > 10, "its lips are apart: a closed mouth would hide the teeth"


def test_what_does_not_belong_together_is_refused() -> None:
    with pytest.raises(UsageError, match="disagree"):
        replace(KNOWN, weights=KNOWN.weights[:1])
    with pytest.raises(UsageError, match="disagree"):
        replace(KNOWN, looks=LOOKS[:2])
    with pytest.raises(UsageError, match="sources"):
        replace(KNOWN, sources=np.zeros((3, 1), np.float32))
    with pytest.raises(UsageError, match="reach"):
        replace(KNOWN, reach=np.zeros(2, np.float32))
    with pytest.raises(UsageError, match="reach"):
        replace(KNOWN, usual=0.0)
