"""Dark lines inside an open mouth: a drawn mouth must have none that footage does not have.

The gap between the inner lips is read on a grid that follows them, as luma over that of the skin
beside the mouth. A line is what is darker than both of its neighbourhoods.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.face.model import INNER_LOWER_LIP, INNER_UPPER_LIP
from lipstream.engine.types import F32, U8

OPEN: Final = 0.06  # inter-ocular distances between the lips, above which a mouth counts as open
_ROWS: Final = 24  # of the grid; a quarter of them reaches over either lip
_COLUMNS: Final = 32
_NEAR: Final = 3  # grid cells from a cell to its neighbourhoods
_EDGE: Final = slice(13, 24)  # rows round the edge of the lower lip, at 17.75
_SKIN: Final = (214, 212, 216, 434, 432, 436)
_LUMA: Final = np.array([0.21, 0.72, 0.07], np.float32)


def dark_lines(rgb: U8, landmarks: F32) -> tuple[float, float]:
    """How much darker than both its sides the darkest column is, and the edge of the lower lip.

    rgb: u8 [h, w, 3]; landmarks: f32 [≥468, ≥2], px. Both figures are in parts of the skin's luma;
    0 where nothing is darker.
    """
    grid = _gap(rgb, landmarks)
    column = _dip(grid[_ROWS // 4 : -_ROWS // 4].mean(0))
    edge = max(_dip(part.mean(1)[_EDGE]) for part in np.array_split(grid, 4, axis=1))
    return column, edge


def lines_of_open_mouths(path: Path, landmarks: F32, opening: F32) -> F32:
    """`dark_lines` of each frame of a video whose lips are OPEN or further apart, f32 [n, 2].

    landmarks: f32 [frames, ≥468, ≥2], px; opening: f32 [frames], inter-ocular distances.
    """
    from lipstream.calibration.media.video import open_footage

    with open_footage(path) as footage:
        found = [
            dark_lines(frame.rgb, landmarks[frame.index])
            for frame in footage
            if frame.index < len(opening) and opening[frame.index] >= OPEN
        ]
    return np.array(found, np.float32).reshape(-1, 2)


def _dip(profile: F32) -> float:
    """How far the deepest valley of f32 [n] lies below the lower one of its sides."""
    n = len(profile)
    inner = np.arange(_NEAR, n - _NEAR)
    left, right = profile[inner - _NEAR], profile[inner + _NEAR]
    return float(max((np.minimum(left, right) - profile[inner]).max(), 0.0))


def _gap(rgb: U8, landmarks: F32) -> F32:
    """Luma over that of the skin, between the lips and half as far out, f32 [_ROWS, _COLUMNS]."""
    columns = np.linspace(1.5, len(INNER_UPPER_LIP) - 2.5, _COLUMNS)
    upper, lower = (
        np.stack([np.interp(columns, np.arange(len(line)), landmarks[list(line), c])
                  for c in (0, 1)], 1)
        for line in (INNER_UPPER_LIP, INNER_LOWER_LIP)
    )  # fmt: skip
    down = np.linspace(-0.5, 1.5, _ROWS)[:, None, None]
    skin = _luma(rgb, landmarks[list(_SKIN), :2])
    grid: F32 = _luma(rgb, upper + down * (lower - upper)) / max(float(np.median(skin)), 1.0)
    return grid


def _luma(rgb: U8, points: NDArray[np.floating]) -> F32:
    """Of the pixels at f32 [..., 2], px."""
    limit = np.array(rgb.shape[1::-1]) - 1
    column, row = np.moveaxis(np.clip(np.floor(points).astype(int), 0, limit), -1, 0)
    luma: F32 = rgb[row, column].astype(np.float32) @ _LUMA
    return luma
