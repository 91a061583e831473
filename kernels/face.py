"""A face's vertices moved, placed and dressed: what lies between two frames' pixels.

Lips are given as four lines of n vertices, i32 [4, n], each from the image's left to its right: the
inner upper and lower lip, and the outer upper and lower one; the middle of the mouth is vertex
n // 2 of a line. The gap between the inner lips is spanned by a grid of `rows` times n points, top
row first. A pose is f32 [9]: scale (px per inter-ocular distance), the first two rows of a
rotation, x and y of a translation (px). Vertices are canonical: f32 [V, 3], inter-ocular distances.

The arrays come from the engine's own dataclasses, whose makers have checked them; shapes are
checked here once more because compiled code follows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lipstream.kernels import native
from lipstream.kernels.checks import require
from lipstream.kernels.dispatch import use_native
from lipstream.kernels.reference import all as reference

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
U8 = NDArray[np.uint8]


class Limits(NamedTuple):
    """Of `relight`."""

    least: int  # vertices of skin, below which nothing is done
    stiffness: float  # that keeps the plane from tilting
    reach: float  # levels by which a vertex may differ from the median
    tint: float  # by which a colour's gain may differ from the mean of the three


def drive(
    basis: F32, canonical_vertices: F32, own: F32, wanted: F32, lips: I32, rows: int
) -> tuple[F32, F32]:
    """A face that wears another expression.

    The move is relative, so what the basis cannot express of this very face is kept; only the gap
    between the lips is absolute: lips that should meet do meet, at one depth and side, or a turned
    head would show a sliver.

    Args:
        basis: f32 [K, V, 3].
        freed: f32 [V, 3], the face with its pose removed.
        own, wanted: f32 [K], its expression, and the one that it is to wear.
        lips, rows: see the module.

    Returns:
        vertices f32 [V, 3] and grid f32 [rows * n, 3].
    """
    require("basis", basis, np.float32, (None, None, 3))
    size, count = basis.shape[:2]
    require("canonical_vertices", canonical_vertices, np.float32, (count, 3))
    require("own", own, np.float32, (size,))
    require("wanted", wanted, np.float32, (size,))
    implementation = native if use_native() else reference
    return implementation.drive(basis, canonical_vertices, own, wanted, lips, rows)


def place(
    pose: F32, canonical_vertices: F32, vertices: F32, grid: F32, line: I32, centre: int, rings: F32
) -> tuple[F32, F32, F32]:
    """Into the picture, with rings of vertices outside the face on which its motion dies out.

    Args:
        pose: f32 [9].
        freed, vertices: f32 [V, 3], the face before and after.
        grid: f32 [G, 3].
        line: i32 [L], the vertices that are repeated in each ring, further out from `centre`.
        centre: a vertex.
        rings: f32 [R, 2], inter-ocular distances out and share of the motion that is kept.

    Returns:
        start and moved, f32 [V + R * L, 2] px each, and points f32 [V + G, 2] px: vertices, grid.
    """
    require("pose", pose, np.float32, (9,))
    require("canonical_vertices", canonical_vertices, np.float32, (None, 3))
    require("vertices", vertices, np.float32, (len(canonical_vertices), 3))
    require("grid", grid, np.float32, (None, 3))
    require("rings", rings, np.float32, (None, 2))
    implementation = native if use_native() else reference
    return implementation.place(pose, canonical_vertices, vertices, grid, line, centre, rings)


def with_rings(
    before: F32, after: F32, line: I32, centre: int, scale: float, rings: F32
) -> tuple[F32, F32]:
    """The rings of `place` for vertices that are in a picture already: f32 [V, 2] px, twice.

    scale: px per inter-ocular distance. Returns both with R * L vertices appended. No compiled one:
    what needs it is rare.
    """
    require("before", before, np.float32, (None, 2))
    require("after", after, np.float32, (len(before), 2))
    return reference.with_rings(before, after, line, centre, scale, rings)


def moving_triangles(start: F32, moved: F32, triangles: I32, still_px: float) -> tuple[I32, F32]:
    """The triangles of which a corner moves by more than `still_px`, in x or in y.

    start, moved f32 [V, 2] px; triangles i32 [T, 3]. Returns i32 [T', 3] and the bounds of their
    moved corners, f32 [4]: x0, y0, x1, y1 (inf, inf, -inf, -inf for none).
    """
    require("start", start, np.float32, (None, 2))
    require("moved", moved, np.float32, (len(start), 2))
    require("triangles", triangles, np.int32, (None, 3))
    implementation = native if use_native() else reference
    return implementation.moving_triangles(start, moved, triangles, still_px)


def map_to_source(
    vertices: F32,
    grid: F32,
    canonical_vertices: F32,
    pose: F32,
    view: F32,
    lips: I32,
    chin: I32,
    inset: float,
) -> tuple[F32, F32, float]:
    """Where a driven face finds its lips and the inside of its mouth in a source's picture.

    Deep inside the gap the mapping is rigid with the head near the upper lip and with the jaw near
    the lower one; in between, where the mouth is dark, it stretches. A tracked lip edge lies a
    little outside of where lips end, most of all in the corners, so near the edges it goes over
    into the stretch from the source's lips to the driven ones, and no lip is torn off its other
    half. The two differ by at most 0.4 of the depth, so that nothing is shown twice: under a lip
    raised higher than the source's the teeth come along. A source that is much less open can only
    lend what hangs from the head (the upper teeth); trust is 0 where it has nothing to show. Where
    the driven mouth closes over the source's teeth they would show as a white line, so there the
    edge is taken from a little inside the lip.

    Args:
        vertices, grid: f32 [V, 3] and f32 [G, 3] of the driven face, from `drive`.
        freed, pose: f32 [V, 3] and f32 [9] of the source.
        view: f32 [3], left and top of the source's picture and its zoom.
        lips: see the module.
        chin: i32 [C], vertices that move with the jaw.
        inset: how far inside the lip, at most, inter-ocular distances.

    Returns:
        points f32 [V + G, 2] px in the source's picture; trust f32 [G], 0 to 1; and how far the
        driven upper lip is below the source's, inter-ocular distances.
    """
    require("vertices", vertices, np.float32, (None, 3))
    require("grid", grid, np.float32, (None, 3))
    require("canonical_vertices", canonical_vertices, np.float32, (len(vertices), 3))
    require("pose", pose, np.float32, (9,))
    require("view", view, np.float32, (3,))
    implementation = native if use_native() else reference
    return implementation.map_to_source(
        vertices, grid, canonical_vertices, pose, view, lips, chin, inset
    )


def relight(layer: U8, below: U8, points: F32, skin: I32, limits: Limits) -> None:
    """Bring a layer to the light of what lies below, in place: a gain that is a plane over x, y.

    Fitted on vertices of skin that both show. A gain and not an offset: light multiplies, and the
    dark of a mouth stays dark. Light differs in strength more than in colour; what is left is
    make-up, and not for teeth.

    layer, below u8 [h, w, 3]; points f32 [V, 2] px; skin i32 [S], which of them count.
    """
    require("layer", layer, np.uint8, (None, None, 3))
    require("below", below, np.uint8, (*layer.shape[:2], 3))
    require("points", points, np.float32, (None, 2))
    implementation = native if use_native() else reference
    implementation.relight(layer, below, points, skin, limits)


def downsample2x(fine: U8, covered: U8, window: U8) -> None:
    """Write means of 2x2 pixels of `fine` into `window` u8 [h, w, 3], where all are covered.

    fine u8 [2h, 2w, 3], covered u8 [2h, 2w], 0 or 255.
    """
    h, w = window.shape[:2]
    require("window", window, np.uint8, (h, w, 3))
    require("fine", fine, np.uint8, (2 * h, 2 * w, 3))
    require("covered", covered, np.uint8, (2 * h, 2 * w))
    implementation = native if use_native() else reference
    implementation.downsample2x(fine, covered, window)
