"""The lip layer on the canonical face: its mesh, its opacity, and where it lies in a texture.

All of it follows from the face model, so every target has the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

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
from lipstream.engine.face.model import INNER_LOWER_LIP, INNER_UPPER_LIP
from lipstream.engine.target.appearance import canonical_uv
from lipstream.engine.types import F32, I32, U8
from lipstream.kernels.mesh import remap

_TEXTURE_PX = 128  # per inter-ocular distance
_TEXTURE_ORIGIN = (-1.0, 0.3)
_TEXTURE_SHAPE = (232, 256)
_SEAM_WIDTH = 0.016  # inter-ocular distances
# Of the shadow between a photo's lips. All of its closed mouths are its one mouth closed, whose
# lips carry the shadow of teeth already: at full depth the line reads as lips ajar.
PHOTO_SEAM: Final = 0.5
_OPAQUE_REACH = 0.05  # outside the outer lips, inter-ocular distances; it fades to LIP_REACH


@dataclass(frozen=True, slots=True)
class LipLayer:
    """Read-only tables over the 468 vertices and the G points of the inner grid."""

    triangles: I32  # i32 [T, 3], lips and gap
    vertices: I32  # i32 [n], of the lip mesh
    skin: I32  # i32 [m], of those, the half-transparent ones, where light is compared
    texture: U8  # u8 [232, 256, 2]: opacity of the layer, shadow between closed lips
    texture_xy: F32  # f32 [468 + G, 2], in `texture`, px
    gap_row: F32  # f32 [G], from 40 at the upper lip to 255 at the lower one
    prior_xy: F32  # f32 [468 + G, 2], in the texture of an appearance prior, px


def build_lip_layer(mesh: FaceMesh, seam: float = 1.0) -> LipLayer:
    """Draw the textures and choose the vertices; `seam`: of the shadow between closed lips."""
    model = mesh.model
    canonical = model.mean[:, :2].astype(np.float32)
    texture = np.concatenate([opacity_texture(mesh), seam_texture(mesh, seam)], axis=2)
    gap = inner_grid(model.mean)[:, :2]
    opacity = remap(texture, _on_texture(canonical)[None])[0, :, 0]
    vertices = np.unique(mesh.lip_triangles)
    # Each lies inside the mesh, which covers its mask: outside of it the layer shows nothing.
    skin = vertices[(opacity[vertices] > 5) & (opacity[vertices] < 200)].astype(np.int32)
    layer = LipLayer(
        mouth_triangles(mesh),
        vertices,
        skin,
        texture,
        _on_texture(np.concatenate([canonical, gap])),
        np.repeat(np.linspace(40, 255, INNER_ROWS, dtype=np.float32), len(gap) // INNER_ROWS),
        canonical_uv(mesh),
    )
    for name in LipLayer.__slots__:
        getattr(layer, name).setflags(write=False)
    return layer


def _on_texture(canonical: F32) -> F32:
    """Texture position of canonical points f32 [n, 2], px."""
    return ((canonical - np.array(_TEXTURE_ORIGIN)) * _TEXTURE_PX).astype(np.float32)


def opacity_texture(mesh: FaceMesh) -> U8:
    """Opacity of the lip layer on the canonical face at rest, u8 [232, 256, 1]."""
    distance = _texture_distance(mesh.model.mean[list(LIP_OUTLINE), :2], LIP_REACH)
    t = np.clip((distance - _OPAQUE_REACH) / (LIP_REACH - _OPAQUE_REACH), 0, 1)
    return ((1 - t * t * (3 - 2 * t)) * 255 + 0.5).astype(np.uint8)[..., None]


def seam_texture(mesh: FaceMesh, depth: float = 1.0) -> U8:
    """Depth of the shadow between closed lips on the canonical face, u8 [232, 256, 1]."""
    rest = mesh.model.mean[:, :2]
    line = (rest[list(INNER_UPPER_LIP)] + rest[list(INNER_LOWER_LIP)]) / 2
    thin = np.concatenate([line + [0, -1e-4], line[::-1] + [0, 1e-4]])
    distance = _texture_distance(thin, 3 * _SEAM_WIDTH)  # there it is less than 1 of 255
    return (np.exp(-((distance / _SEAM_WIDTH) ** 2)) * 255 * depth + 0.5).astype(np.uint8)[
        ..., None
    ]


def _texture_distance(outline: F32, reach: float) -> NDArray[np.float64]:
    """Distance of the texture's pixels to an outline [m, 2], 0 inside; infinite beyond `reach`."""
    low, high = _on_texture(outline.min(0) - reach), _on_texture(outline.max(0) + reach)
    x0, y0 = np.floor(low).astype(int)
    x1, y1 = np.ceil(high).astype(int)
    y, x = np.mgrid[y0:y1, x0:x1]
    points = (np.stack([x, y], -1) + 0.5) / _TEXTURE_PX + np.array(_TEXTURE_ORIGIN)
    distance = np.full(_TEXTURE_SHAPE, np.inf)
    near = distance_outside(points.reshape(-1, 2), outline)
    distance[y0:y1, x0:x1] = near.reshape(points.shape[:2])
    return distance
