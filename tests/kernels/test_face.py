"""The vertices of a face."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipstream.engine.errors import UsageError
from lipstream.kernels import face
from tests.kernels.guard_bytes import Guards, assert_twins_agree
from tests.kernels.strategies import MORE, SEEDS

promise = pytest.mark.usefixtures("kernels")  # of each implementation, as a process chooses it
twins = pytest.mark.usefixtures("library")  # compiled code against NumPy


def a_face(random, n=5, vertices=40, size=4):
    """Vertices, a basis, and four lip lines whose inner corners are shared."""
    canonical_vertices = random.uniform(-1, 1, (vertices, 3)).astype(np.float32)
    basis = random.normal(0, 0.05, (size, vertices, 3)).astype(np.float32)
    lips = random.permutation(vertices)[: 4 * n].astype(np.int32).reshape(4, n)
    lips[1, [0, -1]], lips[3, [0, -1]] = lips[0, [0, -1]], lips[2, [0, -1]]
    for high, low in (lips[:2], lips[2:]):
        canonical_vertices[low, 1] = canonical_vertices[high, 1] + random.uniform(
            -0.05, 0.4, n
        ).astype(np.float32)
        canonical_vertices[low[[0, -1]]] = canonical_vertices[high[[0, -1]]]
    return canonical_vertices, basis, lips


def a_pose(random):
    return np.array([random.uniform(40, 200), *random.uniform(-1, 1, 6), 90, 70], np.float32)


@twins
@MORE
@given(SEEDS, st.integers(2, 9), st.sampled_from([0.0, 0.3, 1.0]))
def test_twins_of_a_driven_face(seed, rows, strength):
    random = np.random.default_rng(seed)
    canonical_vertices, basis, lips = a_face(random)
    own, wanted = random.normal(0, strength, (2, len(basis))).astype(np.float32)
    arguments = (basis, canonical_vertices, own, wanted, lips, rows)
    assert_twins_agree(face.drive_vertices, *arguments)


@twins
@MORE
@given(SEEDS)
def test_twins_of_a_placed_face_and_its_moving_triangles(seed):
    random = np.random.default_rng(seed)
    canonical_vertices, _, _ = a_face(random)
    vertices = canonical_vertices + random.normal(0, 0.01, canonical_vertices.shape).astype(
        np.float32
    )
    grid = random.normal(size=(6, 3)).astype(np.float32)
    line = random.permutation(len(canonical_vertices))[:7].astype(np.int32)
    rings = np.array([[0.2, 0.5], [1.0, 0.0]], np.float32)
    arguments = (a_pose(random), canonical_vertices, vertices, grid, line, int(line[0]), rings)
    start, moved, _ = assert_twins_agree(face.project, *arguments)
    triangles = random.integers(0, len(start), (30, 3), dtype=np.int32)
    for still_px in (0.0, 0.5, 3.0, 1e6):
        assert_twins_agree(face.choose_moving, start, moved, triangles, still_px)


@twins
@MORE
@given(SEEDS, st.integers(2, 8))
def test_twins_of_the_map_to_a_source(seed, rows):
    random = np.random.default_rng(seed)
    canonical_vertices, basis, lips = a_face(random)
    own, wanted = random.normal(0, 0.4, (2, len(basis))).astype(np.float32)
    vertices, grid = face.drive_vertices.reference(
        basis, canonical_vertices, own, wanted, lips, rows
    )
    view = np.array([10, 20, random.uniform(0.3, 3)], np.float32)
    chin = lips[3, 1:3]
    arguments = (vertices, grid, canonical_vertices, a_pose(random), view, lips, chin, 0.014)
    assert_twins_agree(face.find_in_source, *arguments)


@twins
@MORE
@given(SEEDS, st.integers(3, 40), st.integers(3, 40), st.integers(0, 60))
def test_twins_of_relight(seed, w, h, skin):
    random = np.random.default_rng(seed)
    wide = random.integers(0, 256, (h, w + 5, 3), dtype=np.uint8)
    layer = random.integers(0, 256, (h, w, 3), dtype=np.uint8)
    points = random.uniform(-4, 44, (80, 2)).astype(np.float32)
    chosen = random.permutation(80)[:skin].astype(np.int32)
    limits = (12, 0.6, 24.0, 0.05)
    guards, expected = Guards(), layer.copy()
    got = guards.copy(layer)
    face.match_light.reference(expected, wide[:, :w], points, chosen, limits)
    guards.call(face.match_light.native, got, wide[:, :w], points, chosen, limits)
    np.testing.assert_array_equal(got, expected)


@twins
@MORE
@given(SEEDS, st.integers(1, 12), st.integers(1, 12))
def test_twins_of_downsample2x(seed, w, h):
    random = np.random.default_rng(seed)
    fine = random.integers(0, 256, (2 * h, 2 * w, 3), dtype=np.uint8)
    covered = (255 * (random.random((2 * h, 2 * w)) < 0.8)).astype(np.uint8)
    expected = random.integers(0, 256, (h, w + 3, 3), dtype=np.uint8)
    guards = Guards()
    got = guards.copy(expected)
    face.halve.reference(fine, covered, expected[:, :w])
    guards.call(face.halve.native, fine, covered, got[:, :w])
    np.testing.assert_array_equal(got, expected)


WITH_INDICES = ("drive", "place", "with_rings", "moving_triangles", "map_to_source", "relight")


def driven(random):
    """Arguments of each function that takes indices, by its name, and where the indices stand."""
    canonical_vertices, basis, lips = a_face(random)
    own, wanted = random.normal(0, 0.4, (2, len(basis))).astype(np.float32)
    vertices, grid = face.drive(basis, canonical_vertices, own, wanted, lips, 4)
    flat, rings = np.ascontiguousarray(vertices[:, :2]), np.array([[0.2, 0.5]], np.float32)
    pose, view = a_pose(random), np.array([10, 20, 1], np.float32)
    line, triangles = lips[0].copy(), random.integers(0, 40, (9, 3), dtype=np.int32)
    layer = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return {
        "drive": ([basis, canonical_vertices, own, wanted, lips, 4], [4]),
        "place": ([pose, canonical_vertices, vertices, grid, line, int(line[0]), rings], [4]),
        "with_rings": ([flat, flat + 1, line, int(line[0]), 90.0, rings], [2]),
        "moving_triangles": ([flat, flat + 1, triangles, 0.5], [2]),
        "map_to_source": (
            [vertices, grid, canonical_vertices, pose, view, lips, lips[3, 1:3].copy(), 0.014],
            [5, 6],
        ),
        "relight": ([layer, layer.copy(), flat, line, face.Limits(8, 0.6, 24.0, 0.05)], [3]),
    }


@promise
@pytest.mark.parametrize("name", WITH_INDICES)
@pytest.mark.parametrize("vertex", [-1, 40, 2**31 - 1])
def test_an_index_of_no_vertex_is_refused(name, vertex):
    arguments, tables = driven(np.random.default_rng(0))[name]
    getattr(face, name)(*arguments)
    for at in tables:
        hostile = list(arguments)
        hostile[at] = arguments[at].copy()
        hostile[at].flat[-1] = vertex
        with pytest.raises(UsageError, match=r"expected 0\.\.39"):
            getattr(face, name)(*hostile)


@promise
@pytest.mark.parametrize("name", WITH_INDICES)
def test_an_array_of_another_type_or_shape_is_refused(name):
    arguments, tables = driven(np.random.default_rng(0))[name]
    for at, array in enumerate(arguments):
        if not isinstance(array, np.ndarray):
            continue
        for wrong in (array.astype(np.int64), array[..., None]):
            with pytest.raises(UsageError, match="expected"):
                getattr(face, name)(*arguments[:at], wrong, *arguments[at + 1 :])


@promise
def test_a_centre_that_is_no_vertex_is_refused():
    cases = driven(np.random.default_rng(0))
    for name, at in (("place", 5), ("with_rings", 3)):
        arguments = list(cases[name][0])
        for vertex in (-1, 40):
            arguments[at] = vertex
            with pytest.raises(UsageError, match="centre"):
                getattr(face, name)(*arguments)


@promise
def test_pictures_whose_rows_are_not_contiguous_are_refused():
    wide = np.zeros((8, 16, 3), np.uint8)
    points, skin = np.zeros((4, 2), np.float32), np.zeros(1, np.int32)
    limits = face.Limits(8, 0.6, 24.0, 0.05)
    with pytest.raises(UsageError, match="rows of below"):
        face.relight(np.zeros((8, 8, 3), np.uint8), wide[:, ::2], points, skin, limits)
    with pytest.raises(UsageError, match="layer is not contiguous"):
        face.relight(wide[:, :8], wide[:, :8], points, skin, limits)
    with pytest.raises(UsageError, match="rows of window"):
        face.downsample2x(
            np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), np.uint8), wide[:, ::2]
        )
