"""Colours and teeth of a mouth, from the pixels of its sources."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lipstream.engine.face.dental_arches import (
    COLUMNS,
    LOWER,
    ROWS,
    STEP,
    TALL,
    UPPER,
    arch_table,
)
from lipstream.engine.face.model import INNER_LOWER_LIP, INNER_UPPER_LIP, face_model
from lipstream.engine.face.retarget import Placement
from lipstream.engine.target.bundle import Target, load_target
from lipstream.engine.target.observed_mouth import with_observed
from lipstream.engine.target.oral_cavity import Mouth, mouth_motion, mouth_of, upper_grid
from lipstream.engine.target.sources import MouthSource
from lipstream.engine.types import F32

MODEL = face_model()
SKIN, LIP, TOOTH, HOLE = (200, 150, 125), (190, 100, 95), (225, 210, 190), (50, 20, 20)
Color = tuple[int, int, int]
SIZE, SCALE, MIDDLE = 300, 100.0, (150.0, 20.0)


def painted(
    gap: float, teeth_down_to: float, right: float = 1.0, tooth: Color = TOOTH, row: float = 9.0
) -> MouthSource:
    """The mean face, its lips `gap` apart, with teeth from the upper lip down to a y, as far as
    half of `row` from the middle, on a skin that is `right` times as bright on the right."""
    vertices = MODEL.mean.copy()
    upper, lower = list(INNER_UPPER_LIP), list(INNER_LOWER_LIP)
    vertices[upper[1:-1], 1] -= gap / 4
    vertices[lower[1:-1], 1] += gap * 3 / 4
    place = Placement(
        SCALE, np.eye(3, dtype=np.float32), np.array([*MIDDLE, 0], np.float32), vertices,
        np.zeros(MODEL.size, np.float32),
    )  # fmt: skip
    x, y = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    rgb = np.where(x[..., None] > MIDDLE[0], right, 1.0) * np.array(SKIN)
    at = place.project(vertices)
    roof, floor = (np.interp(x, at[line, 0], at[line, 1]) for line in (upper, lower))
    across = (x > at[upper[0], 0]) & (x < at[upper[-1], 0])
    rgb[across & (y > roof - 15) & (y < floor + 20)] = LIP
    inside = across & (y > roof) & (y < floor)
    rgb[inside] = HOLE
    shown = (y < MIDDLE[1] + SCALE * teeth_down_to) & (np.abs(x - MIDDLE[0]) < SCALE * row / 2)
    rgb[inside & shown] = tooth
    return MouthSource(rgb.astype(np.uint8), (0.0, 0.0), 1.0, place)


def observed(*sources: MouthSource) -> Mouth:
    mouth = bare()
    return with_observed(mouth, sources, upper_grid(mouth, MODEL))


def bare() -> Mouth:
    return mouth_of(MODEL, MODEL.mean, np.array(SKIN, np.float32))


def test_a_closed_mouth_shows_lips_and_no_teeth() -> None:
    seen = observed(painted(0.0, 0.0)).observed
    assert seen is not None
    assert (seen.teeth, seen.upper) == (None, None)
    np.testing.assert_allclose(seen.lips, [LIP, LIP], atol=3)
    np.testing.assert_allclose(seen.skin, SKIN, atol=3)
    assert seen.gradient == pytest.approx(0, abs=0.01)


def test_a_smile_gives_the_colour_and_the_edge_of_its_teeth() -> None:
    edge = float(MODEL.mean[13, 1]) + 0.09
    seen = observed(painted(0.0, 0.0), painted(0.2, edge)).observed
    assert seen is not None
    assert seen.teeth is not None
    assert seen.upper is not None
    assert np.ptp(seen.teeth / np.array(TOOTH)) < 0.03  # their hue
    assert 1.0 <= float(seen.teeth.mean() / np.mean(TOOTH)) < 1.2  # out of the shade of the lips
    assert seen.upper.edge == pytest.approx(edge, abs=0.02)


def test_where_the_lower_lip_covers_the_edge_teeth_reach_behind_it() -> None:
    source = painted(0.12, 9.0)
    seen = observed(source).observed
    assert seen is not None
    assert seen.upper is not None
    floor = float(source.placement.canonical_vertices[14, 1])
    assert floor - 0.02 < seen.upper.edge < floor + 0.04


def test_a_short_row_gives_its_colour_alone() -> None:
    """A few teeth between drawn ones would be seen as what they are."""
    edge = float(MODEL.mean[13, 1]) + 0.09
    short = observed(painted(0.2, edge, row=0.3)).observed
    long = observed(painted(0.2, edge)).observed
    assert short is not None and long is not None
    assert short.upper is not None and long.upper is not None
    np.testing.assert_allclose(short.teeth, long.teeth, rtol=0.05)
    assert short.upper.edge == pytest.approx(edge, abs=0.02)
    assert short.upper.table[..., 3:].max() == 0
    assert long.upper.table[..., 3].max() == 1


def test_teeth_in_the_shade_are_as_dark_as_they_are_seen() -> None:
    dim = (120, 94, 88)  # in red light, darker than the skin
    seen = observed(painted(0.12, float(MODEL.mean[13, 1]) + 0.06, tooth=dim)).observed
    assert seen is not None
    assert seen.teeth is not None
    assert np.ptp(seen.teeth / np.array(dim)) < 0.03  # their hue
    assert 1.0 <= float(seen.teeth.mean() / np.mean(dim)) < 1.45  # out of the shade of the lips


def test_light_from_the_right_is_seen() -> None:
    seen = observed(painted(0.0, 0.0, right=1.2)).observed
    assert seen is not None
    assert seen.gradient == pytest.approx(0.4 * 0.18 / 1.5, rel=0.15)


def test_own_teeth_are_drawn_where_they_were() -> None:
    """The table of a mouth holds the pixels of its smile, and drawn teeth round them."""
    edge = float(MODEL.mean[13, 1]) + 0.09
    mouth = observed(painted(0.2, edge))
    assert mouth.observed is not None
    assert mouth.observed.upper is not None
    table = mouth.cavity(MODEL).teeth[0]
    row = round(TALL / STEP) - round(0.05 / STEP)  # 0.05 above the edge
    own = table[row, COLUMNS // 2 - 20 : COLUMNS // 2 + 20, :3]
    assert (own / np.array(TOOTH) >= 0.98).all()
    drawn = replace(mouth, observed=replace(mouth.observed, upper=None)).cavity(MODEL).teeth[0]
    assert np.abs(table - drawn)[row, COLUMNS // 2].max() > 1
    np.testing.assert_array_equal(table[0, :, 3], drawn[0, :, 3])


def test_the_demos_smile_shows_its_teeth(target: Path) -> None:
    loaded: Target = load_target(target)
    seen = loaded.style.mouth.observed
    assert seen is not None
    assert seen.teeth is not None
    assert (seen.teeth > seen.lips.mean(0)).all()


@pytest.mark.parametrize("arch", [UPPER, LOWER])
def test_an_arch_darkens_towards_its_ends_and_covers_its_side(arch) -> None:  # type: ignore[no-untyped-def]
    table = arch_table(arch, np.full(3, 220, np.float32), np.full(3, 150, np.float32), 0.013)
    assert table.shape == (ROWS, COLUMNS, 4)
    gum, tip = (0, -1) if arch is UPPER else (-1, 0)
    assert table[gum, COLUMNS // 2, 3] == 1
    assert table[tip, :, 3].max() == 0
    edge = round(TALL / STEP) - 10 if arch is UPPER else ROWS - round(TALL / STEP) + 9
    row = table[edge, :, :3].mean(-1)
    assert row[COLUMNS // 2 - 8] > 1.5 * row[10]
    np.testing.assert_allclose(row, row[::-1], atol=1e-2)


def test_lines_of_sight_follow_the_head() -> None:
    angle = np.radians(20)
    turn = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]],
        np.float32,
    )
    grid: F32 = np.zeros((22, 3), np.float32)
    grid[10], grid[21], grid[11:, 1] = (0.4, 0, 0), (0.4, 0, 0), 0.1
    ahead, turned = (mouth_motion(grid, 11, 0.1, r) for r in (np.eye(3, dtype=np.float32), turn))
    np.testing.assert_allclose(ahead[4:], 0, atol=1e-6)
    # The axis of the camera in the face's coordinates is the last row of the rotation.
    np.testing.assert_allclose(turned[4:], turn[2, :2] / turn[2, 2], atol=1e-5)
    assert 0 < ahead[2] < 1


def test_blur_and_grain_of_a_camera_are_found() -> None:
    sharp = painted(0.0, 0.0)
    random = np.random.default_rng(0)
    noise = random.normal(0, 3, sharp.rgb.shape[:2])[..., None]
    soft = sharp.rgb.astype(np.float32)
    for _ in range(3):  # a mean over three has a variance of 2/3
        for axis in (0, 1):
            soft = (np.roll(soft, 1, axis) + soft + np.roll(soft, -1, axis)) / 3
    cameras = []
    for rgb in (sharp.rgb, soft, soft + noise):
        one = replace(sharp, rgb=np.clip(rgb, 0, 255).astype(np.uint8))
        seen = observed(one).observed
        assert seen is not None
        cameras.append(seen.camera)
    crisp, blurred, grainy = cameras
    assert crisp.blur < 0.01
    # Neighbouring edges and the difference of pixels add to it.
    assert 1 < blurred.blur * SCALE / np.sqrt(3 * 2 / 3) < 1.7
    assert blurred.grain < 0.5
    assert 1.5 < grainy.grain < 3.5
    assert grainy.pixel == pytest.approx(1 / SCALE)
