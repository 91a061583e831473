"""Dark lines in an open mouth, on drawn ones."""

from __future__ import annotations

import numpy as np
import pytest

from lipstream.bench.measure.dark_lines import dark_lines
from lipstream.bench.measure.photos import LipMotion, line_figures
from lipstream.engine.face.model import INNER_LOWER_LIP, INNER_UPPER_LIP, face_model
from lipstream.engine.types import F32, U8

SCALE, MIDDLE, GAP = 100.0, np.array([100.0, -60.0]), 0.3


def face() -> F32:
    """Landmarks of a mouth that is open in the shape of a box, px."""
    vertices = face_model().mean.copy()
    for line, y in ((INNER_UPPER_LIP, 1.0), (INNER_LOWER_LIP, 1.0 + GAP)):
        vertices[list(line), 1] = y
    return (vertices[:, :2] * SCALE + MIDDLE).astype(np.float32)


def mouth() -> U8:
    """Skin of 200, lips of 140, and between them teeth of 160 that darken evenly downwards."""
    rgb = np.full((200, 200, 3), 200, np.uint8)
    rgb[30:82, 50:150] = 140
    down = np.arange(40, 70)
    rgb[40:70, 50:150] = (160 - (down - 40) * 2 // 3)[:, None, None]
    return rgb


def test_a_mouth_that_darkens_inwards_has_no_lines() -> None:
    assert max(dark_lines(mouth(), face())) < 0.02


@pytest.mark.parametrize("depth", [40, 90])
def test_a_dark_column_is_as_deep_as_it_is_drawn(depth: int) -> None:
    rgb = mouth()
    rgb[40:70, 99:103] -= np.uint8(depth)
    column, edge = dark_lines(rgb, face())
    assert column == pytest.approx(depth / 200, rel=0.15)
    assert edge < 0.03


def test_an_outline_along_the_lower_lip_is_found() -> None:
    rgb = mouth()
    rgb[67:70, 50:150] = 20
    column, edge = dark_lines(rgb, face())
    assert column < 0.02
    assert edge > 0.4


def test_percentiles_are_of_open_mouths() -> None:
    some = LipMotion(*[np.zeros(1, np.float32)] * 3, np.zeros(1), np.eye(2, dtype=np.float32))
    none = LipMotion(*[np.zeros(1, np.float32)] * 3, np.zeros(1), np.zeros((0, 2), np.float32))
    figures = line_figures(none, some)
    assert (figures["own column"], figures["own edge"]) == (0, 0)
    assert figures["column"] == figures["edge"] == pytest.approx(0.99)
