"""The vertices of a face: driven by an expression, placed in a picture, mapped to a mouth source.

Lips are given as four lines of n vertices, i32 [4, n], each from the image's left to its right: the
inner upper and lower lip, and the outer upper and lower one; the middle of the mouth is vertex
n // 2 of a line. The gap between the inner lips is spanned by a grid of `rows` times n points, top
row first. A pose is f32 [9]: scale (px per inter-ocular distance), the first two rows of a
rotation, x and y of a translation (px). Vertices are canonical: f32 [V, 3], inter-ocular distances.

Every index is checked at every call. That costs 5 to 30 us a call and no frame: a frame's path goes
through `face_painter`, which checks its tables when it is made.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lipstream.kernels import native
from lipstream.kernels.checks import require, require_indices
from lipstream.kernels.dispatch import kernel
from lipstream.kernels.errors import UsageError
from lipstream.kernels.reference import face as reference

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
    """A face with another expression.

    The vertices move by the difference of the two expressions, so what the basis cannot express of
    this face is kept. Only the gap between the lips is absolute. Lips that should meet do meet, at
    one depth and side, or a turned head would show a sliver.

    Args:
        basis: f32 [K, V, 3].
        canonical_vertices: f32 [V, 3], the face with its pose removed.
        own, wanted: f32 [K], its expression, and the new one.
        lips, rows: see the module; two rows or more.

    Returns:
        vertices f32 [V, 3] and grid f32 [rows * n, 3].
    """
    require("basis", basis, np.float32, (None, None, 3))
    size, count = basis.shape[:2]
    require("canonical_vertices", canonical_vertices, np.float32, (count, 3))
    require("own", own, np.float32, (size,))
    require("wanted", wanted, np.float32, (size,))
    _require_lips(lips, count)
    if rows < 2:
        raise UsageError(f"rows is {rows}; expected 2 or more")
    return drive_vertices(basis, canonical_vertices, own, wanted, lips, rows)


def place(
    pose: F32, canonical_vertices: F32, vertices: F32, grid: F32, line: I32, centre: int, rings: F32
) -> tuple[F32, F32, F32]:
    """Into the picture, with rings of vertices outside the face on which its motion dies out.

    Args:
        pose: f32 [9].
        canonical_vertices, vertices: f32 [V, 3], the face before and after.
        grid: f32 [G, 3].
        line: i32 [L], the vertices that are repeated in each ring, further out from `centre`.
        centre: a vertex.
        rings: f32 [R, 2], inter-ocular distances out and the part of the motion that is kept.

    Returns:
        start and moved, f32 [V + R * L, 2] px each, and points f32 [V + G, 2] px: vertices, grid.
    """
    require("pose", pose, np.float32, (9,))
    require("canonical_vertices", canonical_vertices, np.float32, (None, 3))
    require("vertices", vertices, np.float32, (len(canonical_vertices), 3))
    require("grid", grid, np.float32, (None, 3))
    _require_rings(line, centre, rings, len(canonical_vertices))
    return project(pose, canonical_vertices, vertices, grid, line, centre, rings)


def with_rings(
    before: F32, after: F32, line: I32, centre: int, scale: float, rings: F32
) -> tuple[F32, F32]:
    """The rings of `place` for vertices that are in a picture already: f32 [V, 2] px, twice.

    scale: px per inter-ocular distance. Returns both with R * L vertices appended. There is no
    compiled one: its callers are rare.
    """
    require("before", before, np.float32, (None, 2))
    require("after", after, np.float32, (len(before), 2))
    _require_rings(line, centre, rings, len(before))
    return reference.with_rings(before, after, line, centre, scale, rings)


def moving_triangles(start: F32, moved: F32, triangles: I32, still_px: float) -> tuple[I32, F32]:
    """The triangles of which a corner moves by more than `still_px`, in x or in y.

    start, moved f32 [V, 2] px; triangles i32 [T, 3]. Returns i32 [T', 3] and the bounds of their
    moved corners, f32 [4]: x0, y0, x1, y1 (inf, inf, -inf, -inf for none).
    """
    require("start", start, np.float32, (None, 2))
    require("moved", moved, np.float32, (len(start), 2))
    require_indices("triangles", triangles, (None, 3), len(start))
    return choose_moving(start, moved, triangles, still_px)


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

    Deep inside the gap the mapping is rigid, with the head near the upper lip and with the jaw near
    the lower one; in between, where the mouth is dark, it stretches. A tracked lip edge lies a
    little outside of where lips end, most of all in the corners. So near the edges the mapping goes
    over into the stretch from the source's lips to the driven ones, and no lip is torn off its
    other half. The two differ by at most 0.4 of the depth, so that nothing shows twice: under a lip
    raised higher than the source's the teeth come along. A source that is much less open only has
    what hangs from the head (the upper teeth) to show. Confidence is 0 where it has nothing. Where
    the driven mouth closes over the source's teeth they would show as a white line, so there the
    edge is taken from a little inside the lip.

    Args:
        vertices, grid: f32 [V, 3] and f32 [rows * n, 3] of the driven face, from `drive`.
        canonical_vertices, pose: f32 [V, 3] and f32 [9] of the source.
        view: f32 [3], left and top of the source's picture and its zoom.
        lips: see the module.
        chin: i32 [C], vertices that move with the jaw.
        inset: how far inside the lip, at most, inter-ocular distances.

    Returns:
        points f32 [V + G, 2] px in the source's picture; confidence f32 [G], 0 to 1; and how far
        the driven upper lip is below the source's, inter-ocular distances.
    """
    require("vertices", vertices, np.float32, (None, 3))
    require("grid", grid, np.float32, (None, 3))
    require("canonical_vertices", canonical_vertices, np.float32, (len(vertices), 3))
    require("pose", pose, np.float32, (9,))
    require("view", view, np.float32, (3,))
    _require_lips(lips, len(vertices))
    require_indices("chin", chin, (None,), len(vertices))
    n = lips.shape[1]
    if len(grid) % n or len(grid) < 2 * n or not len(chin):
        raise UsageError(
            f"grid has {len(grid)} points and chin {len(chin)}; expected two rows of {n} or more, "
            "and a vertex or more"
        )
    return find_in_source(vertices, grid, canonical_vertices, pose, view, lips, chin, inset)


def relight(layer: U8, below: U8, points: F32, skin: I32, limits: Limits) -> None:
    """Bring a layer to the light of what lies below, in place: a gain that is a plane over x, y.

    Fitted on vertices of skin that both show. A gain and not an offset: light multiplies, and the
    dark of a mouth stays dark. Light differs in strength more than in colour; what is left is
    make-up, and not for teeth.

    layer, below u8 [h, w, 3]; points f32 [V, 2] px; skin i32 [S], which of them count. The layer is
    contiguous, and so are the rows of `below`.
    """
    require("layer", layer, np.uint8, (None, None, 3))
    require("below", below, np.uint8, (*layer.shape[:2], 3))
    require("points", points, np.float32, (None, 2))
    require_indices("skin", skin, (None,), len(points))
    _require_rows("below", below)
    if not (layer.flags.c_contiguous and layer.flags.writeable):
        raise UsageError("layer is not contiguous or read-only; it is changed in place")
    match_light(layer, below, points, skin, limits)


def downsample2x(fine: U8, covered: U8, window: U8) -> None:
    """Write means of 2x2 pixels of `fine` into `window` u8 [h, w, 3], where all are covered.

    fine u8 [2h, 2w, 3], covered u8 [2h, 2w], 0 or 255. The rows of the window are contiguous.
    """
    h, w = window.shape[:2]
    require("window", window, np.uint8, (h, w, 3))
    require("fine", fine, np.uint8, (2 * h, 2 * w, 3))
    require("covered", covered, np.uint8, (2 * h, 2 * w))
    _require_rows("window", window)
    if not window.flags.writeable:
        raise UsageError("window is read-only; it is changed in place")
    halve(fine, covered, window)


@kernel(reference.drive)
def drive_vertices(
    basis: F32, canonical_vertices: F32, own: F32, wanted: F32, lips: I32, rows: int
) -> tuple[F32, F32]:
    """`drive` without its checks."""
    basis, canonical_vertices = (
        np.ascontiguousarray(basis),
        np.ascontiguousarray(canonical_vertices),
    )
    own, wanted = np.ascontiguousarray(own), np.ascontiguousarray(wanted)
    lips = np.ascontiguousarray(lips)
    size, count = basis.shape[:2]
    n = lips.shape[1]
    vertices = native.empty((count, 3), np.float32)
    grid = native.empty((rows * n, 3), np.float32)
    native.library().ls_drive(
        basis, size, count, canonical_vertices, own, wanted, lips, n, rows, vertices, grid
    )
    return vertices, grid


@kernel(reference.place)
def project(
    pose: F32, canonical_vertices: F32, vertices: F32, grid: F32, line: I32, centre: int, rings: F32
) -> tuple[F32, F32, F32]:
    """`place` without its checks."""
    vertices = np.ascontiguousarray(vertices)
    canonical_vertices = np.ascontiguousarray(canonical_vertices)
    pose, grid = np.ascontiguousarray(pose), np.ascontiguousarray(grid)
    line, rings = np.ascontiguousarray(line), np.ascontiguousarray(rings)
    count = len(canonical_vertices)
    ringed = (count + len(line) * len(rings), 2)
    start, moved = native.empty(ringed, np.float32), native.empty(ringed, np.float32)
    points = native.empty((count + len(grid), 2), np.float32)
    native.library().ls_place(
        pose, canonical_vertices, vertices, count, grid, len(grid), line, len(line), centre, rings,
        len(rings), start, moved, points,
    )  # fmt: skip
    return start, moved, points


@kernel(reference.moving_triangles)
def choose_moving(start: F32, moved: F32, triangles: I32, still_px: float) -> tuple[I32, F32]:
    """`moving_triangles` without its checks."""
    start, moved = np.ascontiguousarray(start), np.ascontiguousarray(moved)
    triangles = np.ascontiguousarray(triangles)
    kept, bounds = native.empty(triangles.shape, np.int32), native.empty(4, np.float32)
    count = native.library().ls_moving_triangles(
        start, moved, triangles, len(triangles), still_px, kept, bounds
    )
    return kept[:count], bounds


@kernel(reference.map_to_source)
def find_in_source(
    vertices: F32,
    grid: F32,
    canonical_vertices: F32,
    pose: F32,
    view: F32,
    lips: I32,
    chin: I32,
    inset: float,
) -> tuple[F32, F32, float]:
    """`map_to_source` without its checks."""
    vertices, grid = np.ascontiguousarray(vertices), np.ascontiguousarray(grid)
    canonical_vertices = np.ascontiguousarray(canonical_vertices)
    pose, view = np.ascontiguousarray(pose), np.ascontiguousarray(view)
    lips, chin = np.ascontiguousarray(lips), np.ascontiguousarray(chin)
    count, n = len(canonical_vertices), lips.shape[1]
    points = native.empty((count + len(grid), 2), np.float32)
    confidence, lowered = native.empty(len(grid), np.float32), native.empty(1, np.float32)
    scratch = native.empty((count + len(grid), 3), np.float32)
    native.library().ls_map_to_source(
        vertices, grid, len(grid) // n, canonical_vertices, count, pose, view, lips, n, chin,
        len(chin), inset, scratch, points, confidence, lowered,
    )  # fmt: skip
    return points, confidence, float(lowered[0])


@kernel(reference.relight)
def match_light(
    layer: U8, below: U8, points: F32, skin: I32, limits: tuple[int, float, float, float]
) -> None:
    """`relight` without its checks."""
    points, skin = np.ascontiguousarray(points), np.ascontiguousarray(skin)
    h, w = layer.shape[:2]
    scratch, along = native.empty((6, len(skin)), np.float64), native.empty(w, np.float32)
    native.library().ls_relight(
        layer, first_row(below), below.strides[0], h, w, points, skin, len(skin),
        np.array(limits, np.float32), scratch, along,
    )  # fmt: skip


@kernel(reference.downsample2x)
def halve(fine: U8, covered: U8, window: U8) -> None:
    """`downsample2x` without its checks."""
    fine, covered = np.ascontiguousarray(fine), np.ascontiguousarray(covered)
    h, w = window.shape[:2]
    native.library().ls_downsample2x(fine, covered, h, w, first_row(window), window.strides[0])


def first_row(picture: U8) -> U8:
    """Where a picture begins whose rows lie apart: an array that is contiguous."""
    return picture[:1]


def _require_lips(lips: I32, vertices: int) -> None:
    require_indices("lips", lips, (4, None), vertices)
    if lips.shape[1] < 2:
        raise UsageError(f"lips are {lips.shape}; expected lines of two vertices or more")


def _require_rings(line: I32, centre: int, rings: F32, vertices: int) -> None:
    require_indices("line", line, (None,), vertices)
    require("rings", rings, np.float32, (None, 2))
    if not 0 <= centre < vertices:
        raise UsageError(f"centre is vertex {centre}; expected 0..{vertices - 1}")


def _require_rows(name: str, picture: U8) -> None:
    rows_apart = picture.strides[0] if picture.shape[0] > 1 else 3 * picture.shape[1]
    if picture.strides[1:] != (3, 1) or rows_apart < 3 * picture.shape[1]:
        raise UsageError(f"the rows of {name} are not contiguous; pass numpy.ascontiguousarray")
