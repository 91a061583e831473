"""The letters of the label, as strokes: no font is needed, and every size is drawn for itself."""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np

from lipstream.engine.types import F32

Point: TypeAlias = tuple[float, float]  # x to the right, y down; capitals reach from y 0 to y 1
Stroke: TypeAlias = tuple[Point, ...]  # a line through these points

_SPACING: Final = 0.34  # between letters, in heights of a capital
_SPACE: Final = 0.4


def _arc(middle: Point, radii: Point, from_deg: float, to_deg: float) -> Stroke:
    angles = np.radians(np.linspace(from_deg, to_deg, 13))
    return tuple(
        (middle[0] + radii[0] * float(np.cos(a)), middle[1] + radii[1] * float(np.sin(a)))
        for a in angles
    )


# Width of each letter, and its strokes.
_LETTERS: Final[dict[str, tuple[float, tuple[Stroke, ...]]]] = {
    "A": (0.84, (((0, 1), (0.42, 0), (0.84, 1)), ((0.14, 0.67), (0.70, 0.67)))),
    "D": (0.68, (((0, 0), (0, 1), (0.3, 1)), _arc((0.3, 0.5), (0.38, 0.5), 90, -90),
                 ((0.3, 0), (0, 0)))),
    "E": (0.58, (((0.58, 0), (0, 0), (0, 1), (0.58, 1)), ((0, 0.49), (0.5, 0.49)))),
    "G": (0.8, (_arc((0.42, 0.5), (0.42, 0.5), -42, -360), ((0.84, 0.5), (0.5, 0.5)))),
    "I": (0.0, (((0, 0), (0, 1)),)),
    "N": (0.72, (((0, 1), (0, 0), (0.72, 1), (0.72, 0)),)),
    "R": (0.62, (((0, 1), (0, 0), (0.34, 0)), _arc((0.34, 0.27), (0.28, 0.27), -90, 90),
                 ((0.34, 0.54), (0, 0.54)), ((0.3, 0.54), (0.64, 1)))),
    "T": (0.72, (((0, 0), (0.72, 0)), ((0.36, 0), (0.36, 1)))),
}  # fmt: skip


def text_width(text: str) -> float:
    """In heights of a capital, between the middles of the outer strokes."""
    return sum(_advance(letter) for letter in text) - _SPACING


def draw_text(text: str, height: int, stroke: float, size: tuple[int, int], at: Point) -> F32:
    """Coverage of each pixel, 0 to 1, f32 [rows, columns].

    Args:
        text: of the letters that there are, and spaces.
        height: of a capital, px.
        stroke: width of a line, px.
        size: of the picture: columns and rows.
        at: middle of the upper left end of the text, px.
    """
    coverage = np.zeros((size[1], size[0]), np.float32)
    left = at[0]
    for letter in text:
        for line in _LETTERS[letter][1] if letter != " " else ():
            points = [(left + height * px, at[1] + height * py) for px, py in line]
            for begin, end in zip(points, points[1:], strict=False):
                _draw_line(coverage, begin, end, stroke / 2)
        left += height * _advance(letter)
    return coverage


def _advance(letter: str) -> float:
    return (_SPACE if letter == " " else _LETTERS[letter][0]) + _SPACING


def _draw_line(coverage: F32, begin: Point, end: Point, radius: float) -> None:
    """With round ends; the edge is one pixel soft."""
    margin = radius + 1
    x0, x1 = sorted((begin[0], end[0]))
    y0, y1 = sorted((begin[1], end[1]))
    left, top = max(0, int(x0 - margin)), max(0, int(y0 - margin))
    part = coverage[top : int(y1 + margin) + 1, left : int(x1 + margin) + 1]
    x = np.arange(part.shape[1], dtype=np.float32)[None] + (left + 0.5 - begin[0])
    y = np.arange(part.shape[0], dtype=np.float32)[:, None] + (top + 0.5 - begin[1])
    dx, dy = end[0] - begin[0], end[1] - begin[1]
    along = np.clip((x * dx + y * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
    distance = np.hypot(x - along * dx, y - along * dy)
    np.maximum(part, np.clip(radius + 0.5 - distance, 0, 1), out=part)
