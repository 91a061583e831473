"""Composites one frame: the background's own jaw moved, the source's lips laid on it, refined.

Outside the mask the frame keeps the background's bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lipstream.engine.face.mesh import FaceMesh
from lipstream.engine.face.retarget import Placement
from lipstream.engine.frozen import Frozen
from lipstream.engine.profiling import span
from lipstream.engine.rendering.fused import FusedPainter
from lipstream.engine.rendering.layers import Layers, WantedMouth
from lipstream.engine.rendering.lip_layer import build_lip_layer
from lipstream.engine.rendering.mouth_crop import MouthCrop
from lipstream.engine.rendering.refiner import Renderer, Seat
from lipstream.engine.rendering.step_painter import StepPainter
from lipstream.engine.target.appearance import AppearancePrior
from lipstream.engine.target.oral_cavity import Mouth
from lipstream.engine.target.sources import SourceWeights
from lipstream.engine.types import F32, U8
from lipstream.kernels import color
from lipstream.kernels.dispatch import use_native


class WarpedFrame(NamedTuple):
    """A frame before its mouth is refined."""

    frame: U8  # u8 [h*3/2, w] I420; with a renderer, its mouth is still the background's
    layers: Layers | None  # None where the face lies outside the frame


@dataclass(frozen=True, slots=True)
class ComposedFrame:
    """One frame."""

    frame: U8  # u8 [h*3/2, w] I420
    box: tuple[int, int, int, int]  # x, y, w, h of the mask, px
    mask: U8  # u8 [h, w]: the frame differs from the background only where it is above 0 (and in
    # chroma samples that such a pixel shares)
    previous_output: U8 | None  # the refined crop, an input of the renderer for the next frame


class Compositor(Frozen):
    """Paints frames of one target; its sessions share it."""

    def __init__(
        self,
        mesh: FaceMesh,
        mouth: Mouth,
        renderer: Renderer | None = None,
        native: bool | None = None,
        seam: float = 1.0,
    ) -> None:
        """`native`: whether compiled code paints; None: where the kernels are compiled. `seam`: of
        the shadow between lips that are closed where the source's are open."""
        self._mesh, self._renderer = mesh, renderer
        lips = build_lip_layer(mesh, seam)
        self._painter: FusedPainter | StepPainter
        if use_native() if native is None else native:
            self._painter = FusedPainter(mesh, mouth, lips)
        else:
            self._painter = StepPainter(mesh, mouth, lips)

    def paint(
        self,
        background: U8,
        placement: Placement,
        expression: F32,
        sources: SourceWeights,
        prior: AppearancePrior | None = None,
        previous: U8 | None = None,
    ) -> ComposedFrame:
        """One frame: `warp`, then `finish`."""
        warped = self.warp(background, placement, expression, sources, prior)
        return self.finish(warped, previous)

    @span("composite")
    def warp(
        self,
        background: U8,
        placement: Placement,
        expression: F32,
        sources: SourceWeights,
        prior: AppearancePrior | None = None,
    ) -> WarpedFrame:
        """All of a frame that does not depend on the frame before.

        background u8 [h*3/2, w] I420 and its face; expression f32 [K] wanted; the sources (more
        than one during a crossfade); prior: the predicted texture of the mouth, for the renderer.
        """
        frame = None if self._renderer is not None else np.empty_like(background)
        wanted = WantedMouth(placement, expression, sources, prior)
        layers = self.layers(background, wanted, self._crop(placement), frame)
        if frame is None or layers is None:
            frame = background.copy()
        return WarpedFrame(frame, layers)

    @span("composite")
    def finish(
        self, warped: WarpedFrame, previous: U8 | None = None, seat: Seat | None = None
    ) -> ComposedFrame:
        """Refine the mouth and write it into the frame of `warped`, which this takes over.

        previous: the `previous_output` of the frame before. seat: of `Renderer.seat`.
        Raises: FrameLost, as `Renderer.refine` does.
        """
        frame, layers = warped.frame, warped.layers
        if layers is None:
            return ComposedFrame(frame, (0, 0, 0, 0), np.zeros((0, 0), np.uint8), None)
        if self._renderer is None:
            return ComposedFrame(frame, layers.box, layers.mask, None)
        previous_output = self._renderer.refine(layers, previous, seat)
        with span("color"):
            color.rgb_region_into_i420(layers.painted, frame, *layers.box[:2], layers.mask)
        return ComposedFrame(frame, layers.box, layers.mask, previous_output)

    @span("warp")
    def layers(
        self, background: U8, wanted: WantedMouth, crop: MouthCrop | None, frame: U8 | None = None
    ) -> Layers | None:
        """The layers of a patch before any refinement; None if the face is outside the frame.

        With a crop, the patch contains it, and conditioning maps and prior are drawn. A `frame` of
        the background's shape becomes the background with the patch in it.
        """
        return self._painter.layers(background, wanted, crop, frame)

    def crop(self, placement: Placement) -> MouthCrop:
        """The renderer's crop of a face; at the resolution of training without a renderer."""
        model = self._mesh.model
        if self._renderer is None:
            return MouthCrop.around(placement, model)
        return MouthCrop.around(placement, model, self._renderer.crop_resolution)

    def _crop(self, placement: Placement) -> MouthCrop | None:
        return None if self._renderer is None else self.crop(placement)
