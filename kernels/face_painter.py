"""A whole lower face in two calls: where everything goes, and its pixels.

A frame is forty small steps, and what lies between two of them in Python costs more than most of
them do; `kernels/face_painter.cpp` takes them in one go. Its twins are
`engine.rendering.compositor` and `engine.rendering.inner_mouth`, step by step.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lipstream.kernels import native
from lipstream.kernels.checks import require, require_indices
from lipstream.kernels.errors import UsageError
from lipstream.kernels.mesh import COORDINATE_LIMIT_PX
from lipstream.kernels.oral_cavity import Cavity, check_cavity, structure_of

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
U8 = NDArray[np.uint8]

STAGES: Final = ("color", "warp", "composite")  # whose time `paint` measures, in this order

_ASTRAY: Final = (
    "a face or a mouth source has a coordinate that is NaN or beyond "
    f"{COORDINATE_LIMIT_PX:.0f} px; expected pixels near the image"
)


@functools.cache
def _arrays() -> dict[str, np.dtype[Any]]:
    """The arrays of a painter."""
    return native.array_fields("LsPainter")


class MouthView(NamedTuple):
    """A mouth to lay over the face, as `face.map_to_source` reads it."""

    rgb: U8  # u8 [h, w, 3]
    canonical_vertices: F32  # f32 [V, 3]
    pose: F32  # f32 [9]
    view: tuple[float, float, float]  # left, top, zoom
    share: float


class Placed(NamedTuple):
    """Where everything goes: what `place` hands to `paint`."""

    box: tuple[int, int, int, int]  # x0, y0, x1, y1 of the patch, px; x1 <= x0: out of the picture
    grid: F32  # f32 [G, 3], the gap between the lips, canonical
    memory: F32
    kept: I32
    bounds: I32  # the box, and how many triangles were kept


class Painted(NamedTuple):
    """A patch of the frame."""

    rgb: U8  # u8 [h, w, 3]
    mask: U8  # u8 [h, w], what may differ from the frame
    conditioning: U8 | None  # u8 [h, w, 3]: opacity, row of the gap, confidence
    prior: U8 | None  # u8 [h', w', 3], the appearance prior of the same rectangle


class FacePainter:
    """The kernels with what never changes for a target; any number of threads may call it."""

    def __init__(
        self, arrays: Mapping[str, NDArray[Any]], cavity: Cavity, numbers: Mapping[str, float],
        centre: int, look_shape: tuple[int, int],
    ) -> None:  # fmt: skip
        """arrays: f32 basis [K, V, 3], rings [R, 2], texture_xy and look_xy [V + G, 2],
        gap_row [G], limits [4]; i32 lips [4, n], line, chin, lip_vertices, skin, and triangles
        jaw, mouth, gap [T, 3]; u8 texture [h, w, 2].

        numbers: still, inset, shadow_reach, seam_depth, trusted, least_shown, least_lowered,
        lip_shadow, slit, slit_depth. centre: the vertex that rings go round.
        Raises: UsageError for shapes that disagree, or a triangle of no vertex.
        """
        held = self._held = {
            name: np.ascontiguousarray(arrays[name], dtype) for name, dtype in _arrays().items()
        }
        require("basis", held["basis"], np.float32, (None, None, 3))
        require("lips", held["lips"], np.int32, (4, None))
        self._size, self._vertices = held["basis"].shape[:2]
        columns, grid = held["lips"].shape[1], held["gap_row"].size
        if columns < 2 or grid % columns or grid < 2 * columns:
            raise UsageError(
                f"grid {grid} and lips {columns} long; expected two rows or more of two points"
            )
        self._ringed = self._vertices + len(held["rings"]) * len(held["line"])
        self._all = self._vertices + grid
        self._check_arrays(grid)
        if not 0 <= centre < self._vertices:
            raise UsageError(f"centre is vertex {centre}; expected 0..{self._vertices - 1}")
        counts = {
            "coefficients": self._size, "vertices": self._vertices, "columns": columns,
            "rows": grid // columns, "texture_h": held["texture"].shape[0],
            "texture_w": held["texture"].shape[1], "centre": centre,
            "look_h": look_shape[0], "look_w": look_shape[1],
        }  # fmt: skip
        for name, of in (
            ("ring_count", "rings"), ("line_count", "line"), ("chin_count", "chin"),
            ("jaw_count", "jaw"), ("mouth_count", "mouth"), ("gap_count", "gap"),
            ("lip_vertex_count", "lip_vertices"), ("skin_count", "skin"),
        ):  # fmt: skip
            counts[name] = len(held[of])
        check_cavity(cavity)
        self._cavity = Cavity(*map(np.ascontiguousarray, cavity))
        self._painter = native.structure("LsPainter")(
            cavity=structure_of(self._cavity),
            **{name: native.address(array) for name, array in held.items()},
            **counts,
            **numbers,
            coordinate_limit=COORDINATE_LIMIT_PX,
        )
        self._look_shape = look_shape
        self._memory_size = 5 * self._all + 4 * self._ringed
        self._kept_size = 3 * counts["jaw_count"]

    def _check_arrays(self, grid: int) -> None:
        """Shapes, and that each index names a vertex that there is."""
        vertices, ringed, every = self._vertices, self._ringed, self._all
        for name, shape, count in (
            ("lips", (4, None), vertices), ("line", (None,), vertices), ("chin", (None,), vertices),
            ("lip_vertices", (None,), vertices), ("skin", (None,), vertices),
            ("jaw", (None, 3), ringed), ("mouth", (None, 3), every), ("gap", (None, 3), grid),
        ):  # fmt: skip
            require_indices(name, self._held[name], shape, count)
        for name, exact in (
            ("rings", (None, 2)), ("texture_xy", (every, 2)), ("look_xy", (every, 2)),
            ("gap_row", (grid,)), ("limits", (4,)), ("texture", (None, None, 2)),
        ):  # fmt: skip
            require(name, self._held[name], _arrays()[name], exact)
        if 0 in self._held["texture"].shape or not len(self._held["chin"]):
            raise UsageError("texture or chin is empty; expected a pixel and a vertex or more")

    def place(
        self, pose: F32, canonical_vertices: F32, own: F32, wanted: F32, corners: F32 | None,
        size: tuple[int, int],
    ) -> Placed:  # fmt: skip
        """A face f32 [V, 3] at pose f32 [9], its expression `own` and the new one, f32 [K] each.

        corners: f32 [2, 2] px that the patch must hold too. size: width and height of the frame.
        Raises: UsageError where a coordinate is not a number, or far outside.
        """
        memory = native.empty(self._memory_size, np.float32)
        kept, bounds = native.empty(self._kept_size, np.int32), native.empty(5, np.int32)
        _require("pose", pose, (9,))
        _require("canonical_vertices", canonical_vertices, (self._vertices, 3))
        _require("own", own, (self._size,))
        _require("wanted", wanted, (self._size,))
        if corners is not None:
            _require("corners", corners, (2, 2))
        astray = native.library().ls_place_face(
            self._painter, pose, canonical_vertices, own, wanted, corners, *size, memory, kept,
            bounds,
        )  # fmt: skip
        if astray:
            raise UsageError(_ASTRAY)
        x0, y0, x1, y1, _ = bounds.tolist()
        ends = 3 * self._vertices, 3 * self._all
        return Placed((x0, y0, x1, y1), memory[slice(*ends)].reshape(-1, 3), memory, kept, bounds)

    def paint(
        self, placed: Placed, background: U8, motion: F32, sources: Sequence[MouthView],
        *, guided: bool, texture: U8 | None = None,
        prior_shape: tuple[int, int] = (1, 1), frame: U8 | None = None,
        spent: NDArray[np.int64] | None = None,
    ) -> Painted:  # fmt: skip
        """The patch of a face that was placed, in a frame u8 [h*3/2, w] I420.

        motion: f32 [6], as `oral_cavity.paint` takes it. sources: their shares sum to 1.
        texture: u8 [*look_shape, 3], the mouth texture of the appearance prior, makes a layer of
        `prior_shape` of its own. frame: becomes the background with the patch in it; of its
        shape, contiguous.
        spent: i64 [3], takes the ns of STAGES.

        Raises: UsageError where a coordinate is not a number, or far outside.
        """
        x0, y0, x1, y1 = placed.box
        rows, width = background.shape
        height = rows * 2 // 3
        inside = 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
        fits = all(
            one.dtype == np.uint8 and one.flags.c_contiguous and one.shape == (rows, width)
            for one in ((background,) if frame is None else (background, frame))
        )
        if not (fits and inside):
            raise UsageError(
                f"background is {background.dtype} {background.shape}, the patch {placed.box}; "
                "expected u8 [h*3/2, w], contiguous, with the patch inside, and a frame alike"
            )
        shape = (y1 - y0, x1 - x0)
        painted, mask = native.empty((*shape, 3), np.uint8), native.zeros(shape, np.uint8)
        conditioning = native.zeros((*shape, 3), np.uint8) if guided else None
        prior = None
        if texture is not None:
            if min(prior_shape) <= 0:
                raise UsageError(f"prior_shape is {prior_shape}; expected (h, w) above 0")
            prior = native.empty((*prior_shape, 3), np.uint8)
            texture = np.ascontiguousarray(texture, np.uint8)
            if texture.shape != (*self._look_shape, 3):
                raise UsageError(
                    f"a texture is {texture.shape}; expected u8 {(*self._look_shape, 3)}"
                )
        views = (native.structure("LsSource") * len(sources))()
        held = []  # until the call returns
        for view, source in zip(views, sources, strict=True):
            rgb = np.ascontiguousarray(source.rgb, np.uint8)
            if rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
                raise UsageError(f"a source is {rgb.shape}; expected u8 [h, w, 3]")
            held.append(rgb)
            view.rgb, view.share = native.address(rgb), source.share
            view.height, view.width = rgb.shape[:2]
            _require("canonical_vertices", source.canonical_vertices, (self._vertices, 3))
            view.canonical_vertices = native.address(source.canonical_vertices)
            view.pose[:], view.view[:] = source.pose.tolist(), source.view
        _require("motion", motion, (6,))
        astray = native.library().ls_paint_face(
            self._painter, placed.memory, placed.kept, placed.bounds, background, width, height,
            motion, views, len(sources), texture, painted, mask, conditioning, prior,
            *prior_shape, frame, spent,
        )  # fmt: skip
        if astray:
            raise UsageError(_ASTRAY)
        return Painted(painted, mask, conditioning, prior)


def _require(name: str, array: F32, shape: tuple[int, ...]) -> None:
    if array.shape != shape or array.dtype != np.float32 or not array.flags.c_contiguous:
        raise UsageError(f"{name} is {array.dtype} {array.shape}; expected f32 {shape}, contiguous")
