"""Paints the layers of a patch in two calls of compiled code (`kernels.face_painter`).

It paints what `step_painter` paints, byte for byte but for rounding in an exponential.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.face import mesh as topology
from lipstream.engine.face import retarget
from lipstream.engine.face.retarget import jaw_drop
from lipstream.engine.frozen import Frozen
from lipstream.engine.profiling import recorder
from lipstream.engine.rendering import inner_mouth
from lipstream.engine.rendering.layers import (
    LIGHT,
    SEAM_DEPTH,
    STILL_PX,
    Layers,
    WantedMouth,
    prior_shape,
)
from lipstream.engine.rendering.lip_layer import LipLayer
from lipstream.engine.rendering.mouth_crop import MouthCrop
from lipstream.engine.target.appearance import TEXTURE_SHAPE
from lipstream.engine.target.oral_cavity import Mouth, mouth_motion
from lipstream.engine.types import U8
from lipstream.kernels.face_painter import STAGES, FacePainter, MouthView


class FusedPainter(Frozen):
    """The compiled painter with the tables and constants of one target."""

    def __init__(self, mesh: topology.FaceMesh, mouth: Mouth, lips: LipLayer) -> None:
        """Needs compiled kernels (`kernels.dispatch.use_native`)."""
        self._model, self._painter = mesh.model, face_painter(mesh, mouth, lips)

    def layers(
        self, background: U8, wanted: WantedMouth, crop: MouthCrop | None, frame: U8 | None
    ) -> Layers | None:
        """As `StepPainter.layers`."""
        rows, width = background.shape
        placement, prior = wanted.placement, wanted.prior if crop is not None else None
        placed = self._painter.place(
            placement.pose, placement.canonical_vertices, placement.expression, wanted.expression,
            None if crop is None else crop.corners(), (width, rows * 2 // 3),
        )  # fmt: skip
        x0, y0, x1, y1 = placed.box
        if x1 <= x0 or y1 <= y0:
            return None
        views = [
            MouthView(
                s.rgb, s.placement.canonical_vertices, s.placement.pose, (*s.origin, s.zoom), weight
            )
            for s, weight in wanted.sources
        ]
        active = recorder()
        spent = None if active is None else np.zeros(len(STAGES), np.int64)
        motion = mouth_motion(
            placed.grid, topology.LIPS.shape[1], jaw_drop(self._model, wanted.expression),
            placement.rotation,
        )  # fmt: skip
        patch = self._painter.paint(
            placed, background, motion, views, guided=crop is not None,
            texture=None if prior is None else prior.texture,
            prior_shape=prior_shape((y1 - y0, x1 - x0), placement.scale),
            frame=frame, spent=spent,
        )  # fmt: skip
        if active is not None and spent is not None:
            durations_ns = dict(zip(STAGES, spent.tolist(), strict=True))
            del durations_ns["warp"]  # the span that this runs in
            active.add(durations_ns)
        local_crop = None if crop is None else crop.seen_from(x0, y0)
        box = (x0, y0, x1 - x0, y1 - y0)
        confidence = 0.0 if prior is None else prior.confidence
        return Layers(
            box, patch.rgb, patch.mask, patch.conditioning, local_crop, patch.prior, confidence
        )


def face_painter(mesh: topology.FaceMesh, mouth: Mouth, lips: LipLayer) -> FacePainter:
    """The kernel's tables: meshes, teeth, lip layer and the constants of this folder."""
    arrays: dict[str, NDArray[Any]] = {
        "basis": mesh.model.basis, "rings": topology.RINGS, "lips": topology.LIPS,
        "line": topology.JAW_VERTICES, "chin": topology.JAW_TIP, "jaw": mesh.jaw_triangles,
        "mouth": lips.triangles, "gap": mesh.inner_triangles, "lip_vertices": lips.vertices,
        "skin": lips.skin, "texture": lips.texture, "texture_xy": lips.texture_xy,
        "gap_row": lips.gap_row, "look_xy": lips.prior_xy, "limits": np.array(LIGHT),
    }  # fmt: skip
    numbers = {
        "still": STILL_PX, "inset": retarget.INSET, "shadow_reach": inner_mouth.SHADOW_REACH,
        "seam_depth": SEAM_DEPTH, "trusted": inner_mouth.CONFIDENT,
        "least_shown": inner_mouth.LEAST_SHOWN, "least_lowered": inner_mouth.LEAST_LOWERED,
        "lip_shadow": inner_mouth.LIP_SHADOW, "slit": inner_mouth.SLIT,
        "slit_depth": inner_mouth.SLIT_DEPTH,
    }  # fmt: skip
    cavity = mouth.cavity(mesh.model)
    return FacePainter(arrays, cavity, numbers, topology.NOSE_TIP, TEXTURE_SHAPE)
