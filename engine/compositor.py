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

from lipstream.engine.appearance import Expected, look_points
from lipstream.engine.face_model import (
    INNER_LOWER_LIP,
    INNER_UPPER_LIP,
    VERTICES,
)
from lipstream.engine.inner_mouth import InnerMouth, Lent
from lipstream.engine.mouth import Mouth
from lipstream.engine.painter import face_painter
from lipstream.engine.renderer import DETAILS, GUIDES, MouthCrop, Renderer
from lipstream.engine.timing import recorder, stage
from lipstream.engine.types import F32, U8
from lipstream.engine.warp import (
    INNER_ROWS,
    LIP_OUTLINE,
    LIP_REACH,
    Driven,
    FaceMesh,
    Placement,
    distance_outside,
    drive,
    gap_height,
    inner_grid,
    lend,
    mouth_triangles,
    place,
)
from lipstream.kernels import color, composite, face
from lipstream.kernels.choice import use_compiled
from lipstream.kernels.crop import DRAWN
from lipstream.kernels.mesh import mesh_map, remap, warp_mesh
from lipstream.kernels.painter import STAGES, FacePainter, MouthView

_TEXTURE_PX = 128  # per inter-ocular distance, of the mask drawn on the canonical face
_TEXTURE_ORIGIN = (-1.0, 0.3)
_TEXTURE_SHAPE = (232, 256)
_SEAM_WIDTH, _SEAM_DEPTH = 0.016, 0.38  # inter-ocular distances; share of the light lost
_STILL_PX = 0.12
_LIGHT = face.Limits(least=8, stiffness=0.6, reach=24.0, tint=0.05)
_EXPECTED_PX = 96.0  # per inter-ocular distance, at most, as in the look itself
_MASK_CORE = 0.05  # from the outer lips outwards, inter-ocular distances; it fades to LIP_REACH


@dataclass(frozen=True, slots=True)
class MouthSource:
    """Real pixels of one mouth."""

    rgb: U8  # u8 [h, w, 3]
    origin: tuple[float, float]  # x, y of the crop in the coordinates of `placement`, px
    zoom: float  # crop pixels per pixel of `placement`
    placement: Placement


Shares = Sequence[tuple[MouthSource, float]]  # the sources and how much of each; they sum to 1


@dataclass(frozen=True, slots=True)
class Layers:
    """A painted lower face that has not been laid into its frame yet."""

    box: tuple[int, int, int, int]  # x, y, w, h of the patch in the frame, px
    painted: U8  # u8 [h, w, 3]
    mask: U8  # u8 [h, w], what may differ from the frame
    guides: U8 | None  # u8 [h, w, 3], for the renderer; see `renderer.GUIDES`
    crop: MouthCrop | None  # in the patch, where there are guides
    expected: U8 | None = None  # u8 [h', w', 3], the expected look over the patch's rectangle
    trust: float = 0.0  # in it


class Drawing(NamedTuple):
    """A frame whose mouth is not mended yet."""

    frame: U8  # u8 [h*3/2, w] I420; with a renderer, its mouth is the background's still
    layers: Layers | None  # None where the face lies outside the frame


@dataclass(frozen=True, slots=True)
class Painting:
    """One frame."""

    frame: U8  # u8 [h*3/2, w] I420
    box: tuple[int, int, int, int]  # x, y, w, h of the mask, px
    mask: U8  # u8 [h, w]: the frame differs from the background only where it is above 0 (and in
    # chroma samples that such a pixel shares)
    mended: U8 | None  # what the renderer wants to see with the next frame


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
        self._look_xy = look_points(mesh)
        self._painter = None
        if use_compiled():
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
        expected: Expected | None = None,
        previous: U8 | None = None,
    ) -> Painting:
        """One frame: what is drawn of it (`draw`), finished (`finish`)."""
        return self.finish(
            self.draw(background, placement, expression, sources, expected), previous
        )

    @stage("composite")
    def draw(
        self,
        background: U8,
        placement: Placement,
        expression: F32,
        sources: Shares,
        expected: Expected | None = None,
    ) -> Drawing:
        """All of a frame that does not depend on the frame before.

        background u8 [h*3/2, w] I420 and its face; expression f32 [K] wanted; the sources (more
        than one while one fades into the next); expected: what a renderer, if there is one, is
        told that the mouth looks like.
        """
        guided = self._renderer is not None
        frame = None if guided else np.empty_like(background)
        layers = self.layers(
            background, placement, expression, sources, expected, guided=guided, frame=frame
        )
        if frame is None or layers is None:
            frame = background.copy()
        return Drawing(frame, layers)

    @stage("composite")
    def finish(self, drawing: Drawing, previous: U8 | None = None) -> Painting:
        """Mend the mouth and lay it into the drawing's frame, which is the painting's from now on.

        previous: the `mended` of the frame before.
        """
        frame, layers = drawing.frame, drawing.layers
        if layers is None:
            return Painting(frame, (0, 0, 0, 0), np.zeros((0, 0), np.uint8), None)
        if self._renderer is None:
            return Painting(frame, layers.box, layers.mask, None)
        assert layers.guides is not None and layers.crop is not None, "drawn with a renderer"
        mended = self._renderer.mend(
            layers.painted, layers.guides, layers.expected, layers.trust, layers.crop, previous
        )
        with stage("color"):
            color.rgb_region_into_i420(layers.painted, frame, *layers.box[:2], layers.mask)
        return Painting(frame, layers.box, layers.mask, mended)

    @stage("warp")
    def layers(
        self,
        background: U8,
        placement: Placement,
        expression: F32,
        sources: Shares,
        expected: Expected | None = None,
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
            detail = DETAILS[0] if self._renderer is None else self._renderer.detail
            crop = MouthCrop.around(placement, self._mesh.model, detail)
        if self._painter is not None:
            return _in_one_go(
                self._painter, background, placement, expression, sources, expected, crop, frame
            )
        vertices, grid = drive(self._mesh, placement, expression)
        start, moved, points = place(placement, vertices, grid)
        driven = Driven(vertices, grid, points, expression, placement.scale)
        # Triangles that hardly move are left alone: sampled, they would come back the same.
        triangles, bounds = face.stirred(start, moved, self._mesh.jaw_triangles, _STILL_PX)
        corners = [points[self._lip_vertices]]
        if len(triangles):
            corners.append(bounds.reshape(2, 2))
        if crop is not None:
            corners.append(crop.corners())
        x0, y0, x1, y1 = _rectangle(np.concatenate(corners), width, height)
        box = (x0, y0, x1 - x0, y1 - y0)
        if x1 <= x0 or y1 <= y0:
            return None
        with stage("color"):
            patch = color.i420_region_to_rgb(background, *box)
        corner = np.array([x0, y0], np.float32)
        painted, mask = warp_mesh(
            patch, start - corner, moved - corner, triangles, patch.shape[:2], onto=patch
        )
        guides = np.zeros((*painted.shape[:2], GUIDES), np.uint8) if guided else None
        driven, layer, trust = driven.seen_from(x0, y0), None, 0.0
        if guided and expected is not None:
            layer, trust = self._expected(painted, driven, expected.look), expected.trust
        self._lay_lips(painted, mask, guides, driven, sources)
        seen = None if crop is None else crop.seen_from(x0, y0)
        if frame is not None:
            frame[:] = background
            with stage("color"):
                color.rgb_region_into_i420(painted, frame, x0, y0, mask)
        return Layers(box, painted, mask, guides, seen, layer, trust)

    @stage("composite")
    def _lay_lips(
        self,
        painted: U8,
        mask: U8,
        guides: U8 | None,
        driven: Driven,
        sources: Shares,
    ) -> None:
        """Blend the sources' lips and the inside of the mouth into `painted`, in place.

        `mask` and `guides` are filled in likewise.
        """
        used = driven.points[self._lip_vertices]  # the inner mesh lies within
        x0, y0, x1, y1 = _rectangle(used, painted.shape[1], painted.shape[0])
        if x1 <= x0 or y1 <= y0:
            return
        driven = driven.seen_from(x0, y0)
        below = painted[y0:y1, x0:x1]
        shape = below.shape[:2]
        drawn, _ = warp_mesh(self._texture, self._texture_xy, driven.points, self._lips, shape)
        alpha = np.ascontiguousarray(drawn[..., 0])
        layer, so_far, leading, trusted = below, 0.0, 0.0, driven.grid[:, 0]
        for source, share in sources:
            one, trust = self._lips_of(source, driven, shape)
            face.relight(one, below, driven.points, self._skin, _LIGHT)
            one = _darken(one, drawn[..., 1], _new_closure(source.placement.free, driven.vertices))
            so_far += share
            if layer is below:
                layer = one
            else:
                layer = composite.blend(layer, one, np.full(shape, share / so_far, np.float32))
            if share > leading:
                leading, trusted = share, trust
        painted[y0:y1, x0:x1] = composite.blend(below, layer, alpha)
        np.maximum(mask[y0:y1, x0:x1], alpha, out=mask[y0:y1, x0:x1])
        if guides is None:
            return
        guides[y0:y1, x0:x1, 0] = alpha
        guides[y0:y1, x0:x1, 1:] = self._gap_guides(trusted, driven, shape)

    @stage("composite")
    def _expected(self, patch: U8, driven: Driven, look: U8) -> U8:
        """A look of the lips over the patch u8 [h, w, 3], in its light, at a size of its own,
        u8 [h', w', 3]."""
        height, width = patch.shape[:2]
        h, w = expected_shape((height, width), driven.scale)
        down, across = np.float32(h / height), np.float32(w / width)
        points = driven.points * np.array([across, down])
        layer, _ = warp_mesh(look, self._look_xy, points, self._lips, (h, w))
        self._inner.finely(layer, look, self._look_xy, points)
        rows, columns = (
            (np.arange(n, dtype=np.float32) + np.float32(0.5)) / zoom
            for n, zoom in ((h, down), (w, across))
        )
        below = remap(patch, np.stack(np.meshgrid(columns, rows), -1))
        face.relight(layer, below, points, self._skin, _LIGHT)
        return layer

    def _gap_guides(self, trust: F32, driven: Driven, shape: tuple[int, int]) -> U8:
        """Where in the gap a pixel lies and how far the source's pixels there are to be trusted,
        u8 [h, w, 2]; both 0 outside the gap."""
        shown = DRAWN + (255 - DRAWN) * trust
        values = np.stack([self._gap_row, shown], 1).astype(np.float32)
        inner = np.ascontiguousarray(driven.points[VERTICES:])
        drawn, _ = mesh_map(values, inner, self._mesh.inner_triangles, shape)
        return drawn.astype(np.uint8)

    @stage("warp")
    def _lips_of(
        self, source: MouthSource, driven: Driven, shape: tuple[int, int]
    ) -> tuple[U8, F32]:
        """One source's lips and inner mouth on the driven mesh, u8 [h, w, 3], and how far what is
        in the gap is to be trusted, f32 [G]."""
        at, trust, lowered = lend(source.placement, (*source.origin, source.zoom), driven)
        warped, _ = warp_mesh(source.rgb, at, driven.points, self._lips, shape)
        # Also where lips meet: an edge that is sampled once a pixel is a stair.
        self._inner.paint(warped, Lent(source.rgb, at, trust, lowered), driven)
        return warped, trust


def _in_one_go(
    painter: FacePainter,
    background: U8,
    placement: Placement,
    expression: F32,
    sources: Shares,
    expected: Expected | None,
    crop: MouthCrop | None,
    frame: U8 | None,
) -> Layers | None:
    """`Compositor.layers` where the kernels are compiled; with a crop, guides are drawn."""
    rows, width = background.shape
    placed = painter.place(
        placement.pose, placement.free, placement.expression, expression,
        None if crop is None else crop.corners(), (width, rows * 2 // 3),
    )  # fmt: skip
    x0, y0, x1, y1 = placed.box
    if x1 <= x0 or y1 <= y0:
        return None
    views = [
        MouthView(s.rgb, s.placement.free, s.placement.pose, (*s.origin, s.zoom), share)
        for s, share in sources
    ]
    if crop is None:
        expected = None
    listening = recorder()
    spent = None if listening is None else np.zeros(len(STAGES), np.int64)
    patch = painter.paint(
        placed, background, expression, views, placement.scale, guided=crop is not None,
        look=None if expected is None else expected.look,
        expected_shape=expected_shape((y1 - y0, x1 - x0), placement.scale),
        frame=frame, spent=spent,
    )  # fmt: skip
    if listening is not None and spent is not None:
        took = dict(zip(STAGES, spent.tolist(), strict=True))
        del took["warp"]  # it is this stage itself
        listening.ran(took)
    seen = None if crop is None else crop.seen_from(x0, y0)
    box = (x0, y0, x1 - x0, y1 - y0)
    trust = 0.0 if expected is None else expected.trust
    return Layers(box, patch.rgb, patch.mask, patch.guides, seen, patch.expected, trust)


def expected_shape(patch: tuple[int, int], scale: float) -> tuple[int, int]:
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


def _new_closure(source: F32, target: F32) -> float:
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
