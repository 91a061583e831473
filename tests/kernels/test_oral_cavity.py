"""The inside of a mouth: compiled equals the twin, and it is lit as a mouth is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipstream.engine.errors import UsageError
from lipstream.kernels import dispatch
from lipstream.kernels.oral_cavity import GRAIN, Cavity, paint
from lipstream.kernels.reference import oral_cavity as reference
from tests.kernels.guard_bytes import Guards

pytestmark = pytest.mark.usefixtures("library")

TONGUE, DARK, UPPER_LIP, LOWER_LIP = (180, 100, 100), (60, 20, 20), (190, 110, 100), (220, 120, 110)
LOSS = (0.0, 0.4, 0.4)
UPPER_EDGE, LOWER_EDGE = 0.0, -0.03
SHAPE = np.array(
    [0.5, -0.3, -0.05, 0.01, -0.3, 2.2, UPPER_EDGE, LOWER_EDGE, 0.0, 0.01, 0.0], np.float32
)


def cavity(seed=0):
    """Upper teeth above their edge, lower teeth below theirs, white with noise."""
    random = np.random.default_rng(seed)
    teeth = np.full((2, 36, 101, 4), 220, np.float32)
    teeth[..., :3] += random.uniform(-10, 10, (2, 36, 101, 3)).astype(np.float32)
    upper_y, lower_y = (SHAPE[k] + 0.01 * np.arange(36) for k in (1, 2))
    teeth[0, ..., 3] = (upper_y < UPPER_EDGE)[:, None]
    teeth[1, ..., 3] = (lower_y > LOWER_EDGE)[:, None]
    colours = np.array([TONGUE, DARK, UPPER_LIP, LOWER_LIP, LOSS], np.float32)
    grain = random.normal(0, 2, (GRAIN, GRAIN)).astype(np.float32) * bool(seed)
    return Cavity(teeth, colours, grain, SHAPE)


def open_mouth(x, y, roof=-0.1, floor=0.3):
    """Points f32 [n, 3] in a gap, and the lips above and below them."""
    x, y = np.broadcast_arrays(np.float32(x), np.float32(y))
    points = np.stack([x.ravel(), y.ravel(), np.full(x.size, -0.33)], 1).astype(np.float32)
    return points, np.tile(np.array([roof, floor], np.float32), (len(points), 1))


def motion(jaw=0.15, light=1.0, raised=0.3, ray=(0.0, 0.0)):
    return np.array([0, jaw, light, raised, *ray], np.float32)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), count=st.sampled_from([0, 1, 700]))
def test_compiled_is_the_twin(seed, count):
    random = np.random.default_rng(seed)
    points = random.uniform(-0.6, 0.6, (count, 3)).astype(np.float32)
    lips = np.sort(random.uniform(-0.4, 0.4, (count, 2)), 1).astype(np.float32)
    moved = random.uniform(-0.5, 1, 6).astype(np.float32)
    shape = SHAPE * random.uniform(0.7, 1.4, 11).astype(np.float32)
    shape[10] = random.uniform(0, 1)
    lit = cavity(seed)._replace(shape=shape)
    got = Guards().call(paint, lit, moved, points, lips)
    np.testing.assert_array_equal(got, reference.paint(lit, moved, points, lips))
    assert np.isfinite(got).all()


def luma(colors):
    return colors @ np.array([0.21, 0.72, 0.07], np.float32)


def test_a_gap_ends_in_the_lips_and_in_no_line():
    """Down the middle of an open mouth nothing is darker just inside of the lower lip than the lip
    and what lies 0.04 further in."""
    points, lips = open_mouth(0.0, np.linspace(-0.1, 0.3, 200))
    column = luma(paint(cavity(), motion(jaw=0.34), points, lips))
    edge = luma(np.array(LOWER_LIP, np.float32))
    assert column[-1] == pytest.approx(edge, rel=0.1)
    assert (np.diff(column[-20:]) > -0.5).all()


def test_it_is_darker_further_in():
    points, lips = open_mouth(0.0, np.linspace(0.1, 0.28, 100))
    column = luma(paint(cavity(), motion(jaw=0.34), points, lips))
    assert column[0] < column[50] < column[-1]
    assert column.min() > 5  # and nowhere black


def test_cheeks_are_seen_at_the_sides():
    """Between the rows of teeth, beside the tongue, it is lighter than in the throat, and red."""
    points, lips = open_mouth([0.0, 0.34, -0.34], 0.06)
    throat, right, left = paint(cavity(), motion(jaw=0.3, raised=0.0), points, lips)
    np.testing.assert_array_equal(right, left)
    assert luma(right) > 1.3 * luma(throat)
    assert right[0] > 1.5 * right[1:].max()


def rounded(light):
    """What rounding changes in a corner, a wedge that is seen on rows of y and columns of x up to
    its tip, f32 [41, 21]."""
    across, down = np.meshgrid(np.linspace(0.3, 0.4, 21), np.linspace(-0.99, 0.99, 41))
    half = (0.4 - across) * 0.7
    points = np.stack([across, 0.2 + half * down, np.full_like(half, -0.33)], -1).reshape(-1, 3)
    lips = np.stack([0.2 - half, 0.2 + half], -1).reshape(-1, 2)
    points, lips = points.astype(np.float32), lips.astype(np.float32)
    shape = SHAPE.copy()
    shape[10] = 1.0
    bare = cavity()
    bare.colours[0] = DARK  # no cheeks, which are nearly as bright as that flesh
    pictures = [
        luma(paint(bare._replace(shape=k), motion(light=light, jaw=0.3), points, lips))
        for k in (SHAPE, shape)
    ]
    return np.abs(pictures[1] - pictures[0]).reshape(half.shape)


def test_flesh_rounds_the_corners_of_a_wide_mouth_off():
    """It reaches further in beside the lips than in the middle, and nothing changes in a mouth
    that is all but closed."""
    changed = rounded(1.0)
    assert changed[20, 10:-1].min() > 10
    assert changed[8:33, 0].max() < 1  # 0.1 from the tip
    beside, between = ((row > 5).sum() for row in (changed[10], changed[20]))
    assert beside > between
    assert rounded(0.0).max() == 0


def test_upper_teeth_stay_and_lower_teeth_move_with_the_jaw():
    points, lips = open_mouth(0.0, np.linspace(-0.08, 0.28, 181))
    y = points[:, 1]
    for jaw in (0.1, 0.2):
        bright = luma(paint(cavity(), motion(jaw=jaw), points, lips)) > 150
        rows = np.flatnonzero(np.diff(bright.astype(int)))
        end, begin = y[rows[np.argmin(np.abs(y[rows] - UPPER_EDGE))]], y[rows[-1] + 1]
        if begin > 0.25:  # where the lower lip covers them
            begin = y[rows[-2] + 1]
        assert end == pytest.approx(UPPER_EDGE, abs=0.02)
        assert begin == pytest.approx(LOWER_EDGE + jaw, abs=0.02)


@pytest.mark.parametrize("slope", [-0.3, 0.3])
def test_teeth_lie_behind_the_lips(slope):
    """A head that turns shifts them against the gap, by the slope times their distance."""
    stripes = cavity()
    x = -0.5 + 0.01 * np.arange(101)
    stripes.teeth[0, ..., :3] = np.where(np.abs(x) < 0.03, 40, 220)[:, None]
    points, lips = open_mouth(np.linspace(-0.2, 0.2, 401), -0.04)
    found = []
    for ray in (0.0, slope):
        row = luma(paint(stripes, motion(ray=(ray, 0.0)), points, lips))
        found.append(points[row < row.max() / 2, 0].mean())
    assert found[1] - found[0] == pytest.approx(-slope * 0.03, abs=0.004)


def test_other_shapes_are_refused():
    points, lips = open_mouth(0.0, 0.0)
    with pytest.raises(UsageError, match="motion"):
        paint(cavity(), motion()[:5], points, lips)
    with pytest.raises(UsageError, match="lips"):
        paint(cavity(), motion(), points, lips[:, :1])
    with pytest.raises(UsageError, match="two rows"):
        paint(cavity()._replace(teeth=np.zeros((2, 1, 4, 4), np.float32)), motion(), points, lips)


def test_the_twin_runs_without_compiled_kernels(monkeypatch):
    monkeypatch.setattr(dispatch, "use_native", lambda: False)
    points, lips = open_mouth(0.0, np.linspace(-0.1, 0.3, 5))
    np.testing.assert_array_equal(
        paint(cavity(), motion(), points, lips),
        reference.paint(cavity(), motion(), points, lips),
    )
