"""The visible label: "AI" in a corner of every frame, or a bar across its top.

The patch is computed once for a size of picture; a frame takes one blend of it into I420:
Y' = (Y * keep + add) / 256, and the same for U and V at half the size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.errors import UsageError
from lipstream.engine.types import F32, U8
from lipstream.streaming.marking.glyphs import draw_text, text_width

OFF: Final = "off"
KINDS: Final = {"corner": "AI", "bar": "AI GENERATED"}
# Of the shorter side of the picture; at 256 px and below the letters keep 12 px.
_CAPITAL: Final = 1 / 30
_MIN_CAPITAL_PX: Final = 12
_WHITE, _BLACK, _GREY = 235, 16, 128  # limited range; grey is U and V without colour
_BACKGROUND: Final = 0.62  # of the box, over the picture


@dataclass(frozen=True, slots=True)
class LabelPatch:
    """What is blended into frames of one size."""

    x: int  # px, even; of the upper left corner
    y: int
    size: tuple[int, int]  # columns and rows, even
    luma: tuple[NDArray[np.uint16], NDArray[np.uint16]]  # keep and add, u16 [rows, columns]
    chroma: tuple[NDArray[np.uint16], NDArray[np.uint16]]  # u16 [rows / 2, columns / 2]

    def draw(self, i420: U8) -> None:
        """Blend it into a frame, u8 [h * 3 / 2, w], in place."""
        height, width = i420.shape[0] * 2 // 3, i420.shape[1]
        columns, rows = self.size
        _blend(i420[self.y : self.y + rows, self.x : self.x + columns], *self.luma)
        half = slice(self.y // 2, (self.y + rows) // 2), slice(self.x // 2, (self.x + columns) // 2)
        for plane in i420[height:].reshape(2, height // 2, width // 2):
            _blend(plane[half], *self.chroma)


def _blend(part: U8, keep: NDArray[np.uint16], add: NDArray[np.uint16]) -> None:
    mixed = part * keep  # u16: at most 255 * 256
    mixed += add
    mixed >>= 8
    part[...] = mixed


@dataclass(frozen=True, slots=True)
class LabelLayout:
    """Where the label of a kind lies in pictures of one size, and its letters."""

    x: int  # px, even; of the upper left corner
    y: int
    text: F32  # f32 [rows, columns], coverage of the letters


def label_layout(kind: str, width: int, height: int, scale: float = 1.0) -> LabelLayout:
    """For a picture, or for one that was made `scale` times larger since; sides in px, even.

    Raises: UsageError for an unknown kind.
    """
    text = KINDS.get(kind)
    if text is None:
        raise UsageError(f"--label {kind}: expected off:REASON, {' or '.join(KINDS)}")
    capital = max(round(_MIN_CAPITAL_PX * scale), round(_CAPITAL * min(width, height)))
    stroke = 0.19 * capital
    wide = text_width(text) * capital + stroke
    rows = min(_even(capital + stroke + 0.75 * capital), _floor_even(height))
    if kind == "bar":
        x, y, columns = 0, 0, _floor_even(width)
    else:
        columns = min(_even(wide + 1.1 * capital), _floor_even(width))
        margin = _even(0.5 * capital)
        x, y = max(0, _floor_even(width) - columns - margin), min(margin, height - rows)
    at = ((columns - wide + stroke) / 2, (rows - capital) / 2)
    return LabelLayout(x, y, draw_text(text, capital, stroke, (columns, rows), at))


@lru_cache(maxsize=16)
def label_patch(kind: str, width: int, height: int) -> LabelPatch:
    """The patch of a kind for a size of picture; sides in px, even.

    Raises: UsageError for an unknown kind.
    """
    layout = label_layout(kind, width, height)
    letters = layout.text
    rows, columns = letters.shape
    box = np.full((rows, columns), _BACKGROUND, np.float32)
    if kind == "corner":
        box *= _rounded(rows, columns, 0.3 * rows)
    keep = (1 - letters) * (1 - box)
    value = letters * _WHITE + (1 - letters) * box * _BLACK
    halves = keep.reshape(rows // 2, 2, columns // 2, 2).mean(axis=(1, 3))
    return LabelPatch(
        layout.x,
        layout.y,
        (columns, rows),
        _fixed_point(keep, value),
        _fixed_point(halves, (1 - halves) * _GREY),
    )


def _fixed_point(keep: F32, value: F32) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """In 256ths; half is added, for rounding."""
    kept = np.rint(keep * 256).astype(np.uint16)
    return kept, (np.rint(value * 256) + np.where(kept < 256, 128, 0)).astype(np.uint16)


def _rounded(rows: int, columns: int, radius: float) -> F32:
    """Coverage of a box with round corners, f32 [rows, columns]."""
    x = np.maximum(np.abs(np.arange(columns) + 0.5 - columns / 2) - columns / 2 + radius, 0)
    y = np.maximum(np.abs(np.arange(rows) + 0.5 - rows / 2) - rows / 2 + radius, 0)
    return np.clip(radius + 0.5 - np.hypot(x[None], y[:, None]), 0, 1).astype(np.float32)


def _even(length: float) -> int:
    return 2 * round(length / 2)


def _floor_even(length: int) -> int:
    return length // 2 * 2
