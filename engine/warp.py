"""Where each part of the face goes: from a wanted expression to mesh vertices in the image.

Three meshes move over a frame. The *jaw* mesh carries the background's own lower face and neck
to the new jaw, with a ring of vertices outside the face on which the motion dies out, so that
jaw line and neck move as one. The *lip* mesh brings the lips of a mouth source. The *inner* mesh
spans the gap between the lips; its upper rows follow the head and its lower rows the jaw, as
teeth do. Source: ours, after the recomposition step of *Everybody's Talkin'* (arXiv 2001.05201).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.face_model import (
    CHIN,
    FACE_OVAL,
    INNER_LOWER_LIP,
    INNER_UPPER_LIP,
    OUTER_LOWER_LIP,
    OUTER_UPPER_LIP,
    VERTICES,
    FaceModel,
)
from lipstream.engine.types import F32, I32

# Lower half of the face oval, from one ear over the chin to the other.
JAW_LINE = FACE_OVAL[7:30]  # temple to temple
_JAW_RINGS = ((0.25, 0.5), (0.60, 0.15), (1.00, 0.0))  # (inter-ocular distances out, share moved)
LIP_OUTLINE = OUTER_UPPER_LIP + OUTER_LOWER_LIP[-2:0:-1]  # closed, clockwise
_LIP_REACH = 0.32  # inter-ocular distances round the lips that the lip mesh covers
INNER_ROWS = 7
_INSET = 0.014  # inter-ocular distances
_NOSE_TIP = 1
_CHIN_VERTICES = (CHIN, 175, 199, 200)


@dataclass(frozen=True, slots=True)
class Placement:
    """One face in one image: its pose, and its vertices with the pose removed."""

    scale: float  # px per inter-ocular distance
    rotation: F32  # f32 [3, 3]
    translation: F32  # f32 [3], px
    free: F32  # f32 [468, 3], canonical
    expression: F32  # f32 [K]

    def project(self, vertices: F32) -> F32:
        """Canonical f32 [V, 3] to image f32 [V, 2], px."""
        moved = vertices @ self.rotation[:2].T * np.float32(self.scale) + self.translation[:2]
        return moved.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Driven:
    """A face that wears the wanted expression, and where it lies in a picture."""

    vertices: F32  # f32 [468, 3], canonical
    grid: F32  # f32 [G, 3], the gap between the lips, canonical
    points: F32  # f32 [468 + G, 2], both in the picture, px
    expression: F32  # f32 [K]
    scale: float  # px per inter-ocular distance

    def seen_from(self, x: float, y: float) -> Driven:
        """The same in a picture whose origin is at (x, y)."""
        return replace(self, points=self.points - np.array([x, y], np.float32))


@dataclass(frozen=True, slots=True)
class FaceMesh:
    """Fixed topology, made once from the face model."""

    model: FaceModel
    jaw_triangles: I32  # i32 [T, 3] over the 468 vertices and the ring vertices
    lip_triangles: I32  # i32 [T, 3] over the 468 vertices
    inner_triangles: I32  # i32 [T, 3] over the inner grid, row-major
    lip_motion: F32  # f32 [K, 2, 11]: y of the inner upper and lower lip per coefficient


def build_mesh(model: FaceModel) -> FaceMesh:
    """Choose the triangles of the three meshes."""
    moving = np.abs(model.basis).max((0, 2)) > 0.01 * np.abs(model.basis).max()
    triangles = model.triangles
    ring = ring_strip(list(JAW_LINE), len(JAW_LINE), len(_JAW_RINGS), closed=False)
    jaw = np.concatenate([triangles[moving[triangles].any(1)], np.asarray(ring, np.int32)])

    near = distance_outside(model.mean[:, :2], model.mean[list(LIP_OUTLINE), :2]) < _LIP_REACH
    gap = np.isin(triangles, INNER_UPPER_LIP + INNER_LOWER_LIP).all(1)  # the inner mesh's place
    lip = triangles[near[triangles].all(1) & ~gap]

    columns = len(INNER_UPPER_LIP)
    rows = [[r * columns + c for c in range(columns)] for r in range(INNER_ROWS)]
    inner_triangles = [t for a, b in zip(rows, rows[1:], strict=False) for t in _strip(a, b)]
    lip_motion = np.stack(
        [model.basis[:, INNER_UPPER_LIP, 1], model.basis[:, INNER_LOWER_LIP, 1]], axis=1
    )
    return FaceMesh(
        model,
        np.ascontiguousarray(jaw, np.int32),
        np.ascontiguousarray(lip, np.int32),
        np.asarray(inner_triangles, np.int32),
        lip_motion.astype(np.float32),
    )


def drive(mesh: FaceMesh, background: Placement, expression: F32) -> F32:
    """Canonical vertices f32 [468, 3] of the background's face wearing another expression.

    The move is relative, so what the basis cannot express of this very frame is kept; only the
    gap between the lips is absolute: lips that should meet do meet.
    """
    change = mesh.model.displacement(expression - background.expression)
    vertices = background.free + change
    lips = np.tensordot(expression, mesh.lip_motion, axes=1)  # f32 [2, 11]
    wanted = np.maximum(lips[1] - lips[0], 0.0)
    upper, lower = list(INNER_UPPER_LIP), list(INNER_LOWER_LIP)
    miss = (wanted - (vertices[lower, 1] - vertices[upper, 1])) / 2
    miss[[0, -1]] = 0.0  # the corners are one vertex
    vertices[upper, 1] -= miss
    vertices[lower, 1] += miss
    vertices[list(OUTER_UPPER_LIP), 1] -= miss / 2
    vertices[list(OUTER_LOWER_LIP), 1] += miss / 2
    # Lips that meet lie at the same depth and side, or a turned head would show a sliver.
    closed = np.clip(1 - wanted / 0.02, 0.0, 1.0)[:, None]
    middle = (vertices[upper] + vertices[lower]) / 2
    vertices[upper] += closed * (middle - vertices[upper])
    vertices[lower] += closed * (middle - vertices[lower])
    return vertices


def jaw_vertices(before: F32, after: F32, scale: float) -> tuple[F32, F32]:
    """Image positions f32 [V, 2] before and after, with the ring outside the jaw appended."""
    return with_rings(before, after, JAW_LINE, scale, _JAW_RINGS)


def with_rings(
    before: F32,
    after: F32,
    line: tuple[int, ...],
    scale: float,
    rings: tuple[tuple[float, float], ...],
) -> tuple[F32, F32]:
    """Append copies of the vertices `line`, moved outwards, on which the motion dies out.

    before, after f32 [468, 2] px; each ring is (distance out in units of `scale` px, share of the
    motion that it keeps).
    """
    on = list(line)
    start, motion = before[on], after[on] - before[on]
    outward = start - before[_NOSE_TIP]
    outward = outward / np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-6)
    placed = [start + outward * np.float32(distance * scale) for distance, _ in rings]
    moved = [at + motion * np.float32(share) for at, (_, share) in zip(placed, rings, strict=True)]
    return (
        np.concatenate([before, *placed]).astype(np.float32),
        np.concatenate([after, *moved]).astype(np.float32),
    )


def ring_strip(
    line: list[int], count: int, levels: int, *, closed: bool
) -> list[tuple[int, int, int]]:
    """Triangles of the rings that `with_rings` appends to the 468 vertices."""
    triangles: list[tuple[int, int, int]] = []
    inner = line
    for level in range(levels):
        outer = [VERTICES + level * count + i for i in range(count)]
        join = ([*inner, inner[0]], [*outer, outer[0]]) if closed else (inner, outer)
        triangles += _strip(*join)
        inner = outer
    return triangles


def inner_grid(vertices: F32) -> F32:
    """Canonical f32 [rows * 11, 3] spanning the gap between the inner lips, top row first."""
    upper, lower = vertices[list(INNER_UPPER_LIP)], vertices[list(INNER_LOWER_LIP)]
    share = np.linspace(0, 1, INNER_ROWS, dtype=np.float32)[:, None, None]
    return (upper + share * (lower - upper)).reshape(-1, 3).astype(np.float32)


def inner_source(target: F32, target_vertices: F32, source: Placement) -> tuple[F32, F32]:
    """What the target's inner grid shows of the source: canonical f32 [G, 3] and trust f32 [G].

    Near the upper lip the mapping is rigid with the head, near the lower lip with the jaw; in
    between, where the mouth is dark, it stretches. A point that would fall on the source's lips
    is held inside its gap. A source that is much less open than the target can only lend what
    hangs from the head (the upper teeth); trust is 0 where it has nothing to show.
    """
    rows = INNER_ROWS
    grid = target.reshape(rows, -1, 3).copy()
    own = inner_grid(source.free).reshape(rows, -1, 3)
    chin = list(_CHIN_VERTICES)
    jaw = source.free[chin].mean(0) - target_vertices[chin].mean(0)
    like_gap = gap_height(source.free) / max(gap_height(target_vertices), 1e-3)
    likeness = smoothstep((like_gap - 0.45) / 0.35) * smoothstep((0.11 - abs(jaw[1])) / 0.07)
    follow = smoothstep(np.linspace(0, 1, rows, dtype=np.float32))[:, None, None]
    grid += likeness * follow * jaw
    span = own[-1, :, 1] - own[0, :, 1]
    low = own[0, :, 1] + 0.06 * span
    high = np.maximum(own[-1, :, 1] - 0.06 * span, low)
    held = np.clip(grid[..., 1], low, high)
    beyond = np.maximum(grid[..., 1] - held, 0.0)  # below the source's gap; above it is stretched
    thin = smoothstep((span - 0.01) / 0.04)
    trust = np.maximum(likeness, thin * (1 - smoothstep(beyond / 0.03)))
    grid[..., 1] = held
    grid[..., 0] = np.clip(grid[..., 0], own[0, 0, 0], own[0, -1, 0])
    return grid.reshape(-1, 3).astype(np.float32), trust.reshape(-1).astype(np.float32)


def lip_inset(source: Placement, target_vertices: F32) -> F32:
    """The source's vertices f32 [468, 3] with the inner lip edge drawn into the lips.

    A tracked edge is true to about a pixel, so teeth cling to it. Between mouths of like opening
    that is right; where the target closes over the source's teeth they would show as a white
    line, so the edge is taken from a little inside the lip instead.
    """
    vertices = source.free.copy()
    upper, lower = list(INNER_UPPER_LIP), list(INNER_LOWER_LIP)
    gap = vertices[lower, 1] - vertices[upper, 1]
    wanted = target_vertices[lower, 1] - target_vertices[upper, 1]
    unlike = smoothstep(np.abs(1 - wanted / np.maximum(gap, 1e-3)) / 0.6)
    inset = unlike * smoothstep((gap - 0.008) / 0.03) * np.float32(_INSET + 0.8 / source.scale)
    thickness = np.minimum(
        vertices[upper, 1] - vertices[list(OUTER_UPPER_LIP), 1],
        vertices[list(OUTER_LOWER_LIP), 1] - vertices[lower, 1],
    )
    inset = np.minimum(inset, 0.35 * np.maximum(thickness, 0.0))
    vertices[upper, 1] -= inset
    vertices[lower, 1] += inset
    return vertices


def gap_height(vertices: F32) -> float:
    """Opening in the middle of the mouth, inter-ocular distances."""
    return float(vertices[14, 1] - vertices[13, 1])


def jaw_drop(model: FaceModel, expression: F32) -> float:
    """How far the chin is below its rest, inter-ocular distances."""
    return float(expression @ model.basis[:, _CHIN_VERTICES, 1].mean(1))


def distance_outside(points: F32, polygon: F32) -> F32:
    """Distance of f64 [n, 2] to a closed polygon [m, 2], 0 inside it."""
    start, end = polygon, np.roll(polygon, -1, axis=0)
    along = end - start
    relative = points[:, None] - start
    t = np.clip((relative * along).sum(-1) / (along * along).sum(-1), 0, 1)
    nearest = np.linalg.norm(relative - t[..., None] * along, axis=-1).min(1)
    py = points[:, None, 1]
    crosses = (start[:, 1] > py) != (end[:, 1] > py)
    at = (
        start[:, 0]
        + (py - start[:, 1]) / np.where(along[:, 1] == 0, 1e-9, along[:, 1]) * along[:, 0]
    )
    inside = ((points[:, None, 0] < at) & crosses).sum(1) % 2 == 1
    return np.where(inside, 0.0, nearest)


def smoothstep(x: NDArray[np.floating] | float) -> F32:
    """0 below 0, 1 above 1, and a smooth cubic in between."""
    t = np.clip(np.asarray(x, np.float32), 0.0, 1.0)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def head_triangles(model: FaceModel, rings: int) -> I32:
    """The whole face and `rings` rings round its oval, as `with_rings` appends them, i32 [T, 3]."""
    around = ring_strip(list(FACE_OVAL), len(FACE_OVAL), rings, closed=True)
    return np.concatenate([np.asarray(around, np.int32), model.triangles]).astype(np.int32)


def _strip(top: list[int], bottom: list[int]) -> list[tuple[int, int, int]]:
    """Triangles between two rows of the same length."""
    return [
        t
        for i in range(len(bottom) - 1)
        for t in ((top[i], top[i + 1], bottom[i]), (top[i + 1], bottom[i + 1], bottom[i]))
    ]
