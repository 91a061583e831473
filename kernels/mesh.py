"""Mesh warp: rasterise triangles into a map of source coordinates, and sample through it.

Coordinates are continuous: the origin is the top-left corner of the top-left pixel, and pixel
(row r, column c) has its centre at (x, y) = (c + 0.5, r + 0.5). Vertices are rounded to 1/256 px
before rasterising, so that edge tests are exact and neighbours neither share nor miss a pixel.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lipstream.kernels import native
from lipstream.kernels.checks import require, require_i420, require_region
from lipstream.kernels.dispatch import kernel, use_native
from lipstream.kernels.errors import UsageError
from lipstream.kernels.reference import mesh as reference

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
U8 = NDArray[np.uint8]

COORDINATE_LIMIT_PX = 65536.0  # beyond it the exact edge tests would not be exact


def mesh_map(
    source_xy: F32,
    target_xy: F32,
    triangles: I32,
    out_shape: tuple[int, int],
    origin: tuple[int, int] = (0, 0),
) -> tuple[F32, U8]:
    """Where each output pixel comes from.

    Args:
        source_xy: f32 [V, 2], (x, y) px, where the vertices lie in the source image.
        target_xy: f32 [V, 2], (x, y) px, where they are to be painted.
        triangles: i32 [T, 3], vertex indices; either winding; without area they draw nothing.
            Where triangles overlap, the one that comes last in the list wins.
        out_shape: (h, w) of the output.
        origin: (x, y) of the output's top-left pixel in target coordinates, whole pixels.

    Returns:
        map f32 [h, w, 2], source (x, y) px, 0 where uncovered; coverage u8 [h, w], 0 or 255.
    """
    _require_mesh(source_xy, target_xy, triangles, out_shape)
    return rasterise(source_xy, target_xy, triangles, out_shape, origin)


def remap(image: U8, mapped: F32) -> U8:
    """Bilinear samples of u8 [H, W, C] at f32 [h, w, 2] (x, y) px; the border repeats.

    A map that points at pixel centres copies pixels exactly. Returns u8 [h, w, C].
    """
    _require_image("image", image)
    require("mapped", mapped, np.float32, (None, None, 2))
    return sample(image, mapped)


def warp_mesh(
    source: U8,
    source_xy: F32,
    target_xy: F32,
    triangles: I32,
    out_shape: tuple[int, int],
    origin: tuple[int, int] = (0, 0),
    onto: U8 | None = None,
) -> tuple[U8, U8]:
    """`remap` of `source` (u8 [H, W, C]) through `mesh_map`, with the same arguments.

    Returns:
        warped u8 [h, w, C], and where uncovered 0, or what is in `onto` u8 [h, w, C]; coverage
        u8 [h, w], 0 or 255.
    """
    _require_image("source", source)
    _require_mesh(source_xy, target_xy, triangles, out_shape)
    if onto is not None:
        require("onto", onto, np.uint8, (*out_shape, source.shape[2]))
    return warp(source, source_xy, target_xy, triangles, out_shape, origin, onto)


def warp_region(
    i420: U8, box: tuple[int, int, int, int], source_xy: F32, target_xy: F32, triangles: I32
) -> U8:
    """A frame u8 [h*3/2, w] with one rectangle warped within itself; what no triangle covers stays.

    Args:
        i420: the frame.
        box: x, y, width, height of the rectangle, px, all even.
        source_xy: f32 [V, 2] px, where the vertices lie, from the rectangle's corner.
        target_xy: f32 [V, 2] px, where they are to be painted.
        triangles: i32 [T, 3], as for `mesh_map`.
    """
    height, width = require_i420("i420", i420)
    require_region(*box, width, height)
    _require_mesh(source_xy, target_xy, triangles, (box[3], box[2]))
    return warp_within(i420, box, source_xy, target_xy, triangles)


@kernel(reference.mesh_map)
def rasterise(
    source_xy: F32,
    target_xy: F32,
    triangles: I32,
    out_shape: tuple[int, int],
    origin: tuple[int, int],
) -> tuple[F32, U8]:
    """`mesh_map` without its checks."""
    h, w = out_shape
    source_xy, target_xy = np.ascontiguousarray(source_xy), np.ascontiguousarray(target_xy)
    triangles = np.ascontiguousarray(triangles)
    mapped, coverage = native.zeros((h, w, 2), np.float32), native.zeros((h, w), np.uint8)
    native.library().ls_mesh_map(
        source_xy, target_xy, triangles, len(triangles), h, w, *origin, mapped, coverage
    )
    return mapped, coverage


@kernel(reference.remap)
def sample(image: U8, mapped: F32) -> U8:
    """`remap` without its checks."""
    image, mapped = np.ascontiguousarray(image), np.ascontiguousarray(mapped)
    h, w = mapped.shape[:2]
    out = native.empty((h, w, image.shape[2]), np.uint8)
    native.library().ls_remap(image, *image.shape, mapped, h * w, out)
    return out


@kernel(reference.warp_mesh)
def warp(
    source: U8,
    source_xy: F32,
    target_xy: F32,
    triangles: I32,
    out_shape: tuple[int, int],
    origin: tuple[int, int],
    onto: U8 | None = None,
) -> tuple[U8, U8]:
    """`warp_mesh` without its checks."""
    h, w = out_shape
    source = np.ascontiguousarray(source)
    source_xy, target_xy = np.ascontiguousarray(source_xy), np.ascontiguousarray(target_xy)
    triangles = np.ascontiguousarray(triangles)
    if onto is None:
        warped = native.zeros((h, w, source.shape[2]), np.uint8)
    else:
        warped = native.empty(onto.shape, np.uint8)
        warped[:] = onto
    coverage = native.zeros((h, w), np.uint8)
    native.library().ls_warp_mesh(
        source, *source.shape, source_xy, target_xy, triangles, len(triangles), h, w, *origin,
        warped, coverage,
    )  # fmt: skip
    return warped, coverage


@kernel(reference.warp_region)
def warp_within(
    i420: U8, box: tuple[int, int, int, int], source_xy: F32, target_xy: F32, triangles: I32
) -> U8:
    """`warp_region` without its checks."""
    i420, triangles = np.ascontiguousarray(i420), np.ascontiguousarray(triangles)
    source_xy, target_xy = np.ascontiguousarray(source_xy), np.ascontiguousarray(target_xy)
    out = native.empty(i420.shape, np.uint8)
    height, width = i420.shape[0] * 2 // 3, i420.shape[1]
    native.library().ls_warp_region(
        i420, width, height, *box, source_xy, target_xy, triangles, len(triangles), out
    )
    return out


def _is_valid(source_xy: F32, target_xy: F32, triangles: I32) -> bool:
    source_xy, target_xy = np.ascontiguousarray(source_xy), np.ascontiguousarray(target_xy)
    triangles = np.ascontiguousarray(triangles)
    return bool(
        native.library().ls_mesh_is_valid(
            source_xy, target_xy, len(source_xy), triangles, len(triangles), COORDINATE_LIMIT_PX
        )
    )


def _require_image(name: str, image: U8) -> None:
    require(name, image, np.uint8, (None, None, None))
    if 0 in image.shape:
        raise UsageError(f"{name} is u8 {list(image.shape)}; expected at least one pixel")


def _require_mesh(
    source_xy: F32, target_xy: F32, triangles: I32, out_shape: tuple[int, int]
) -> None:
    require("source_xy", source_xy, np.float32, (None, 2))
    vertices = len(source_xy)
    require("target_xy", target_xy, np.float32, (vertices, 2))
    require("triangles", triangles, np.int32, (None, 3))
    if min(out_shape) <= 0:
        raise UsageError(f"out_shape is {out_shape}; expected (h, w) above 0")
    if use_native() and _is_valid(source_xy, target_xy, triangles):
        return
    if len(triangles) and not 0 <= triangles.min() <= triangles.max() < vertices:
        raise UsageError(
            f"triangles name vertices {triangles.min()}..{triangles.max()}; "
            f"expected 0..{vertices - 1}"
        )
    for name, xy in (("source_xy", source_xy), ("target_xy", target_xy)):
        if not (np.abs(xy) < COORDINATE_LIMIT_PX).all():  # also false for NaN
            raise UsageError(
                f"{name} has a coordinate that is NaN or beyond {COORDINATE_LIMIT_PX:.0f} px; "
                "expected pixels near the image"
            )
