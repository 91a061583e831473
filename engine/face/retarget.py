"""Retargeting: from a wanted expression to mesh vertices in the image.

Three meshes move over a frame. The *jaw* mesh carries the background's own lower face and neck
to the new jaw, with rings of vertices outside the face over which the motion fades out, so that
jaw line and neck move as one. The *lip* mesh carries the lips of a mouth source. The *inner* mesh
spans the gap between the lips; its upper rows follow the head and its lower rows the jaw, as
teeth do. Source: ours, after the recomposition step of *Everybody's Talkin'* (arXiv 2001.05201).
The arithmetic is in `kernels.face`, which takes the vertex indices from here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lipstream.engine.face.mesh import (
    INNER_ROWS,
    JAW_TIP,
    JAW_VERTICES,
    LIPS,
    NOSE_TIP,
    RINGS,
    FaceMesh,
)
from lipstream.engine.face.model import FaceModel
from lipstream.engine.types import F32
from lipstream.kernels import face

INSET = 0.014  # inter-ocular distances that a source is read inside of its lips


@dataclass(frozen=True, slots=True)
class Placement:
    """One face in one image: its pose, and its vertices with the pose removed."""

    scale: float  # px per inter-ocular distance
    rotation: F32  # f32 [3, 3]
    translation: F32  # f32 [3], px
    canonical_vertices: F32  # f32 [468, 3], canonical
    expression: F32  # f32 [K]

    def project(self, vertices: F32) -> F32:
        """Canonical f32 [V, 3] to image f32 [V, 2], px."""
        moved = vertices @ self.rotation[:2].T * np.float32(self.scale) + self.translation[:2]
        return moved.astype(np.float32)

    @property
    def pose(self) -> F32:
        """As the kernels take it, f32 [9]: scale, two rows of the rotation, x and y."""
        packed = np.empty(9, np.float32)
        packed[0], packed[1:7] = self.scale, self.rotation[:2].ravel()
        packed[7:] = self.translation[:2]
        return packed


@dataclass(frozen=True, slots=True)
class RetargetedFace:
    """A face with the wanted expression, canonical and in a picture."""

    vertices: F32  # f32 [468, 3], canonical
    grid: F32  # f32 [G, 3], the gap between the lips, canonical
    points: F32  # f32 [468 + G, 2], both in the picture, px
    expression: F32  # f32 [K]
    scale: float  # px per inter-ocular distance
    rotation: F32  # f32 [3, 3], of the head

    def seen_from(self, x: float, y: float) -> RetargetedFace:
        """The same in a picture whose origin is at (x, y)."""
        return replace(self, points=self.points - np.array([x, y], np.float32))


def drive(mesh: FaceMesh, background: Placement, expression: F32) -> tuple[F32, F32]:
    """The background's face with another expression f32 [K], canonical.

    Returns: vertices f32 [468, 3], and the grid between the lips f32 [G, 3].
    """
    own, vertices = background.expression, background.canonical_vertices
    return face.drive(mesh.model.basis, vertices, own, expression, LIPS, INNER_ROWS)


def place(background: Placement, vertices: F32, grid: F32) -> tuple[F32, F32, F32]:
    """Into the picture: vertices and jaw rings before and after, and the driven face.

    Returns: start and moved f32 [V, 2], points f32 [468 + G, 2], px.
    """
    pose, canonical_vertices = background.pose, background.canonical_vertices
    return face.place(pose, canonical_vertices, vertices, grid, JAW_VERTICES, NOSE_TIP, RINGS)


def with_rings(
    before: F32,
    after: F32,
    line: tuple[int, ...],
    scale: float,
    rings: tuple[tuple[float, float], ...],
) -> tuple[F32, F32]:
    """Append copies of the vertices `line`, moved outwards, over which the motion fades out.

    before, after f32 [468, 2] px; each ring is (distance out in units of `scale` px, weight
    of the motion).
    """
    around, ways = np.array(line, np.int32), np.array(rings, np.float32)
    return face.with_rings(before, after, around, NOSE_TIP, scale, ways)


def map_to_source(
    source: Placement, view: tuple[float, float, float], retargeted: RetargetedFace
) -> tuple[F32, F32, float]:
    """Where the lips and the inner mouth of a driven face lie in a source's picture.

    view: left and top of that picture in the coordinates of its placement, px, and its zoom.
    Returns: points f32 [468 + G, 2] px; the confidence f32 [G] in the source's pixels of the gap;
    and how far the driven upper lip is below the source's, inter-ocular distances.
    """
    return face.map_to_source(
        retargeted.vertices, retargeted.grid, source.canonical_vertices, source.pose,
        np.array(view, np.float32), LIPS, JAW_TIP, INSET,
    )  # fmt: skip


def gap_height(vertices: F32) -> float:
    """Opening in the middle of the mouth, inter-ocular distances."""
    return float(vertices[14, 1] - vertices[13, 1])


def jaw_row(model: FaceModel) -> F32:
    """How far each coefficient lowers the chin, f32 [K], inter-ocular distances."""
    row: F32 = model.basis[:, JAW_TIP, 1].mean(1)
    return row


def jaw_drop(model: FaceModel, expression: F32) -> float:
    """How far the chin is below its rest, inter-ocular distances."""
    return float(expression @ jaw_row(model))
