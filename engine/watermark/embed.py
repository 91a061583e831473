"""Writes the mark into frames."""

from __future__ import annotations

import threading
from functools import cache
from typing import Final

import numpy as np

from lipstream.engine.types import U8
from lipstream.engine.watermark import code, pattern
from lipstream.kernels import watermark as kernel
from lipstream.kernels.checks import require_i420

_RMS: Final = 32  # of the pattern as the kernel takes it
_SIZES: Final = 4  # of pictures, whose patterns are kept


class Watermark:
    """The mark of one session. Its methods may be called from any thread."""

    def __init__(self, session: int) -> None:
        """`session`: 0 to 2^32 - 1. Raises: UsageError for another."""
        code.encode(session)
        self.session = session
        self._planes: dict[tuple[int, int], kernel.Pattern] = {}
        self._lock = threading.Lock()

    def prepare(self, h: int, w: int) -> None:
        """Make the pattern for frames of this size now, not at the first of them: 20 ms."""
        self._pattern(h, w)

    def apply(self, frame: U8) -> None:
        """Mark an I420 frame, u8 [h*3/2, w], **in place**; only its luma changes.

        A frame that is marked twice has a mark twice as strong: the caller marks each once.

        Raises: UsageError for what is no I420 frame, or is read-only.
        """
        h, w = require_i420("frame", frame)
        kernel.add_pattern(frame, self._pattern(h, w))

    def marked(self, frame: U8) -> U8:
        """A marked copy of an I420 frame, u8 [h*3/2, w]. Raises: as `apply`."""
        copy = frame.copy()
        self.apply(copy)
        return copy

    def _pattern(self, h: int, w: int) -> kernel.Pattern:
        with self._lock:
            found = self._planes.get((h, w))
            if found is None:
                waves = np.rint(_RMS * pattern.plane(self.session, h, w))
                found = kernel.Pattern(np.clip(waves, -127, 127).astype(np.int8), _dither(w))
                if len(self._planes) >= _SIZES:
                    self._planes.clear()
                self._planes[h, w] = found
            return found


@cache
def _dither(w: int) -> U8:
    """Thresholds for rounding, u8 [64, w]: interleaved gradient noise.

    Source: Jimenez, Next Generation Post Processing in Call of Duty (SIGGRAPH 2014).
    """
    y, x = np.mgrid[0 : kernel.DITHER_ROWS, 0:w]
    return (256 * (52.9829189 * (0.06711056 * x + 0.00583715 * y) % 1)).astype(np.uint8)
