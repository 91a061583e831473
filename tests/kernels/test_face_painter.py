"""A whole lower face in two calls: memory and arguments.

That the pixels are those of the steps is tested in tests/engine/rendering.
"""

import numpy as np
import pytest

from lipstream.engine.errors import UsageError
from lipstream.kernels.face_painter import FacePainter, MouthView
from lipstream.kernels.oral_cavity import GRAIN, Cavity
from tests.kernels.guard_bytes import Guards

pytestmark = pytest.mark.usefixtures("library")

VERTICES, COLUMNS, ROWS, COEFFICIENTS = 40, 5, 3, 4
GRID = ROWS * COLUMNS
NUMBERS = {
    "still": 0.05, "inset": 0.014, "shadow_reach": 0.06, "seam_depth": 0.5, "trusted": 0.98,
    "least_shown": 0.4, "least_lowered": 0.01, "lip_shadow": 0.5,
}  # fmt: skip
LOOK = (9, 12)
CAVITY = Cavity(
    np.full((2, 6, 7, 4), 0.5, np.float32), np.full((5, 3), 0.5, np.float32),
    np.zeros((GRAIN, GRAIN), np.float32),
    np.array([0.4, -0.3, -0.1, 0.1, 0.0, 2.0, 0.0, 0.05, 0.1, 0.01, 0.5], np.float32),
)  # fmt: skip
MOTION = np.array([0, 0.1, 0.5, 0.5, 0.1, 0], np.float32)


def grid_triangles(rows, columns):
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    upper = np.stack([corner, corner + 1, corner + columns], axis=1)
    lower = np.stack([corner + 1, corner + columns + 1, corner + columns], axis=1)
    return np.concatenate([upper, lower]).astype(np.int32)


def arrays():
    """A mouth of four lines of vertices across a face of eight by five."""
    random = np.random.default_rng(0)
    lips = np.stack([np.arange(15, 20), np.arange(20, 25), np.arange(10, 15), np.arange(25, 30)])
    lips[1, [0, -1]], lips[3, [0, -1]] = lips[0, [0, -1]], lips[2, [0, -1]]
    uv = random.uniform(0, 10, (VERTICES + GRID, 2)).astype(np.float32)
    return {
        "basis": random.normal(0, 0.02, (COEFFICIENTS, VERTICES, 3)).astype(np.float32),
        "rings": np.array([[0.2, 0.5], [0.5, 0.0]], np.float32),
        "lips": lips.astype(np.int32), "line": np.arange(35, 40, dtype=np.int32),
        "chin": np.arange(35, 38, dtype=np.int32), "jaw": grid_triangles(8, 5),
        "mouth": np.concatenate([grid_triangles(8, 5), VERTICES + grid_triangles(ROWS, COLUMNS)]),
        "gap": grid_triangles(ROWS, COLUMNS), "lip_vertices": np.arange(10, 30, dtype=np.int32),
        "skin": np.arange(0, 10, dtype=np.int32),
        "texture": random.integers(0, 256, (10, 10, 2), dtype=np.uint8),
        "texture_xy": uv, "look_xy": uv, "gap_row": np.linspace(0, 255, GRID, dtype=np.float32),
        "limits": np.array([3, 0.6, 24, 0.05], np.float32),
    }  # fmt: skip


def a_face():
    x, y = np.meshgrid(np.linspace(-0.6, 0.6, 5), np.linspace(-0.5, 0.7, 8))
    return np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], 1).astype(np.float32)


POSE = np.array([40, 1, 0, 0, 0, 1, 0, 48, 40], np.float32)
STILL, OPEN = np.zeros(COEFFICIENTS, np.float32), np.full(COEFFICIENTS, 1.5, np.float32)


@pytest.mark.parametrize("corners", [None, np.array([[5, 5], [90, 70]], np.float32)])
@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("x", [48, 2, 94])
def test_nothing_is_written_beyond_a_patch(corners, everything, x):
    random = np.random.default_rng(1)
    painter = FacePainter(arrays(), CAVITY, NUMBERS, 20, LOOK)
    pose, guards = POSE.copy(), Guards()
    pose[7] = x
    placed = guards.call(painter.place, pose, a_face(), STILL, OPEN, corners, (96, 80))
    assert placed.box[2] > placed.box[0]
    background = random.integers(0, 256, (120, 96), dtype=np.uint8)
    rgb = random.integers(0, 256, (30, 34, 3), dtype=np.uint8)
    view = MouthView(rgb, a_face(), POSE, (20.0, 30.0, 0.5), 0.6)
    sources = [view, view._replace(rgb=rgb[:20, :21], share=0.4)]
    frame = guards.empty(background.shape, np.uint8)
    texture = random.integers(0, 256, (*LOOK, 3), dtype=np.uint8)

    def paint():
        if not everything:
            return painter.paint(placed, background, MOTION, sources, guided=False)
        return painter.paint(
            placed, background, MOTION, sources, guided=True, texture=texture,
            prior_shape=(13, 17), frame=frame, spent=np.zeros(3, np.int64),
        )  # fmt: skip

    painted = guards.call(paint)
    assert painted.mask.any()
    if everything:
        x0, y0, x1, y1 = placed.box
        outside = np.ones((80, 96), bool)
        outside[y0:y1, x0:x1] = False
        np.testing.assert_array_equal(frame[:80][outside], background[:80][outside])


@pytest.mark.parametrize("vertex", [-1, 10_000])
@pytest.mark.parametrize(
    "name", ["lips", "line", "chin", "jaw", "mouth", "gap", "skin", "lip_vertices"]
)
def test_an_index_of_no_vertex_is_refused(name, vertex):
    given = arrays()
    given[name] = given[name].copy()
    given[name].flat[-1] = vertex
    with pytest.raises(UsageError, match=f"{name} names .*expected 0"):
        FacePainter(given, CAVITY, NUMBERS, 20, LOOK)


@pytest.mark.parametrize("centre", [-1, VERTICES])
def test_a_centre_that_is_no_vertex_is_refused(centre):
    with pytest.raises(UsageError, match="centre"):
        FacePainter(arrays(), CAVITY, NUMBERS, centre, LOOK)


@pytest.mark.parametrize("name", sorted(set(arrays()) - {"basis"}))
def test_an_array_of_another_shape_is_refused(name):
    given = arrays()
    given[name] = given[name][..., None]
    with pytest.raises(UsageError, match="expected"):
        FacePainter(given, CAVITY, NUMBERS, 20, LOOK)
