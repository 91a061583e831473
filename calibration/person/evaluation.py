"""How like the camera's a painted mouth is, and how much one person's has to be sharpened.

What the network paints for people it never learned comes out soft, by more for one than for
another, and a blurred camera wants none of it. Frames of the footage tell: each is painted with a
mouth from another moment, and held against what the camera saw.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from lipstream.calibration.training.renderer.self_reenactment import Person
from lipstream.engine.rendering.compositor import Layers
from lipstream.engine.rendering.refiner import INPUT, OUTPUT, SHARPEN, Renderer, residual
from lipstream.engine.target.bundle import Target
from lipstream.engine.types import F32, U8
from lipstream.kernels.crop import crop_in, crop_out

_FRAMES: Final = 48
_LEAST_S: Final = 2.0  # of footage, for mouths of another moment
_LEAST_PAIRS: Final = 20  # of frames that count; of less nothing can be said
_MOST: Final = 2.0  # beyond that only noise is sharpened
_STEPS: Final = 6  # of halving the range
_LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)


def compare_with(ours: U8, real: U8, inside: NDArray[np.bool_]) -> dict[str, float]:
    """Where `inside` bool [h, w], pictures u8 [h, w, 3]: `psnr_db`; `ssim` of luma; `sharpness`,
    the mean gradient of luma over the real one."""
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(rows):
        return {}
    around = (
        slice(max(rows[0] - 4, 0), rows[-1] + 5),
        slice(max(columns[0] - 4, 0), columns[-1] + 5),
    )
    a, b, within = ours[around].astype(np.float32), real[around].astype(np.float32), inside[around]
    error = float(((a - b) ** 2)[within].mean())
    la, lb = a @ _LUMA, b @ _LUMA
    return {
        "psnr_db": float(10 * np.log10(255**2 / max(error, 1e-2))),
        "ssim": float(_ssim(la, lb)[within].mean()),
        "sharpness": _edges(la, within) / max(_edges(lb, within), 1e-3),
    }


def _ssim(a: F32, b: F32) -> F32:
    """SSIM map of two lumas, 7 × 7 windows. Source: Wang et al. 2004."""
    ma, mb = uniform_filter(a, 7), uniform_filter(b, 7)
    va, vb = uniform_filter(a * a, 7) - ma * ma, uniform_filter(b * b, 7) - mb * mb
    cov = uniform_filter(a * b, 7) - ma * mb
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    value: F32 = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    return value


def _edges(luma: F32, inside: NDArray[np.bool_]) -> float:
    down, right = np.gradient(luma)
    return float(np.hypot(down, right)[inside].mean())


class Evaluator:
    """Frames of a clip with their mouths laid on, for one renderer and another to mend."""

    def __init__(self, clip: Target, span: tuple[int, int] | None = None, seed: int = 0) -> None:
        """span: first and end of the frames that count."""
        person = Person("one", [clip], span, varied=False)
        enough = person.pairs >= _LEAST_PAIRS and person.seconds >= _LEAST_S
        rng = np.random.default_rng(seed)
        self._frames = [person.painted(rng) for _ in range(_FRAMES if enough else 0)]

    @property
    def frames(self) -> int:
        """How many there are; 0 where the footage is too short."""
        return len(self._frames)

    def figures(self, renderer: Renderer) -> dict[str, float]:
        """What `against` measures, mean over the frames; nothing where the footage is too short."""
        return _mean([_Seen(renderer, *frame).figures(renderer.sharpen) for frame in self._frames])

    def sharpening(self, renderer: Renderer, aim: float = 1.0) -> float:
        """The amount for `Renderer(sharpen=)` by which edges come to `aim` times the camera's, or
        as near as can be; SHARPEN where the footage is too short."""
        if not self._frames:
            return SHARPEN
        seen = [_Seen(renderer, *frame) for frame in self._frames]
        low, high = 0.0, _MOST
        for _ in range(_STEPS):
            middle = (low + high) / 2
            ratio = _mean([one.figures(middle) for one in seen])["sharpness"]
            low, high = (middle, high) if ratio < aim else (low, middle)
        return round((low + high) / 2, 2)


class _Seen:
    """A frame that the network has seen, to be sharpened by one amount and another."""

    def __init__(self, renderer: Renderer, layers: Layers, real: U8) -> None:
        assert layers.guides is not None and layers.crop is not None, "the layers are guided"
        self._painted, self._guides, self._place = layers.painted, layers.guides, layers.crop.place
        self._told = layers.prior is not None
        self._crop, self._planes = crop_in(
            self._painted,
            self._guides,
            layers.prior,
            None,
            self._place,
            layers.crop.shape,
            layers.confidence,
        )
        self._gates = renderer.network.run({INPUT: self._planes[None]})[OUTPUT][0]
        self._real, self._inside = real, layers.mask > 0

    def figures(self, sharpen: float) -> dict[str, float]:
        """The mended mouth against the camera's."""
        picture = self._painted.copy()
        difference = residual(self._gates, self._planes, self._crop, sharpen, has_prior=self._told)
        crop_out(difference, self._crop, picture, self._guides, self._place)
        return compare_with(picture, self._real, self._inside)


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    rows = [row for row in rows if row]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]} if rows else {}
