"""Paints one frame: the background's own jaw moved, the source's lips laid on it.

Everything happens inside one rectangle round the lower face; outside the mask the frame keeps
the background's very bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.face.mesh import (
    INNER_ROWS,
    LIP_OUTLINE,
    LIP_REACH,
    FaceMesh,
    distance_outside,
    inner_grid,
    mouth_triangles,
)
from lipstream.engine.face.model import INNER_LOWER_LIP, INNER_UPPER_LIP, VERTICES
from lipstream.engine.face.retarget import (
    Placement,
    RetargetedFace,
    drive,
    gap_height,
    map_to_source,
    place,
)
from lipstream.engine.profiling import recorder, span
from lipstream.engine.rendering.fused import face_painter
from lipstream.engine.rendering.inner_mouth import InnerMouth, SourceMapping
from lipstream.engine.rendering.refiner import CROP_RESOLUTIONS, GUIDES, MouthCrop, Renderer
from lipstream.engine.target.appearance import AppearancePrior, canonical_uv
from lipstream.engine.target.oral_cavity import Mouth
from lipstream.engine.target.sources import MouthSource
from lipstream.engine.types import F32, U8
from lipstream.kernels import color, composite, face
from lipstream.kernels.crop import SYNTHETIC
from lipstream.kernels.dispatch import use_native
from lipstream.kernels.face_painter import STAGES, FacePainter, MouthView
from lipstream.kernels.mesh import mesh_map, remap, warp_mesh

_TEXTURE_PX = 128  # per inter-ocular distance, of the mask drawn on the canonical face
_TEXTURE_ORIGIN = (-1.0, 0.3)
_TEXTURE_SHAPE = (232, 256)
_SEAM_WIDTH, _SEAM_DEPTH = 0.016, 0.38  # inter-ocular distances; share of the light lost
_STILL_PX = 0.12
_LIGHT = face.Limits(least=8, stiffness=0.6, reach=24.0, tint=0.05)
_EXPECTED_PX = 96.0  # per inter-ocular distance, at most, as in the look itself
_MASK_CORE = 0.05  # from the outer lips outwards, inter-ocular distances; it fades to LIP_REACH


Shares = Sequence[tuple[MouthSource, float]]  # the sources and how much of each; they sum to 1


@dataclass(frozen=True, slots=True)
class Layers:
    """A painted lower face that has not been laid into its frame yet."""

    box: tuple[int, int, int, int]  # x, y, w, h of the patch in the frame, px
    painted: U8  # u8 [h, w, 3]
    mask: U8  # u8 [h, w], what may differ from the frame
    guides: U8 | None  # u8 [h, w, 3], for the renderer; see `renderer.GUIDES`
    crop: MouthCrop | None  # in the patch, where there are guides
    prior: U8 | None = None  # u8 [h', w', 3], the expected look over the patch's rectangle
    confidence: float = 0.0  # in it


class WarpedFrame(NamedTuple):
    """A frame whose mouth is not mended yet."""

    frame: U8  # u8 [h*3/2, w] I420; with a renderer, its mouth is the background's still
    layers: Layers | None  # None where the face lies outside the frame


@dataclass(frozen=True, slots=True)
class ComposedFrame:
    """One frame."""

    frame: U8  # u8 [h*3/2, w] I420
    box: tuple[int, int, int, int]  # x, y, w, h of the mask, px
    mask: U8  # u8 [h, w]: the frame differs from the background only where it is above 0 (and in
    # chroma samples that such a pixel shares)
    previous_output: U8 | None  # what the renderer wants to see with the next frame


class Compositor:
    """Immutable; one is shared by all sessions of a target."""

    def __init__(self, mesh: FaceMesh, mouth: Mouth, renderer: Renderer | None = None) -> None:
        """Take the meshes, the target's teeth, and the network that mends the mouth."""
        self._mesh = mesh
        self._renderer = renderer
        self._texture = np.concatenate([mask_texture(mesh), seam_texture(mesh)], axis=2)
        model = mesh.model
        self._canonical = model.mean[:, :2].astype(np.float32)
        self._lips = mouth_triangles(mesh)
        self._inner = InnerMouth(mesh, mouth, self._lips)
        gap = inner_grid(model.mean)[:, :2]
        self._texture_xy = _on_texture(np.concatenate([self._canonical, gap]))
        ring = remap(self._texture, _on_texture(self._canonical)[None])[0, :, 0]
        mouth_vertices = np.unique(mesh.lip_triangles)
        self._lip_vertices = mouth_vertices
        # Each lies inside the mesh, which covers its mask: beyond it the layer shows nothing.
        skin = mouth_vertices[(ring[mouth_vertices] > 5) & (ring[mouth_vertices] < 200)]
        self._skin = skin.astype(np.int32)
        self._gap_row = np.repeat(
            np.linspace(40, 255, INNER_ROWS, dtype=np.float32), len(gap) // INNER_ROWS
        )
        self._look_xy = canonical_uv(mesh)
        self._painter = None
        if use_native():
            self._painter = face_painter(
                mesh, mouth, triangles=self._lips, lip_vertices=self._lip_vertices, skin=self._skin,
                texture=self._texture, texture_xy=self._texture_xy, gap_row=self._gap_row,
                look_xy=self._look_xy, light=_LIGHT, still_px=_STILL_PX, seam_depth=_SEAM_DEPTH,
            )  # fmt: skip

    def paint(
        self,
        background: U8,
        placement: Placement,
        expression: F32,
        sources: Shares,
        prior: AppearancePrior | None = None,
        previous: U8 | None = None,
    ) -> ComposedFrame:
        """One frame: what is drawn of it (`draw`), finished (`finish`)."""
        return self.finish(self.draw(background, placement, expression, sources, prior), previous)

    @span("composite")
    def draw(
        self,
        background: U8,
        placement: Placement,
        expression: F32,
        sources: Shares,
        prior: AppearancePrior | None = None,
    ) -> WarpedFrame:
        """All of a frame that does not depend on the frame before.

        background u8 [h*3/2, w] I420 and its face; expression f32 [K] wanted; the sources (more
        than one while one fades into the next); expected: what a renderer, if there is one, is
        told that the mouth looks like.
        """
        guided = self._renderer is not None
        frame = None if guided else np.empty_like(background)
        layers = self.layers(
            background, placement, expression, sources, prior, guided=guided, frame=frame
        )
        if frame is None or layers is None:
            frame = background.copy()
        return WarpedFrame(frame, layers)

    @span("composite")
    def finish(self, drawing: WarpedFrame, previous: U8 | None = None) -> ComposedFrame:
        """Mend the mouth and lay it into the drawing's frame, which is the painting's from now on.

        previous: the `mended` of the frame before.
        """
        frame, layers = drawing.frame, drawing.layers
        if layers is None:
            return ComposedFrame(frame, (0, 0, 0, 0), np.zeros((0, 0), np.uint8), None)
        if self._renderer is None:
            return ComposedFrame(frame, layers.box, layers.mask, None)
        assert layers.guides is not None and layers.crop is not None, "drawn with a renderer"
        previous_output = self._renderer.refine(
            layers.painted, layers.guides, layers.prior, layers.confidence, layers.crop, previous
        )
        with span("color"):
            color.rgb_region_into_i420(layers.painted, frame, *layers.box[:2], layers.mask)
        return ComposedFrame(frame, layers.box, layers.mask, previous_output)

    @span("warp")
    def layers(
        self,
        background: U8,
        placement: Placement,
        expression: F32,
        sources: Shares,
        prior: AppearancePrior | None = None,
        *,
        guided: bool,
        frame: U8 | None = None,
    ) -> Layers | None:
        """What `paint` lays into the frame, before any mending; None if the face is outside.

        With `guided`, the patch holds the renderer's crop, and guides and what is expected are
        drawn. A
        `frame` of the background's shape becomes the background with the patch in it.
        """
        height, width = background.shape[0] * 2 // 3, background.shape[1]
        crop = None
        if guided:
            crop_resolution = (
                CROP_RESOLUTIONS[0] if self._renderer is None else self._renderer.crop_resolution
            )
            crop = MouthCrop.around(placement, self._mesh.model, crop_resolution)
        if self._painter is not None:
            return layers_native(
                self._painter, background, placement, expression, sources, prior, crop, frame
            )
        vertices, grid = drive(self._mesh, placement, expression)
        start, moved, points = place(placement, vertices, grid)
        retargeted = RetargetedFace(vertices, grid, points, expression, placement.scale)
        # Triangles that hardly move are left alone: sampled, they would come back the same.
        triangles, bounds = face.moving_triangles(start, moved, self._mesh.jaw_triangles, _STILL_PX)
        corners = [points[self._lip_vertices]]
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
        guides = np.zeros((*painted.shape[:2], GUIDES), np.uint8) if guided else None
        retargeted, layer, confidence = retargeted.seen_from(x0, y0), None, 0.0
        if guided and prior is not None:
            layer, confidence = self._expected(painted, retargeted, prior.texture), prior.confidence
        self._lay_lips(painted, mask, guides, retargeted, sources)
        seen = None if crop is None else crop.seen_from(x0, y0)
        if frame is not None:
            frame[:] = background
            with span("color"):
                color.rgb_region_into_i420(painted, frame, x0, y0, mask)
        return Layers(box, painted, mask, guides, seen, layer, confidence)

    @span("composite")
    def _lay_lips(
        self,
        painted: U8,
        mask: U8,
        guides: U8 | None,
        retargeted: RetargetedFace,
        sources: Shares,
    ) -> None:
        """Blend the sources' lips and the inside of the mouth into `painted`, in place.

        `mask` and `guides` are filled in likewise.
        """
        used = retargeted.points[self._lip_vertices]  # the inner mesh lies within
        x0, y0, x1, y1 = _rectangle(used, painted.shape[1], painted.shape[0])
        if x1 <= x0 or y1 <= y0:
            return
        retargeted = retargeted.seen_from(x0, y0)
        below = painted[y0:y1, x0:x1]
        shape = below.shape[:2]
        drawn, _ = warp_mesh(self._texture, self._texture_xy, retargeted.points, self._lips, shape)
        alpha = np.ascontiguousarray(drawn[..., 0])
        layer, so_far, leading, trusted = below, 0.0, 0.0, retargeted.grid[:, 0]
        for source, share in sources:
            one, confidence = self._lips_of(source, retargeted, shape)
            face.relight(one, below, retargeted.points, self._skin, _LIGHT)
            one = _darken(
                one,
                drawn[..., 1],
                closure_amount(source.placement.canonical_vertices, retargeted.vertices),
            )
            so_far += share
            if layer is below:
                layer = one
            else:
                layer = composite.blend(layer, one, np.full(shape, share / so_far, np.float32))
            if share > leading:
                leading, trusted = share, confidence
        painted[y0:y1, x0:x1] = composite.blend(below, layer, alpha)
        np.maximum(mask[y0:y1, x0:x1], alpha, out=mask[y0:y1, x0:x1])
        if guides is None:
            return
        guides[y0:y1, x0:x1, 0] = alpha
        guides[y0:y1, x0:x1, 1:] = self._gap_guides(trusted, retargeted, shape)

    @span("composite")
    def _expected(self, patch: U8, retargeted: RetargetedFace, texture: U8) -> U8:
        """A look of the lips over the patch u8 [h, w, 3], in its light, at a size of its own,
        u8 [h', w', 3]."""
        height, width = patch.shape[:2]
        h, w = prior_shape((height, width), retargeted.scale)
        down, across = np.float32(h / height), np.float32(w / width)
        points = retargeted.points * np.array([across, down])
        layer, _ = warp_mesh(texture, self._look_xy, points, self._lips, (h, w))
        self._inner.finely(layer, texture, self._look_xy, points)
        rows, columns = (
            (np.arange(n, dtype=np.float32) + np.float32(0.5)) / zoom
            for n, zoom in ((h, down), (w, across))
        )
        below = remap(patch, np.stack(np.meshgrid(columns, rows), -1))
        face.relight(layer, below, points, self._skin, _LIGHT)
        return layer

    def _gap_guides(
        self, confidence: F32, retargeted: RetargetedFace, shape: tuple[int, int]
    ) -> U8:
        """Where in the gap a pixel lies and how far the source's pixels there are to be trusted,
        u8 [h, w, 2]; both 0 outside the gap."""
        shown = SYNTHETIC + (255 - SYNTHETIC) * confidence
        values = np.stack([self._gap_row, shown], 1).astype(np.float32)
        inner = np.ascontiguousarray(retargeted.points[VERTICES:])
        drawn, _ = mesh_map(values, inner, self._mesh.inner_triangles, shape)
        return drawn.astype(np.uint8)

    @span("warp")
    def _lips_of(
        self, source: MouthSource, retargeted: RetargetedFace, shape: tuple[int, int]
    ) -> tuple[U8, F32]:
        """One source's lips and inner mouth on the driven mesh, u8 [h, w, 3], and how far what is
        in the gap is to be trusted, f32 [G]."""
        at, confidence, lowered = map_to_source(
            source.placement, (*source.origin, source.zoom), retargeted
        )
        warped, _ = warp_mesh(source.rgb, at, retargeted.points, self._lips, shape)
        # Also where lips meet: an edge that is sampled once a pixel is a stair.
        self._inner.paint(warped, SourceMapping(source.rgb, at, confidence, lowered), retargeted)
        return warped, confidence


def layers_native(
    painter: FacePainter,
    background: U8,
    placement: Placement,
    expression: F32,
    sources: Shares,
    prior: AppearancePrior | None,
    crop: MouthCrop | None,
    frame: U8 | None,
) -> Layers | None:
    """`Compositor.layers` where the kernels are compiled; with a crop, guides are drawn."""
    rows, width = background.shape
    placed = painter.place(
        placement.pose, placement.canonical_vertices, placement.expression, expression,
        None if crop is None else crop.corners(), (width, rows * 2 // 3),
    )  # fmt: skip
    x0, y0, x1, y1 = placed.box
    if x1 <= x0 or y1 <= y0:
        return None
    views = [
        MouthView(
            s.rgb, s.placement.canonical_vertices, s.placement.pose, (*s.origin, s.zoom), share
        )
        for s, share in sources
    ]
    if crop is None:
        prior = None
    listening = recorder()
    spent = None if listening is None else np.zeros(len(STAGES), np.int64)
    patch = painter.paint(
        placed, background, expression, views, placement.scale, guided=crop is not None,
        texture=None if prior is None else prior.texture,
        prior_shape=prior_shape((y1 - y0, x1 - x0), placement.scale),
        frame=frame, spent=spent,
    )  # fmt: skip
    if listening is not None and spent is not None:
        took = dict(zip(STAGES, spent.tolist(), strict=True))
        del took["warp"]  # it is this stage itself
        listening.ran(took)
    seen = None if crop is None else crop.seen_from(x0, y0)
    box = (x0, y0, x1 - x0, y1 - y0)
    confidence = 0.0 if prior is None else prior.confidence
    return Layers(box, patch.rgb, patch.mask, patch.guides, seen, patch.prior, confidence)


def prior_shape(patch: tuple[int, int], scale: float) -> tuple[int, int]:
    """Rows and columns of the look over a patch with so many px per inter-ocular distance."""
    zoom = min(1.0, _EXPECTED_PX / scale)
    return math.ceil(patch[0] * zoom), math.ceil(patch[1] * zoom)


def _on_texture(canonical: F32) -> F32:
    """Texture position of canonical points f32 [n, 2], px."""
    return ((canonical - np.array(_TEXTURE_ORIGIN)) * _TEXTURE_PX).astype(np.float32)


def mask_texture(mesh: FaceMesh) -> U8:
    """Opacity of the lip layer on the resting canonical face, u8 [232, 256, 1]."""
    distance = _texture_distance(mesh.model.mean[list(LIP_OUTLINE), :2], LIP_REACH)
    t = np.clip((distance - _MASK_CORE) / (LIP_REACH - _MASK_CORE), 0, 1)
    return ((1 - t * t * (3 - 2 * t)) * 255 + 0.5).astype(np.uint8)[..., None]


def seam_texture(mesh: FaceMesh) -> U8:
    """Depth of the shadow between closed lips on the canonical face, u8 [232, 256, 1]."""
    rest = mesh.model.mean[:, :2]
    line = (rest[list(INNER_UPPER_LIP)] + rest[list(INNER_LOWER_LIP)]) / 2
    thin = np.concatenate([line + [0, -1e-4], line[::-1] + [0, 1e-4]])
    distance = _texture_distance(thin, 3 * _SEAM_WIDTH)  # there it is less than a level
    return (np.exp(-((distance / _SEAM_WIDTH) ** 2)) * 255 + 0.5).astype(np.uint8)[..., None]


def _texture_distance(outline: F32, reach: float) -> NDArray[np.float64]:
    """Distance of the texture's pixels to an outline [m, 2], 0 inside; farther than `reach` from
    all of it, infinity."""
    low, high = _on_texture(outline.min(0) - reach), _on_texture(outline.max(0) + reach)
    x0, y0 = np.floor(low).astype(int)
    x1, y1 = np.ceil(high).astype(int)
    y, x = np.mgrid[y0:y1, x0:x1]
    points = (np.stack([x, y], -1) + 0.5) / _TEXTURE_PX + np.array(_TEXTURE_ORIGIN)
    distance = np.full(_TEXTURE_SHAPE, np.inf)
    near = distance_outside(points.reshape(-1, 2), outline)
    distance[y0:y1, x0:x1] = near.reshape(points.shape[:2])
    return distance


def closure_amount(source: F32, target: F32) -> float:
    """How far the target's lips meet where the source's do not, 0 to 1."""
    seen = np.clip(gap_height(source) / 0.05, 0, 1)
    return float(seen * np.clip(1 - gap_height(target) / 0.03, 0, 1))


def _darken(layer: U8, shade: U8, strength: float) -> U8:
    """Multiply by 1 - strength * shade / 255 * _SEAM_DEPTH."""
    if strength <= 0:
        return layer
    factor = 1 - shade[..., None].astype(np.float32) * np.float32(strength * _SEAM_DEPTH / 255)
    return (layer * factor + 0.5).astype(np.uint8)


def _rectangle(points: F32, width: int, height: int) -> tuple[int, int, int, int]:
    """Even-aligned bounds x0, y0, x1, y1 of f32 [n, 2] inside a picture."""
    x, y = np.ascontiguousarray(points.T)
    x0, y0 = (max(math.floor(axis.min() - 1) & ~1, 0) for axis in (x, y))
    x1, y1 = ((math.ceil(axis.max() + 1) + 1) & ~1 for axis in (x, y))
    return x0, y0, min(x1, width & ~1), min(y1, height & ~1)
