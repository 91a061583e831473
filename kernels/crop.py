"""A square of the picture into a network's input, and what the network adds back.

The square is (left, top, side) in px of the picture. CPU only: a network on a GPU is not fed from
here yet.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.errors import UsageError
from lipstream.kernels import compiled, reference
from lipstream.kernels.checks import require
from lipstream.kernels.choice import use_compiled

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
Square = tuple[float, float, float]


def crop_in(
    picture: U8, guides: U8, previous: U8 | None, square: Square, size: int
) -> tuple[U8, F32]:
    """Bilinear samples of picture and guides, both u8 [h, w, 3]; the border repeats.

    previous: u8 [size, size, 3], the crop of the frame before; None: this one's own.
    Returns u8 [size, size, 6], and with `previous` f32 [9, size, size], 0 to 1.
    """
    require("picture", picture, np.uint8, (None, None, 3))
    require("guides", guides, np.uint8, picture.shape)
    if previous is not None:
        require("previous", previous, np.uint8, (size, size, 3))
    _require_square(square)
    if use_compiled():
        return compiled.crop_in(picture, guides, previous, square, size)
    return reference.crop_in(picture, guides, previous, square, size)


def crop_out(difference: F32, seen: U8, picture: U8, guides: U8, square: Square) -> U8:
    """Add a difference f32 [3, size, size] (1 is full scale) to `picture` u8 [h, w, 3], in place.

    It counts by the first channel of the guides u8 [h, w, 3], the opacity; where that is 0 nothing
    changes. seen: what `crop_in` returned. Differences are rounded to levels and bounded to half
    of full scale. Returns the crop with the same added, u8 [size, size, 3].
    """
    size = len(seen)
    require("seen", seen, np.uint8, (size, size, 6))
    require("difference", difference, np.float32, (3, size, size))
    require("picture", picture, np.uint8, (None, None, 3))
    require("guides", guides, np.uint8, picture.shape)
    _require_square(square)
    if not picture.flags.c_contiguous:
        raise UsageError("picture is not contiguous; it is written in place")
    if use_compiled():
        return compiled.crop_out(difference, seen, picture, guides, square)
    return reference.crop_out(difference, seen, picture, guides, square)


def _require_square(square: Square) -> None:
    if not (np.isfinite(square).all() and square[2] > 0):
        raise UsageError(f"square {square}; expected finite left, top and a side above 0")
