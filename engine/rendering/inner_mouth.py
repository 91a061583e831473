"""The inside of the mouth: the source's own pixels where it has them, synthetic teeth elsewhere.

The source's pixels are rendered at twice the resolution and averaged: the edge of a lip against
teeth is the sharpest line in a face, and aliasing there is easily seen. A synthetic mouth has soft
edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lipstream.engine.face.mesh import INNER_ROWS, FaceMesh
from lipstream.engine.face.model import INNER_UPPER_LIP, VERTICES
from lipstream.engine.face.retarget import RetargetedFace, jaw_drop
from lipstream.engine.frozen import Frozen
from lipstream.engine.target.oral_cavity import Mouth
from lipstream.engine.types import F32, I32, U8
from lipstream.kernels import face
from lipstream.kernels.mesh import mesh_map, warp_mesh

_FINE = 2  # samples per pixel, each way
_MARGIN_PX = 2
EDGE_PX = 1.0  # over which a synthetic mouth fades in at the lips
LIP_SHADOW = 0.4  # of the light, lost by teeth under a lip that is lowered over them
CONFIDENT, LEAST_LOWERED = 0.98, 0.03  # above and below, the source is shown unchanged
SHADOW_REACH = 0.07  # inter-ocular distances


@dataclass(frozen=True, slots=True)
class SourceMapping:
    """Where a mouth source has the pixels of a retargeted face."""

    crop: U8  # u8 [H, W, 3]
    crop_xy: F32  # f32 [468 + G, 2], the mesh on the crop, px
    confidence: F32  # f32 [G], in its pixels of the gap, 0 to 1
    lowered: float  # the retargeted upper lip below the source's, inter-ocular distances


class InnerMouth(Frozen):
    """The inner mouth of one target."""

    def __init__(self, mesh: FaceMesh, mouth: Mouth, triangles: I32) -> None:
        """`triangles`: of lips and gap together, over the 468 vertices and the inner grid."""
        self._mesh, self._mouth, self._triangles = mesh, mouth, triangles

    def paint(self, warped: U8, mapping: SourceMapping, retargeted: RetargetedFace) -> None:
        """Repaint the gap and its edges in `warped` u8 [h, w, 3], in place."""
        box = self.supersample(warped, mapping.crop, mapping.crop_xy, retargeted.points)
        if box is None:
            return
        x0, y0, x1, y1 = box
        if float(mapping.confidence.min()) < CONFIDENT or mapping.lowered > LEAST_LOWERED:
            inner = retargeted.seen_from(x0, y0).points[VERTICES:]
            self._paint_synthetic(warped[y0:y1, x0:x1], inner, mapping, retargeted)

    def supersample(
        self, warped: U8, crop: U8, crop_xy: F32, points: F32
    ) -> tuple[int, int, int, int] | None:
        """Sample the gap and its edges in `warped` u8 [h, w, 3] at twice the resolution, in place.

        Sampled once a pixel, an edge is jagged and a thin gap is broken.

        crop u8 [H, W, 3]; crop_xy and points f32 [468 + G, 2], the mesh in it and in `warped`, px.
        Returns the gap's x0, y0, x1, y1; None where it lies outside.
        """
        height, width = warped.shape[:2]
        inner = points[VERTICES:]
        low = np.maximum(np.floor(inner.min(0)).astype(int) - _MARGIN_PX, 0)
        high = np.minimum(np.ceil(inner.max(0)).astype(int) + _MARGIN_PX, (width, height))
        if (high <= low).any():
            return None
        x0, y0, x1, y1 = (int(v) for v in (*low, *high))
        close_up = (points - np.array([x0, y0], np.float32)) * np.float32(_FINE)
        shape = ((y1 - y0) * _FINE, (x1 - x0) * _FINE)
        fine, covered = warp_mesh(crop, crop_xy, close_up, self._triangles, shape)
        face.downsample2x(fine, covered, warped[y0:y1, x0:x1])
        return x0, y0, x1, y1

    def _paint_synthetic(
        self, window: U8, inner: F32, mapping: SourceMapping, retargeted: RetargetedFace
    ) -> None:
        """Synthetic teeth where confidence is low, and the shadow of a lowered lip, in place.

        inner f32 [G, 2]: the grid's place in `window` u8 [h, w, 3], px.
        """
        grid, confidence, lowered = retargeted.grid, mapping.confidence, mapping.lowered
        triangles, shape = self._mesh.inner_triangles, window.shape[:2]
        count = len(INNER_UPPER_LIP)
        roof, floor = np.tile(grid[:count, 1], INNER_ROWS), np.tile(grid[-count:, 1], INNER_ROWS)
        where, covered = mesh_map(grid[:, :2].copy(), inner, triangles, shape)
        inside = covered > 0
        if not inside.any():
            return
        lips = mesh_map(np.stack([roof, floor], 1), inner, triangles, shape)[0][inside]
        y, roof_y, floor_y = where[inside][:, 1], lips[:, 0], lips[:, 1]
        colors = window[inside].astype(np.float32)
        if lowered > LEAST_LOWERED:
            near = 1 - np.clip((y - roof_y) / SHADOW_REACH, 0, 1)
            loss = LIP_SHADOW * min((lowered - LEAST_LOWERED) / 0.05, 1.0)
            colors *= (1 - loss * near * near)[:, None]
        if float(confidence.min()) < CONFIDENT:
            real = mesh_map(np.stack([confidence, confidence], 1), inner, triangles, shape)[0]
            jaw = jaw_drop(self._mesh.model, retargeted.expression)
            middle = float(grid[count // 2, 0])
            synthetic = self._mouth.paint(where[inside], roof_y, floor_y, jaw, middle)
            depth = np.minimum(y - roof_y, floor_y - y) * np.float32(retargeted.scale / EDGE_PX)
            keep = 1 - np.clip(depth, 0, 1)[:, None] * (1 - real[inside][:, :1])
            colors = colors * keep + synthetic * (1 - keep)
        window[inside] = np.clip(colors + 0.5, 0, 255).astype(np.uint8)
