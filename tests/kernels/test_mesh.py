"""Mesh warp: triangles, bilinear samples, both."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipstream.engine.errors import UsageError
from lipstream.kernels import mesh
from tests.kernels.guard_bytes import assert_twins_agree
from tests.kernels.strategies import FEW, MORE, SEEDS

promise = pytest.mark.usefixtures("kernels")  # of each implementation, as a process chooses it
twins = pytest.mark.usefixtures("library")  # compiled code against NumPy


def jittered_grid(seed, columns=6, rows=5, step=7.0, jitter=2.5):
    random = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(columns) * step, np.arange(rows) * step)
    xy = np.stack([x.ravel(), y.ravel()], axis=1)
    inner = ((x > 0) & (x < x.max()) & (y > 0) & (y < y.max())).ravel()
    moves = random.uniform(-jitter, jitter, xy.shape)
    if seed % 2:
        moves = np.round(moves * 2) / 2  # vertices and edges on pixel centres and borders
    xy[inner] += moves[inner]
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    upper = np.stack([corner, corner + 1, corner + columns], axis=1)
    lower = np.stack([corner + 1, corner + columns, corner + columns + 1], axis=1)
    return xy.astype(np.float32), np.concatenate([upper, lower]).astype(np.int32)


@promise
@given(SEEDS)
@FEW
def test_a_mesh_paints_every_pixel_exactly_once(seed):
    xy, triangles = jittered_grid(seed)
    shape = (28, 35)
    count = sum(
        mesh.mesh_map(xy, xy, triangles[i : i + 1], shape)[1] // 255 for i in range(len(triangles))
    )
    assert (count == 1).all()


@promise
@given(SEEDS)
@FEW
def test_an_unmoved_mesh_copies_the_image(seed):
    xy, triangles = jittered_grid(seed)
    image = np.random.default_rng(seed).integers(0, 256, (28, 35, 3), dtype=np.uint8)
    warped, coverage = mesh.warp_mesh(image, xy, xy, triangles, (28, 35))
    assert (coverage == 255).all()
    np.testing.assert_array_equal(warped, image)


@promise
def test_a_whole_pixel_shift_moves_the_image():
    xy, triangles = jittered_grid(3)
    image = np.random.default_rng(3).integers(0, 256, (28, 35, 3), dtype=np.uint8)
    moved = xy + np.array([4, -3], np.float32)
    warped, coverage = mesh.warp_mesh(image, xy, moved, triangles, (20, 20), (8, 2))
    np.testing.assert_array_equal(warped, image[5:25, 4:24])
    assert (coverage == 255).all()


@promise
def test_an_affine_map_is_followed():
    xy, triangles = jittered_grid(4)
    linear, offset = np.array([[1.1, 0.2], [-0.1, 0.9]]), np.array([3.0, 5.0])
    target = (xy @ linear.T + offset).astype(np.float32)
    mapped, coverage = mesh.mesh_map(xy, target, triangles, (40, 50))
    rows, columns = np.nonzero(coverage)
    centres = np.stack([columns + 0.5, rows + 0.5], axis=1)
    expected = (centres - offset) @ np.linalg.inv(linear).T
    # Vertices are rounded to 1/256 px, which the affine map magnifies a little.
    assert abs(mapped[rows, columns] - expected).max() < 0.01
    assert (mapped[coverage == 0] == 0).all()


@promise
def test_the_last_triangle_is_on_top():
    xy = np.array([[0, 0], [8, 0], [0, 8], [8, 8]], np.float32)
    source = np.concatenate([xy, xy + 100])
    target = np.concatenate([xy, xy])
    under, over = [0, 1, 2], [4, 5, 6]
    mapped, _ = mesh.mesh_map(source, target, np.array([under, over], np.int32), (8, 8))
    assert mapped[1, 1, 0] > 100
    mapped, _ = mesh.mesh_map(source, target, np.array([over, under], np.int32), (8, 8))
    assert mapped[1, 1, 0] < 100


@promise
def test_sampling_is_bilinear_and_repeats_the_border():
    image = np.array([[[0], [100]], [[200], [60]]], np.uint8)
    mapped = np.array([[[1, 0.5], [1, 1], [-9, -9], [99, 0.5], [np.nan, 1.5]]], np.float32)
    assert mesh.remap(image, mapped)[0, :, 0].tolist() == [50, 90, 0, 100, 200]


@promise
def test_meshes_that_would_read_astray_are_refused():
    xy, triangles = jittered_grid(0)
    with pytest.raises(UsageError, match="vertices"):
        mesh.mesh_map(xy, xy, triangles + 1, (8, 8))
    broken = xy.copy()
    broken[3, 1] = np.nan
    with pytest.raises(UsageError, match="NaN"):
        mesh.mesh_map(xy, broken, triangles, (8, 8))
    with pytest.raises(UsageError, match="out_shape"):
        mesh.mesh_map(xy, xy, triangles, (0, 8))


@twins
@MORE
@given(SEEDS, st.integers(3, 30), st.integers(1, 40), st.integers(1, 4), st.booleans())
def test_twins_of_warp_mesh_of_any_triangle_soup(seed, vertices, triangles, channels, on_grid):
    random = np.random.default_rng(seed)
    source = random.integers(0, 256, (23, 31, channels), dtype=np.uint8)
    source_xy, target_xy = random.uniform(-10, 45, (2, vertices, 2)).astype(np.float32)
    if on_grid:  # vertices and edges that run through pixel centres: the fill rule decides
        target_xy = np.floor(target_xy) + np.float32(0.5)
    ids = random.integers(0, vertices, (triangles, 3), dtype=np.int32)
    arguments = (source_xy, target_xy, ids, (29, 37), (-3, 5))
    onto = random.integers(0, 256, (29, 37, channels), dtype=np.uint8)
    assert_twins_agree(mesh.rasterise, *arguments)
    assert_twins_agree(mesh.warp, source, *arguments)
    assert_twins_agree(mesh.warp, source, *arguments, onto)


@twins
@MORE
@given(SEEDS, st.integers(1, 12), st.integers(1, 9))
def test_twins_of_warp_region_of_any_frame(seed, w, h):
    random = np.random.default_rng(seed)
    frame = random.integers(0, 256, (3 * 12, 2 * 16), dtype=np.uint8)
    box = (2 * int(random.integers(0, 17 - w)), 2 * int(random.integers(0, 13 - h)), 2 * w, 2 * h)
    source_xy, target_xy = random.uniform(-5, 30, (2, 9, 2)).astype(np.float32)
    ids = random.integers(0, 9, (12, 3), dtype=np.int32)
    for moves in (source_xy, target_xy):
        arguments = (frame, box, source_xy, moves, ids)
        assert_twins_agree(mesh.warp_within, *arguments)


@twins
@MORE
@given(SEEDS, st.integers(1, 9), st.integers(1, 9), st.integers(1, 4))
def test_twins_of_remap_anywhere(seed, w, h, channels):
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (h, w, channels), dtype=np.uint8)
    mapped = random.uniform(-3, 12, (11, 13, 2)).astype(np.float32)
    mapped[0, :3, 0] = np.nan, np.inf, -np.inf
    assert_twins_agree(mesh.sample, image, mapped)
