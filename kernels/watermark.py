"""The watermark's pattern, added to the luma of an I420 frame.

A block of 8x8 pixels carries as much of it as its own texture hides: a little on skin, more on
hair, cloth and edges, and less near black. Integers only, so every implementation gives the same
bytes.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lipstream.kernels import native
from lipstream.kernels.checks import require, require_i420
from lipstream.kernels.dispatch import kernel
from lipstream.kernels.errors import UsageError
from lipstream.kernels.reference import watermark as reference

U8 = NDArray[np.uint8]
I8 = NDArray[np.int8]

DITHER_ROWS: Final = 64


class Pattern(NamedTuple):
    """For frames of one size."""

    waves: I8  # i8 [h, w]
    dither: U8  # u8 [DITHER_ROWS, w], thresholds for rounding, repeated downwards


def add_pattern(i420: U8, pattern: Pattern) -> None:
    """Change the luma of u8 [h*3/2, w] **in place**.

    Raises: UsageError for a frame that is read-only, and a pattern of another size.
    """
    h, w = require_i420("i420", i420)
    require("waves", pattern.waves, np.int8, (h, w))
    require("dither", pattern.dither, np.uint8, (DITHER_ROWS, w))
    if not i420.flags.writeable:
        raise UsageError("i420 is read-only; pass a writable copy, it is changed in place")
    add_waves(i420, pattern.waves, pattern.dither)


@kernel(reference.add_waves)
def add_waves(i420: U8, waves: I8, dither: U8) -> None:
    """`add_pattern` without its checks."""
    h, w = waves.shape
    native.library().ls_add_waves(i420, w, h, waves, dither)
