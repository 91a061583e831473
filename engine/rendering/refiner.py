"""The renderer: a small model that refines the warped mouth in a crop that moves with the head.

    warped mouth ─► crop 192×160 ─► model ─► gates ─► difference ─► back to the picture,
                        ▲            ▲                                inside the mask
       conditioning maps, prior    its previous crop, refined

The appearance prior (`engine.target.appearance`) is predicted from all of the person's footage. A
source mouth is sharp but wrong in places; the prior is soft but right on the whole. The model
predicts, for each pixel, how much of either to show. So every pixel comes from the person's own
footage: on an unseen face or light the model may weigh the two badly, but it cannot invent a third
mouth.

The crop's resolution is the number of pixels across 1.8 inter-ocular distances: 256 as trained, 384
and 512 where the footage has more. Of that square the crop is 3/4 of the width and 5/8 of the
height, where a lip layer can be.

The gated difference is added to the picture: where it is 0, pixels keep the resolution of the
picture, and resampling does not blur them. The difference is weighted by the opacity of the lip
layer, so outside the mouth mask nothing changes.
Source: the rendering network of *Everybody's Talkin'* (arXiv 2001.05201, §III-C) paints the whole
lower face from a masked one; this model starts from a picture that is nearly right, and is ours.
"""

from __future__ import annotations

import logging
from typing import Final

from lipstream.engine.errors import AssetError, BackendUnavailable, UsageError
from lipstream.engine.frozen import Frozen
from lipstream.engine.networks import models as networks
from lipstream.engine.networks.base import FAST, Network
from lipstream.engine.networks.batcher import Batcher, Seat
from lipstream.engine.networks.models import Models
from lipstream.engine.networks.registry import IN_BATCHES, shipped
from lipstream.engine.networks.signatures import CROP_RESOLUTIONS, crop_shape
from lipstream.engine.networks.stage import StageRow
from lipstream.engine.networks.stage_cpu import refine_row
from lipstream.engine.profiling import span
from lipstream.engine.rendering.layers import Layers
from lipstream.engine.target.style import SHARPEN
from lipstream.engine.types import U8

__all__ = ["RENDERERS", "Renderer", "Seat", "load_renderer"]

log = logging.getLogger(__name__)

RENDERERS: Final = ("auto", "network", "none")


class Renderer(Frozen):
    """The loaded model with the settings of one target; its sessions share it."""

    def __init__(
        self,
        network: Network,
        crop_resolution: int = CROP_RESOLUTIONS[0],
        sharpen: float = SHARPEN,
        batcher: Batcher | None = None,
    ) -> None:
        """`network`: RENDERER_INPUT f32 [1, 12, h, w], 0 to 1, to RENDERER_OUTPUT f32 [1, 3, h, w].

        sharpen: strength of the unsharp mask on the refined crop. batcher: refines in its place,
        in batches with other sessions.
        Raises: UsageError for a crop_resolution that is not one of CROP_RESOLUTIONS.
        """
        if crop_resolution not in CROP_RESOLUTIONS:
            raise UsageError(
                f"crop resolution {crop_resolution}: expected one of "
                f"{', '.join(map(str, CROP_RESOLUTIONS))}"
            )
        self.network, self.crop_resolution, self.sharpen = network, crop_resolution, sharpen
        self._batcher = batcher

    def seat(self) -> Seat | None:
        """One session's place in the batches, where there are batches."""
        return None if self._batcher is None else self._batcher.seat()

    @span("renderer")
    def refine(self, layers: Layers, previous: U8 | None, seat: Seat | None = None) -> U8:
        """Refine the mouth in `layers.painted`, in place.

        previous: what this returned for the frame before; None for the first. seat: the session's.
        Returns: the refined crop u8 [rows, columns, 3].
        Raises: FrameLost, where there are batches.
        """
        maps, crop = layers.conditioning, layers.crop
        assert maps is not None and crop is not None, "painted with a crop"
        row = StageRow(
            layers.painted, maps, layers.prior, previous, crop.place, layers.confidence,
            self.sharpen,
        )  # fmt: skip
        if self._batcher is None:
            return refine_row(self.network, row, crop.shape)
        refined = (self._batcher.run if seat is None else seat.refine)(row)
        layers.painted[:] = refined.pixels
        return refined.crop


def load_renderer(
    choice: str,
    backend: str,
    crop_resolution: int = CROP_RESOLUTIONS[0],
    sharpen: float = SHARPEN,
    models: Models | None = None,
) -> Renderer | None:
    """The shipped model, or None to show the warped mouth unrefined.

    choice: one of RENDERERS; "auto" does without, and logs why, where the package has no weights or
    a CPU's backend has no code for them. models: where it is loaded from; those of the process if
    None.

    Raises:
        UsageError: an unknown choice, backend or crop_resolution.
        AssetError, BackendUnavailable: "network" was asked for and cannot run, or a backend for
            cards, whose renderer is all that there is to it.
    """
    if choice not in RENDERERS:
        raise UsageError(f"renderer {choice!r}: expected one of {', '.join(RENDERERS)}")
    if choice == "none":
        if crop_resolution != CROP_RESOLUTIONS[0]:
            raise UsageError(
                f"crop resolution {crop_resolution} is the renderer's, and it is switched off: "
                "leave out --crop-resolution or --renderer none"
            )
        return None
    shared = networks.SHARED if models is None else models
    try:
        network = shared.load(backend, shipped("renderer"), FAST)
        batcher = shared.load_batcher(network, crop_shape(crop_resolution))
    except (AssetError, BackendUnavailable) as error:
        if choice == "network" or backend in IN_BATCHES:
            raise
        log.warning("no renderer, mouths are warped only: %s", error)
        return None
    return Renderer(network, crop_resolution, sharpen, batcher)
