"""Topology: which vertices and triangles make the jaw, lip and inner-mouth meshes.

The *jaw* mesh carries the background's own lower face and neck, with rings of vertices outside the
face over which the motion fades out. The *lip* mesh covers the lips and a margin around them. The
*inner* mesh spans the gap between the lips.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.face.model import (
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
_JAW_RINGS = ((0.25, 0.5), (0.60, 0.15), (1.00, 0.0))  # inter-ocular distances out, weight
LIP_OUTLINE = OUTER_UPPER_LIP + OUTER_LOWER_LIP[-2:0:-1]  # closed, clockwise
LIPS = np.array([INNER_UPPER_LIP, INNER_LOWER_LIP, OUTER_UPPER_LIP, OUTER_LOWER_LIP], np.int32)
LIP_REACH = 0.20  # inter-ocular distances round the lips that the lip mesh covers
INNER_ROWS = 7
NOSE_TIP = 1
JAW_TIP = np.array([CHIN, 175, 199, 200], np.int32)
JAW_VERTICES, RINGS = np.array(JAW_LINE, np.int32), np.array(_JAW_RINGS, np.float32)


@dataclass(frozen=True, slots=True)
class FaceMesh:
    """The triangles of the three meshes, read-only."""

    model: FaceModel
    jaw_triangles: I32  # i32 [T, 3] over the 468 vertices and the ring vertices
    lip_triangles: I32  # i32 [T, 3] over the 468 vertices
    inner_triangles: I32  # i32 [T, 3] over the inner grid, row-major


def build_mesh(model: FaceModel) -> FaceMesh:
    """Choose the triangles of the three meshes."""
    moving = np.abs(model.basis).max((0, 2)) > 0.01 * np.abs(model.basis).max()
    faces = model.triangles
    ring = ring_strip(list(JAW_LINE), len(JAW_LINE), len(_JAW_RINGS), closed=False)
    jaw = np.concatenate([faces[moving[faces].any(1)], np.asarray(ring, np.int32)])

    near = distance_outside(model.mean[:, :2], model.mean[list(LIP_OUTLINE), :2]) < LIP_REACH
    gap = np.isin(faces, INNER_UPPER_LIP + INNER_LOWER_LIP).all(1)  # the inner mesh covers it
    lip = faces[near[faces].any(1) & ~gap]

    columns = len(INNER_UPPER_LIP)
    rows = [[r * columns + c for c in range(columns)] for r in range(INNER_ROWS)]
    inner_triangles = [t for a, b in zip(rows, rows[1:], strict=False) for t in _strip(a, b)]
    meshes = (
        np.ascontiguousarray(jaw, np.int32),
        np.ascontiguousarray(lip, np.int32),
        np.asarray(inner_triangles, np.int32),
    )
    for triangles in meshes:
        triangles.setflags(write=False)
    return FaceMesh(model, *meshes)


def mouth_triangles(mesh: FaceMesh) -> I32:
    """Lips and gap together, i32 [T, 3] over the 468 vertices and the inner grid."""
    inner = mesh.inner_triangles + VERTICES
    return np.ascontiguousarray(np.concatenate([mesh.lip_triangles, inner]), np.int32)


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
    t = np.linspace(0, 1, INNER_ROWS, dtype=np.float32)[:, None, None]
    return (upper + t * (lower - upper)).reshape(-1, 3).astype(np.float32)


def distance_outside(points: F32, polygon: F32) -> F32:
    """Distance of points f64 [n, 2] to a closed polygon [m, 2]; 0 inside it."""
    (ax, ay), (bx, by) = polygon.T, np.roll(polygon, -1, axis=0).T
    dx, dy = bx - ax, by - ay
    x, y = points[:, :1] - ax, points[:, 1:] - ay
    t = np.clip((x * dx + y * dy) / (dx * dx + dy * dy), 0, 1)
    nearest = np.sqrt(((x - t * dx) ** 2 + (y - t * dy) ** 2).min(1))
    crosses = (y < 0) != (points[:, 1:] < by)
    inside = ((x < y / np.where(dy == 0, 1e-9, dy) * dx) & crosses).sum(1) % 2 == 1
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
