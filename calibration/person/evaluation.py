"""How close a rendered mouth is to the camera's, and how much sharpening one person needs.

What the renderer paints for people it was not trained on comes out soft, by more for one person
than for another, and a blurred camera needs no sharpening at all. Frames of the footage decide:
each is painted with a mouth of another time and compared with what the camera recorded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from lipstream.calibration import bundle_writer
from lipstream.calibration.media.color import LUMA
from lipstream.calibration.person.reenactment import Reenactment
from lipstream.engine.networks.registry import shipped
from lipstream.engine.networks.signatures import RENDERER_INPUT, RENDERER_OUTPUT
from lipstream.engine.networks.stage_cpu import residual
from lipstream.engine.rendering.layers import Layers
from lipstream.engine.rendering.refiner import Renderer, load_renderer
from lipstream.engine.target.bundle import Target, load_target
from lipstream.engine.target.style import SHARPEN
from lipstream.engine.types import F32, U8
from lipstream.kernels.crop import crop_in, crop_out

_FRAMES: Final = 48
_MIN_S: Final = 2.0  # of footage, so that sources exist outside the exclusion window
_MIN_PAIRS: Final = 20
_MAX_SHARPEN: Final = 2.0  # more amplifies only noise
_BISECTIONS: Final = 6
_MIN_SQUARED_ERROR: Final = 1e-2  # keeps the PSNR of equal pictures finite, 68 dB


def compare_with(ours: U8, real: U8, inside: NDArray[np.bool_]) -> dict[str, float]:
    """Scores of a picture u8 [h, w, 3] against the real one where `inside` bool [h, w].

    `psnr_db`; `ssim` of luma; `sharpness`, the mean luma gradient over that of the real one.
    Empty where nothing is inside.
    """
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(rows):
        return {}
    around = (
        slice(max(rows[0] - 4, 0), rows[-1] + 5),
        slice(max(columns[0] - 4, 0), columns[-1] + 5),
    )
    a, b, within = ours[around].astype(np.float32), real[around].astype(np.float32), inside[around]
    error = float(((a - b) ** 2)[within].mean())
    la, lb = a @ LUMA, b @ LUMA
    # 7 × 7 windows, all weighted alike. Source: Wang et al. 2004.
    _, ssim = structural_similarity(
        la, lb, win_size=7, use_sample_covariance=False, data_range=255.0, full=True
    )
    return {
        "psnr_db": float(10 * np.log10(255**2 / max(error, _MIN_SQUARED_ERROR))),
        "ssim": float(ssim[within].mean()),
        "sharpness": _edges(la, within) / max(_edges(lb, within), 1e-3),
    }


def _edges(luma: F32, inside: NDArray[np.bool_]) -> float:
    down, right = np.gradient(luma)
    return float(np.hypot(down, right)[inside].mean())


class Evaluator:
    """Painted frames of a clip, on which renderers are evaluated; the same frames for each."""

    def __init__(self, clip: Target, span: tuple[int, int] | None = None, seed: int = 0) -> None:
        """span: first and end of the frames to draw from."""
        footage = Reenactment([clip], span)
        enough = footage.pairs >= _MIN_PAIRS and footage.seconds >= _MIN_S
        rng = np.random.default_rng(seed)
        self._frames = [footage.draw_painted(rng) for _ in range(_FRAMES if enough else 0)]

    @property
    def frames(self) -> int:
        """How many there are; 0 where the footage is too short."""
        return len(self._frames)

    def figures(self, renderer: Renderer) -> dict[str, float]:
        """Mean of `compare_with` over the frames; empty where the footage is too short."""
        return _mean([_Rendered(renderer, *f).figures(renderer.sharpen) for f in self._frames])

    def sharpening(self, renderer: Renderer, aim: float = 1.0) -> float:
        """The amount for `Renderer(sharpen=)` that brings `sharpness` nearest to `aim`, by
        bisection; SHARPEN where the footage is too short."""
        if not self._frames:
            return SHARPEN
        rendered = [_Rendered(renderer, *frame) for frame in self._frames]
        low, high = 0.0, _MAX_SHARPEN
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            ratio = _mean([one.figures(middle) for one in rendered])["sharpness"]
            low, high = (middle, high) if ratio < aim else (low, middle)
        return round((low + high) / 2, 2)


def fit_sharpening(folder: Path) -> float:
    """Fit how much the shipped renderer sharpens for the person of a bundle, and record it there.

    Returns the amount, which is SHARPEN, unrecorded, where no renderer can be loaded.
    """
    renderer = load_renderer("auto", "auto")
    if renderer is None:
        return SHARPEN
    amount = Evaluator(load_target(folder)).sharpening(renderer)
    bundle_writer.note_sharpen(folder, amount, shipped("renderer").safetensors)
    return amount


class _Rendered:
    """The renderer's output for one frame, to be finished with any amount of sharpening."""

    def __init__(self, renderer: Renderer, layers: Layers, real: U8) -> None:
        assert layers.conditioning is not None and layers.crop is not None, "the layers are guided"
        self._painted, self._conditioning, self._place = (
            layers.painted,
            layers.conditioning,
            layers.crop.place,
        )
        self._has_prior = layers.prior is not None
        self._crop, self._planes = crop_in(
            self._painted,
            self._conditioning,
            layers.prior,
            None,
            self._place,
            layers.crop.shape,
            layers.confidence,
        )
        self._gates = renderer.network.run({RENDERER_INPUT: self._planes[None]})[RENDERER_OUTPUT][0]
        self._real, self._inside = real, layers.mask > 0

    def figures(self, sharpen: float) -> dict[str, float]:
        """The refined mouth compared with the camera's."""
        refined = self._painted.copy()
        difference = residual(
            self._gates, self._planes, self._crop, sharpen, has_prior=self._has_prior
        )
        crop_out(difference, self._crop, refined, self._conditioning, self._place)
        return compare_with(refined, self._real, self._inside)


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    rows = [row for row in rows if row]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]} if rows else {}
