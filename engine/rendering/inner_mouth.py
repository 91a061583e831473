"""The inside of the mouth: the source's own pixels where it has them, synthetic teeth elsewhere.

The source's pixels are rendered at twice the resolution and averaged: the edge of a lip against
teeth is the sharpest line in a face, and aliasing there is easily seen. A synthetic mouth has soft
edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lipstream.engine.face.mesh import INNER_ROWS, FaceMesh, smoothstep
from lipstream.engine.face.model import INNER_UPPER_LIP, VERTICES
from lipstream.engine.face.retarget import RetargetedFace, jaw_drop
from lipstream.engine.frozen import Frozen
from lipstream.engine.target.oral_cavity import Mouth, mouth_motion
from lipstream.engine.types import F32, I32, U8
from lipstream.kernels import face, oral_cavity
from lipstream.kernels.mesh import mesh_map, warp_mesh

_FINE = 2  # samples per pixel, each way
_MARGIN_PX = 2
LEAST_SHOWN = 0.4  # confidence below which nothing of the source is shown
LIP_SHADOW = 0.4  # of the light, lost by teeth under a lip that is lowered over them
# What little is left between lips that a source parts more shows the wet of the lips: its teeth,
# squeezed into a pixel or two, would be a white line.
SLIT, SLIT_DEPTH = 0.07, 0.85  # inter-ocular distances, up to which it is one; of the lips' shade
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
        self._mesh, self._triangles = mesh, triangles
        self._cavity = mouth.cavity(mesh.model)

    def paint(self, warped: U8, mapping: SourceMapping, retargeted: RetargetedFace) -> None:
        """Repaint the gap and its edges in `warped` u8 [h, w, 3], in place."""
        box = gap_box(retargeted.points, warped.shape[:2])
        if box is None:
            return
        x0, y0, x1, y1 = box
        fine, covered = self._sample(mapping.crop, mapping.crop_xy, retargeted.points, box)
        synthetic = float(mapping.confidence.min()) < CONFIDENT
        if synthetic or mapping.lowered > LEAST_LOWERED:
            inner = retargeted.seen_from(x0, y0).points[VERTICES:]
            self._draw(fine, inner * np.float32(_FINE), mapping, retargeted)
        face.downsample2x(fine, covered, warped[y0:y1, x0:x1])

    def supersample(self, warped: U8, crop: U8, crop_xy: F32, points: F32) -> None:
        """Sample the gap and its edges in `warped` u8 [h, w, 3] at twice the resolution, in place.

        Sampled once a pixel, an edge is jagged and a thin gap is broken.

        crop u8 [H, W, 3]; crop_xy and points f32 [468 + G, 2], the mesh in it and in `warped`, px.
        """
        box = gap_box(points, warped.shape[:2])
        if box is not None:
            fine, covered = self._sample(crop, crop_xy, points, box)
            face.downsample2x(fine, covered, warped[box[1] : box[3], box[0] : box[2]])

    def _sample(
        self, crop: U8, crop_xy: F32, points: F32, box: tuple[int, int, int, int]
    ) -> tuple[U8, U8]:
        """The box x0, y0, x1, y1 at twice the resolution: u8 [2h, 2w, 3], and what is covered."""
        x0, y0, x1, y1 = box
        close_up = (points - np.array([x0, y0], np.float32)) * np.float32(_FINE)
        shape = ((y1 - y0) * _FINE, (x1 - x0) * _FINE)
        return warp_mesh(crop, crop_xy, close_up, self._triangles, shape)

    def _draw(
        self, window: U8, inner: F32, mapping: SourceMapping, retargeted: RetargetedFace
    ) -> None:
        """A synthetic mouth where confidence is low, and the shadow of a lowered lip, in place.

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
        colors = window[inside].astype(np.float32)
        if lowered > LEAST_LOWERED:
            near = 1 - np.clip((where[inside][:, 1] - lips[:, 0]) / SHADOW_REACH, 0, 1)
            by = min((lowered - LEAST_LOWERED) / 0.05, 1.0)
            colors *= (1 - LIP_SHADOW * by * near * near)[:, None]
            slit = np.float32(SLIT_DEPTH * by) * (1 - smoothstep((lips[:, 1] - lips[:, 0]) / SLIT))
            wet = np.float32(0.25) * (self._cavity.colours[2] + self._cavity.colours[3])
            colors += slit[:, None] * (wet - colors)
        if float(confidence.min()) < CONFIDENT:
            rest = mesh_map(np.stack([grid[:, 2], confidence], 1), inner, triangles, shape)[0]
            rest = rest[inside]
            points = np.concatenate([where[inside], rest[:, :1]], 1)
            jaw = jaw_drop(self._mesh.model, retargeted.expression)
            motion = mouth_motion(grid, count, jaw, retargeted.rotation)
            synthetic = oral_cavity.paint(self._cavity, motion, points, lips)
            keep = smoothstep((float(confidence.min()) - LEAST_SHOWN) / (CONFIDENT - LEAST_SHOWN))
            colors = colors * keep + synthetic * (1 - keep)
        window[inside] = np.clip(colors + 0.5, 0, 255).astype(np.uint8)


def gap_box(points: F32, shape: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """x0, y0, x1, y1 of the gap with its edges in a picture of (height, width), px; None outside.

    points f32 [468 + G, 2], px.
    """
    inner = points[VERTICES:]
    low = np.maximum(np.floor(inner.min(0)).astype(int) - _MARGIN_PX, 0)
    high = np.minimum(np.ceil(inner.max(0)).astype(int) + _MARGIN_PX, shape[::-1])
    if (high <= low).any():
        return None
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])
