"""The picture: nothing outside the mask changes, closed lips meet, teeth keep their place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipstream.engine.face.mesh import (
    LIP_OUTLINE,
    LIP_REACH,
    FaceMesh,
    build_mesh,
    distance_outside,
    inner_grid,
)
from lipstream.engine.face.model import INNER_LOWER_LIP, INNER_UPPER_LIP, FaceModel, face_model
from lipstream.engine.face.retarget import (
    Placement,
    RetargetedFace,
    drive,
    gap_height,
    map_to_source,
)
from lipstream.engine.rendering.compositor import Compositor
from lipstream.engine.target.bundle import Target, load_target
from lipstream.engine.target.oral_cavity import mouth_of
from lipstream.engine.target.sources import MouthSource
from lipstream.engine.types import F32, U8
from lipstream.kernels.color import i420_to_rgb, rgb_to_i420

MODEL = face_model()
MESH = build_mesh(MODEL)
seeds = st.integers(0, 10**6)


def expression_of(seed: int) -> F32:
    """Any expression, strong ones among them."""
    rng = np.random.default_rng(seed)
    return (rng.uniform(-2.5, 2.5, MODEL.size) * MODEL.spread).astype(np.float32)


@pytest.fixture(scope="module")
def loaded(target: Path) -> Target:
    return load_target(target)


def opened(amount: float) -> F32:
    """An expression whose lips are `amount` inter-ocular distances apart."""
    row = MODEL.lip_rows()[0]
    direction = row * MODEL.spread**2
    return (direction * (amount / float(row @ direction))).astype(np.float32)


def heights_of(expression: F32) -> F32:
    """y of the inner upper and lower lip that the model gives an expression, f32 [2, 11]."""
    lines = [MODEL.basis[:, line, 1] for line in (INNER_UPPER_LIP, INNER_LOWER_LIP)]
    return np.tensordot(expression, np.stack(lines, 1), axes=1)


def mapped(vertices: F32, grid: F32, source: Placement) -> tuple[F32, F32]:
    """Where the grid lies on a frontal source, canonical f32 [G, 2], and its confidence."""
    retargeted = RetargetedFace(
        vertices, grid, np.zeros((0, 2), np.float32), source.expression, source.scale,
        source.rotation,
    )  # fmt: skip
    points, confidence, _ = map_to_source(source, (0.0, 0.0, 1.0), retargeted)
    return (points[len(vertices) :] - source.translation[:2]) / source.scale, confidence


def paint(loaded: Target, expression: F32) -> tuple[U8, U8, U8]:
    """Background, frame and mask of the whole picture, u8 [h, w]."""
    background = loaded.frames.decoder().read(0)
    compositor = Compositor(MESH, loaded.style.mouth)
    source = [(loaded.sources[0], 1.0)]
    composed = compositor.paint(background, loaded.track.placement(0), expression, source)
    frame, (x, y, w, h), mask = composed.frame, composed.box, composed.mask
    whole = np.zeros((loaded.height, loaded.width), np.uint8)
    whole[y : y + h, x : x + w] = mask
    return background, frame, whole


@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_outside_the_mask_every_byte_is_the_backgrounds(loaded: Target, seed: int) -> None:
    background, frame, mask = paint(loaded, expression_of(seed))
    height, width = mask.shape
    luma = slice(0, height)
    same = frame[luma] == background[luma]
    assert same[mask == 0].all()
    # A chroma sample may change where any of its four pixels is masked.
    shared = mask.reshape(height // 2, 2, width // 2, 2).max((1, 3)).ravel() == 0
    chroma, old = frame[height:].reshape(2, -1), background[height:].reshape(2, -1)
    assert (chroma == old)[:, shared].all()
    # Nor does the mask reach the brows or the picture's border.
    brows = loaded.track.landmarks[0][[105, 334], 1].max()
    assert not mask[: int(brows)].any()
    assert not mask[:, :8].any()
    assert not mask[:, -8:].any()


@settings(max_examples=40, deadline=None)
@given(first=seeds, second=seeds)
def test_the_driven_gap_is_the_models(first: int, second: int) -> None:
    start, wanted = expression_of(first), expression_of(second)
    place = placed(MODEL, start)
    vertices, _ = drive(MESH, place, wanted)
    upper, lower = vertices[list(INNER_UPPER_LIP), 1], vertices[list(INNER_LOWER_LIP), 1]
    motion = heights_of(wanted)
    expected = np.maximum(motion[1] - motion[0], 0.0)[1:-1]
    gap = (lower - upper)[1:-1]
    apart = expected > 0.02  # nearer than that, lips are drawn together until they meet
    assert np.allclose(gap[apart], expected[apart], atol=1e-4)
    assert (gap[~apart] <= expected[~apart] + 1e-4).all()
    assert (lower - upper)[1:-1].min() >= -1e-5  # lips never pass through each other


def test_at_rest_the_lips_meet(loaded: Target) -> None:
    rest = loaded.style.rest
    vertices, grid = drive(MESH, loaded.track.placement(0), rest)
    assert gap_height(vertices) == pytest.approx(0.0, abs=1e-4)
    # The portrait smiles with its teeth showing; closed, no pixel between the lips is that bright.
    _, frame, _ = paint(loaded, rest)
    place = loaded.track.placement(0)
    seam = place.project(grid).astype(int)
    luma = frame[: loaded.height]
    columns = [row * 11 + column for row in range(7) for column in range(4, 8)]
    closed = np.array([luma[y, x] for x, y in seam[columns]])
    smiling = loaded.frames.decoder().read(0)[: loaded.height]
    teeth = place.project(inner_grid(place.canonical_vertices)).astype(int)
    bright = np.array([smiling[y, x] for x, y in teeth[columns]])
    assert closed.mean() < bright.mean() - 40


def test_opening_moves_the_lips_and_the_chin(loaded: Target) -> None:
    rest, wide = loaded.style.rest, loaded.style.rest + opened(0.3)
    place = loaded.track.placement(0)
    (closed, _), (open_, _) = drive(MESH, place, rest), drive(MESH, place, wide)
    assert gap_height(open_) == pytest.approx(0.3, abs=0.02)
    assert open_[152, 1] - closed[152, 1] > 0.05  # the chin drops
    assert np.abs(open_[[33, 263, 1, 10]] - closed[[33, 263, 1, 10]]).max() < 0.01


def test_a_source_at_the_targets_own_expression_gives_back_the_picture() -> None:
    """Self-reconstruction: same frame, same expression, so the same pixels."""
    size = 240
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    rgb = np.stack([120 + 40 * np.sin(x / 9), 100 + 30 * np.cos(y / 7), 90 + 0 * x], -1)
    background = rgb_to_i420(rgb.astype(np.uint8))
    place = placed(MODEL, opened(0.2), scale=60.0, at=(120.0, 70.0))
    source = MouthSource(i420_to_rgb(background), (0.0, 0.0), 1.0, place)
    mouth = mouth_of(MODEL, MODEL.mean, np.array([180.0, 140.0, 120.0], np.float32))
    composed = Compositor(MESH, mouth).paint(background, place, place.expression, [(source, 1.0)])
    frame, mask = composed.frame, composed.mask
    assert mask.any()
    difference = np.abs(frame.astype(int) - background.astype(int))
    # The gap is averaged over four samples a pixel, which softens this harsh pattern a little.
    assert difference.max() <= 10
    assert difference.mean() < 0.5


def test_a_source_in_the_same_light_is_not_relit() -> None:
    x, y = np.meshgrid(np.arange(240), np.arange(240))
    rgb = np.stack([200 - x / 4, 150 + y / 8, 120 + x / 8], -1)
    background = rgb_to_i420(rgb.astype(np.uint8))
    place = placed(MODEL, opened(0.0), scale=60.0, at=(120.0, 70.0))
    source = MouthSource(i420_to_rgb(background), (0.0, 0.0), 1.0, place)
    mouth = mouth_of(MODEL, MODEL.mean, np.array([180.0, 140.0, 120.0], np.float32))
    composed = Compositor(MESH, mouth).paint(background, place, place.expression, [(source, 1.0)])
    assert np.abs(composed.frame.astype(int) - background.astype(int)).max() <= 1


def test_the_lip_mesh_reaches_as_far_as_its_mask() -> None:
    """Or the mask ends in an edge, and light is compared where the layer shows nothing."""
    shown = distance_outside(MODEL.mean[:, :2], MODEL.mean[list(LIP_OUTLINE), :2]) < LIP_REACH
    around = np.isin(MODEL.triangles, np.flatnonzero(shown)).any(1)
    inside_lips = np.isin(MODEL.triangles, INNER_UPPER_LIP + INNER_LOWER_LIP).all(1)
    laid = {tuple(t) for t in MESH.lip_triangles.tolist()}
    assert {tuple(t) for t in MODEL.triangles[around & ~inside_lips].tolist()} <= laid


def test_upper_teeth_stay_with_the_head_and_lower_teeth_with_the_jaw() -> None:
    shut, wide = placed(MODEL, opened(0.16)), placed(MODEL, opened(0.2))
    target, grid = drive(MESH, wide, opened(0.2))
    np.testing.assert_allclose(grid, inner_grid(target), atol=1e-6)
    points, confidence = mapped(target, grid, shut)
    assert confidence.min() > 0.9  # nearly the same opening: the source has all of its pixels
    rows = points.reshape(-1, 11, 2), grid.reshape(-1, 11, 3)[..., :2]
    middle = 5
    # Near the upper lip the source is read at the head's own place, to within its own gap.
    top = rows[0][1, middle] - rows[1][1, middle]
    assert abs(top[1]) < 0.02
    jaw = shut.canonical_vertices[152, 1] - target[152, 1]
    bottom = rows[0][-2, middle] - rows[1][-2, middle]
    assert bottom[1] == pytest.approx(jaw, abs=0.03)


@pytest.mark.parametrize("apart", [-0.04, -0.02, 0.04])
def test_a_source_tracked_a_little_off_keeps_its_lips_whole(apart: float) -> None:
    """Where a tracker puts the whole mouth higher or lower on the head, the edges of the gap are
    still read where that mouth's lips are, and all of it is shown, in order."""
    source = placed(MODEL, opened(0.18))
    down = np.array([0, apart, 0], np.float32)
    target, grid = drive(MESH, source, opened(0.18))
    still = mapped(target, grid, source)[0].reshape(7, 11, 2)
    moved = replace(source, canonical_vertices=source.canonical_vertices + down)
    points, confidence = (a.reshape(7, 11, -1) for a in mapped(target, grid, moved))
    edge = np.ones((7, 11), bool)
    edge[1:-1, 1:-1] = False
    np.testing.assert_allclose(points[edge], still[edge] + down[:2], atol=1e-5)
    even = (points[-1, 1:-1, 1] - points[0, 1:-1, 1]) / 6
    assert (np.diff(points[:, 1:-1, 1], axis=0) > 0.3 * even).all()
    assert confidence.min() > 0.95


def test_under_a_raised_lip_no_row_is_shown_twice() -> None:
    """A row that is repeated shows as a band: teeth move with the lip."""
    source = placed(MODEL, opened(0.16))
    target, grid = drive(MESH, placed(MODEL, opened(0.2)), opened(0.2))
    up = np.array([0, -0.1, 0], np.float32)
    target[list(INNER_UPPER_LIP)[1:-1]] += up
    raised = inner_grid(target)
    for column in range(3, 8):
        rows = mapped(target, raised, source)[0].reshape(-1, 11, 2)[:, column, 1]
        even = (rows[-1] - rows[0]) / (len(rows) - 1)
        assert np.diff(rows).min() > 0.3 * even


def test_a_closed_source_has_no_confidence_in_an_open_mouth() -> None:
    target, grid = drive(MESH, placed(MODEL, opened(0.0)), opened(0.35))
    _, confidence = mapped(target, grid, placed(MODEL, opened(0.0)))
    assert confidence.reshape(-1, 11)[3, 5] < 0.05


def placed(
    model: FaceModel, expression: F32, scale: float = 80.0, at: tuple[float, float] = (200.0, 150.0)
) -> Placement:
    """The mean face with an expression, frontal."""
    canonical_vertices = model.mean + model.displacement(expression)
    upper, lower = list(INNER_UPPER_LIP), list(INNER_LOWER_LIP)
    motion = heights_of(expression)
    middle = (canonical_vertices[upper, 1] + canonical_vertices[lower, 1]) / 2
    half = np.maximum(motion[1] - motion[0], 0.0) / 2
    half[[0, -1]] = 0
    canonical_vertices[upper[1:-1], 1] = (middle - half)[1:-1]
    canonical_vertices[lower[1:-1], 1] = (middle + half)[1:-1]
    translation = np.array([*at, 0.0], np.float32)
    return Placement(
        scale, np.eye(3, dtype=np.float32), translation, canonical_vertices, expression
    )


def test_the_mesh_has_no_triangle_over_the_gap() -> None:
    mesh: FaceMesh = MESH
    inner = set(INNER_UPPER_LIP) | set(INNER_LOWER_LIP)
    assert not any(set(t) <= inner for t in mesh.lip_triangles.tolist())
    assert mesh.inner_triangles.max() == len(inner_grid(MODEL.mean)) - 1
