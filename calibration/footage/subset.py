"""Fewer frames, evenly spread over the footage."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def spread_over(frames: NDArray[np.integer[Any]], most: int) -> NDArray[np.intp]:
    """Frames i64 [n], at most `most` of them, evenly spread and in their order."""
    if len(frames) <= most:
        return frames.astype(np.intp)
    return frames[np.linspace(0, len(frames) - 1, most).astype(int)].astype(np.intp)
