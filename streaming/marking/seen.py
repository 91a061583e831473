"""Looks for the visible label in pictures: is it there, and which?"""

from __future__ import annotations

from typing import Final

import numpy as np

from lipstream.engine.types import F32
from lipstream.streaming.marking.label import KINDS, label_layout

_LIKE: Final = 0.6  # correlation with the letters; 104 clips without a label stay below 0.25
_SHIFT_PX: Final = 3
_MIN_SIDE_PX: Final = 48  # no letter can be read below
# Small pictures have larger letters; a picture that was enlarged from one has them still.
_ENLARGED: Final = (1.0, 0.5, 0.67, 1.5, 2.0, 3.0)


def find_label(luma: F32) -> str | None:
    """The kind of label in a picture, the mean of a few frames for a film; None without one.

    luma: f32 [h, w].
    """
    if min(luma.shape) < _MIN_SIDE_PX:
        return None
    best = max((_likeness(luma, kind, scale), kind) for kind in KINDS for scale in _ENLARGED)
    return best[1] if best[0] >= _LIKE else None


def _likeness(luma: F32, kind: str, scale: float) -> float:
    """The best correlation of the letters with the picture near where they would be."""
    height, width = luma.shape
    layout = label_layout(kind, width, height, scale)
    rows, columns = layout.text.shape
    if rows > height or columns > width:
        return 0.0
    used = np.flatnonzero(layout.text.any(axis=0))
    first, last = max(0, int(used[0]) - rows // 4), min(columns, int(used[-1]) + rows // 4)
    letters = layout.text[:, first:last]
    pattern = letters - letters.mean()
    pattern /= np.linalg.norm(pattern)
    best = 0.0
    for dy in range(-_SHIFT_PX, _SHIFT_PX + 1):
        for dx in range(-_SHIFT_PX, _SHIFT_PX + 1):
            y, x = layout.y + dy, layout.x + first + dx
            part = luma[max(y, 0) : y + rows, max(x, 0) : x + last - first]
            if y < 0 or x < 0 or part.shape != pattern.shape:
                continue
            part = part - part.mean()
            norm = float(np.linalg.norm(part))
            # Darker pictures than this show noise and nothing to read.
            if norm > 4.0 * np.sqrt(part.size):
                best = max(best, float((part * pattern).sum()) / norm)
    return best
