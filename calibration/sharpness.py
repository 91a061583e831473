"""How much the renderer has to sharpen for one person.

What the network paints for people it never learned comes out soft, by more for one than for
another, and a blurred camera wants none of it. Frames of the footage tell: each is painted with a
mouth from another moment, and its edges are held against those that the camera saw.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from lipstream.calibration.pretrain.mouth_pairs import APART_FRAMES, Person
from lipstream.engine.compositor import Layers
from lipstream.engine.renderer import INPUT, OUTPUT, SHARPEN, Renderer
from lipstream.engine.target import Target
from lipstream.engine.types import F32, U8
from lipstream.kernels.crop import crop_in, crop_out, sharpened

_FRAMES: Final = 48
_LEAST_PAIRS: Final = 50  # of frames; of less nothing can be said
_RANGE: Final = (0.0, 2.0)
_STEPS: Final = 6  # of halving the range
_AIM: Final = 1.0  # of the camera's edges; 1.03 costs likeness (docs/models.md)
_LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)


def sharpening(
    clip: Target, renderer: Renderer, span: tuple[int, int] | None = None, seed: int = 0
) -> float:
    """The amount for `Renderer(sharpen=)` by which `clip`'s mouths are as sharp as the camera's.

    span: first and end of the frames that count. SHARPEN where the footage is too short to tell.
    """
    first, end = (0, len(clip.track)) if span is None else span
    person = Person("one", [clip], (first, end), varied=False)
    if person.pairs < _LEAST_PAIRS or end - first < 4 * APART_FRAMES:
        return SHARPEN
    rng = np.random.default_rng(seed)
    tried = [_Tried(renderer, *person.painted(rng)) for _ in range(_FRAMES)]
    low, high = _RANGE
    for _ in range(_STEPS):
        middle = (low + high) / 2
        ratio = float(np.mean([one.ratio(middle) for one in tried]))
        low, high = (middle, high) if ratio < _AIM else (low, middle)
    return round((low + high) / 2, 2)


class _Tried:
    """A frame that the network has seen, to be sharpened by one amount and another."""

    def __init__(self, renderer: Renderer, layers: Layers, real: U8) -> None:
        assert layers.guides is not None and layers.crop is not None, "the layers are guided"
        self._painted, self._guides, self._place = layers.painted, layers.guides, layers.crop.place
        self._seen, planes = crop_in(
            self._painted, self._guides, None, self._place, layers.crop.shape
        )
        self._difference = renderer.network.run({INPUT: planes[None]})[OUTPUT][0]
        self._inside = layers.mask > 0
        self._real = max(self._edges(real), 1e-3)

    def ratio(self, amount: float) -> float:
        """Edges of the mended mouth over the camera's."""
        picture = self._painted.copy()
        difference = sharpened(self._difference, self._seen, amount)
        crop_out(difference, self._seen, picture, self._guides, self._place)
        return self._edges(picture) / self._real

    def _edges(self, picture: U8) -> float:
        """Mean gradient of the luma of u8 [h, w, 3], levels a pixel."""
        luma: F32 = picture.astype(np.float32) @ _LUMA
        down, along = np.gradient(luma)
        return float(np.hypot(down, along)[self._inside].mean())
