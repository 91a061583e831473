"""Paints the layers of a patch step by step: the readable form of `fused`, and its fallback.

The background's own jaw is warped to the new expression, and the lips of the mouth sources are laid
on it. Everything happens inside one rectangle round the lower face.
"""

from __future__ import annotations

import math

import numpy as np

from lipstream.engine.face.mesh import FaceMesh
from lipstream.engine.face.model import VERTICES
from lipstream.engine.face.retarget import (
    RetargetedFace,
    drive,
    gap_height,
    map_to_source,
    place,
)
from lipstream.engine.frozen import Frozen
from lipstream.engine.profiling import span
from lipstream.engine.rendering.inner_mouth import InnerMouth, SourceMapping
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
from lipstream.engine.target.oral_cavity import Mouth
from lipstream.engine.target.sources import MouthSource, SourceWeights
from lipstream.engine.types import F32, U8
from lipstream.kernels import color, composite, face
from lipstream.kernels.crop import SYNTHETIC
from lipstream.kernels.mesh import mesh_map, remap, warp_mesh


class StepPainter(Frozen):
    """The painter of one target; any number of threads may call it."""

    def __init__(self, mesh: FaceMesh, mouth: Mouth, lips: LipLayer) -> None:
        self._mesh, self._lips = mesh, lips
        self._inner = InnerMouth(mesh, mouth, lips.triangles)

    def layers(
        self, background: U8, wanted: WantedMouth, crop: MouthCrop | None, frame: U8 | None
    ) -> Layers | None:
        """The patch round the lower face; None where that lies outside the frame.

        background u8 [h*3/2, w] I420. With a crop, the patch contains it, and conditioning maps and
        prior are drawn. A `frame` of the background's shape becomes the background with the patch
        in it.
        """
        placement = wanted.placement
        height, width = background.shape[0] * 2 // 3, background.shape[1]
        vertices, grid = drive(self._mesh, placement, wanted.expression)
        start, moved, points = place(placement, vertices, grid)
        retargeted = RetargetedFace(
            vertices, grid, points, wanted.expression, placement.scale, placement.rotation
        )
        # Triangles that hardly move are left out: sampled, they would give the same pixels.
        triangles, bounds = face.moving_triangles(start, moved, self._mesh.jaw_triangles, STILL_PX)
        corners = [points[self._lips.vertices]]
        if len(triangles):
            corners.append(bounds.reshape(2, 2))
        if crop is not None:
            corners.append(crop.corners())
        x0, y0, x1, y1 = _rectangle(np.concatenate(corners), width, height)
        box = (x0, y0, x1 - x0, y1 - y0)
        if x1 <= x0 or y1 <= y0:
            return None
        with span("color"):
            patch = color.i420_region_to_rgb(background, *box)
        corner = np.array([x0, y0], np.float32)
        painted, mask = warp_mesh(
            patch, start - corner, moved - corner, triangles, patch.shape[:2], onto=patch
        )
        maps = None if crop is None else np.zeros((*painted.shape[:2], 3), np.uint8)
        retargeted, prior, confidence = retargeted.seen_from(x0, y0), None, 0.0
        if crop is not None and wanted.prior is not None:
            prior = self._warp_prior(painted, retargeted, wanted.prior.texture)
            confidence = wanted.prior.confidence
        self._lay_lips((painted, mask, maps), retargeted, wanted.sources)
        local_crop = None if crop is None else crop.seen_from(x0, y0)
        if frame is not None:
            frame[:] = background
            with span("color"):
                color.rgb_region_into_i420(painted, frame, x0, y0, mask)
        return Layers(box, painted, mask, maps, local_crop, prior, confidence)

    @span("composite")
    def _lay_lips(
        self, onto: tuple[U8, U8, U8 | None], retargeted: RetargetedFace, sources: SourceWeights
    ) -> None:
        """Blend the sources' lips and inner mouth onto the patch, in place.

        onto: the patch u8 [h, w, 3], its mask u8 [h, w] and its conditioning maps.
        """
        painted, mask, maps = onto
        used = retargeted.points[self._lips.vertices]  # the inner mesh lies within
        x0, y0, x1, y1 = _rectangle(used, painted.shape[1], painted.shape[0])
        if x1 <= x0 or y1 <= y0:
            return
        retargeted = retargeted.seen_from(x0, y0)
        below = painted[y0:y1, x0:x1]
        shape = below.shape[:2]
        lips = self._lips
        table, _ = warp_mesh(
            lips.texture, lips.texture_xy, retargeted.points, lips.triangles, shape
        )
        alpha = np.ascontiguousarray(table[..., 0])
        layer, total, largest, confidence = below, 0.0, 0.0, retargeted.grid[:, 0]
        for source, weight in sources:
            one, own_confidence = self._lips_of(source, retargeted, shape)
            face.relight(one, below, retargeted.points, lips.skin, LIGHT)
            closure = closure_amount(source.placement.canonical_vertices, retargeted.vertices)
            one = _darken(one, table[..., 1], closure)
            total += weight
            if layer is below:
                layer = one
            else:
                layer = composite.blend(layer, one, np.full(shape, weight / total, np.float32))
            if weight > largest:
                largest, confidence = weight, own_confidence
        painted[y0:y1, x0:x1] = composite.blend(below, layer, alpha)
        np.maximum(mask[y0:y1, x0:x1], alpha, out=mask[y0:y1, x0:x1])
        if maps is None:
            return
        maps[y0:y1, x0:x1, 0] = alpha
        maps[y0:y1, x0:x1, 1:] = self._gap_maps(confidence, retargeted, shape)

    @span("composite")
    def _warp_prior(self, patch: U8, retargeted: RetargetedFace, texture: U8) -> U8:
        """A prior's texture over the patch u8 [h, w, 3], in its light, at `prior_shape`,
        u8 [h', w', 3]."""
        height, width = patch.shape[:2]
        h, w = prior_shape((height, width), retargeted.scale)
        down, across = np.float32(h / height), np.float32(w / width)
        points, lips = retargeted.points * np.array([across, down]), self._lips
        layer, _ = warp_mesh(texture, lips.prior_xy, points, lips.triangles, (h, w))
        self._inner.supersample(layer, texture, lips.prior_xy, points)
        rows, columns = (
            (np.arange(n, dtype=np.float32) + np.float32(0.5)) / zoom
            for n, zoom in ((h, down), (w, across))
        )
        below = remap(patch, np.stack(np.meshgrid(columns, rows), -1))
        face.relight(layer, below, points, lips.skin, LIGHT)
        return layer

    def _gap_maps(self, confidence: F32, retargeted: RetargetedFace, shape: tuple[int, int]) -> U8:
        """Row in the gap and confidence in the source's pixels there, u8 [h, w, 2]; 0 outside."""
        shown = SYNTHETIC + (255 - SYNTHETIC) * confidence
        values = np.stack([self._lips.gap_row, shown], 1).astype(np.float32)
        inner = np.ascontiguousarray(retargeted.points[VERTICES:])
        maps, _ = mesh_map(values, inner, self._mesh.inner_triangles, shape)
        return maps.astype(np.uint8)

    @span("warp")
    def _lips_of(
        self, source: MouthSource, retargeted: RetargetedFace, shape: tuple[int, int]
    ) -> tuple[U8, F32]:
        """One source's lips and inner mouth on the retargeted face, u8 [h, w, 3], and the
        confidence f32 [G] in its pixels of the gap."""
        at, confidence, lowered = map_to_source(
            source.placement, (*source.origin, source.zoom), retargeted
        )
        warped, _ = warp_mesh(source.rgb, at, retargeted.points, self._lips.triangles, shape)
        # Also where lips meet: an edge that is sampled once a pixel is jagged.
        self._inner.paint(warped, SourceMapping(source.rgb, at, confidence, lowered), retargeted)
        return warped, confidence


def closure_amount(source: F32, target: F32) -> float:
    """How far the target's lips meet where the source's do not, 0 to 1; vertices f32 [468, 3]."""
    parted = np.clip(gap_height(source) / 0.05, 0, 1)
    return float(parted * np.clip(1 - gap_height(target) / 0.03, 0, 1))


def _darken(layer: U8, shade: U8, strength: float) -> U8:
    """Multiply by 1 - strength * shade / 255 * SEAM_DEPTH."""
    if strength <= 0:
        return layer
    factor = 1 - shade[..., None].astype(np.float32) * np.float32(strength * SEAM_DEPTH / 255)
    return (layer * factor + 0.5).astype(np.uint8)


def _rectangle(points: F32, width: int, height: int) -> tuple[int, int, int, int]:
    """Even-aligned bounds x0, y0, x1, y1 of f32 [n, 2] inside a picture."""
    x, y = np.ascontiguousarray(points.T)
    x0, y0 = (max(math.floor(axis.min() - 1) & ~1, 0) for axis in (x, y))
    x1, y1 = ((math.ceil(axis.max() + 1) + 1) & ~1 for axis in (x, y))
    return x0, y0, min(x1, width & ~1), min(y1, height & ~1)
