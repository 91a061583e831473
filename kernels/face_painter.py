"""A whole lower face in two calls: where everything goes, and its pixels.

A frame is forty small steps, and what lies between two of them in Python costs more than most of
them do; `kernels/face_painter.cpp` takes them in one go. There is no NumPy twin of the whole here:
`engine.rendering.compositor` and `engine.rendering.inner_mouth` are it, step by step.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lipstream.kernels import native
from lipstream.kernels.errors import UsageError
from lipstream.kernels.mesh import COORDINATE_LIMIT_PX
from lipstream.kernels.native import address

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
U8 = NDArray[np.uint8]

STAGES: Final = ("color", "warp", "composite")  # whose time `paint` tells apart, in this order

# As in painter.cpp: arrays by name and type, then counts, then numbers.
_ARRAYS: Final = {
    "basis": np.float32, "jaw_row": np.float32, "rings": np.float32, "lips": np.int32,
    "line": np.int32, "chin": np.int32, "jaw": np.int32, "mouth": np.int32, "gap": np.int32,
    "lip_vertices": np.int32, "skin": np.int32, "texture": np.uint8, "texture_xy": np.float32,
    "gap_row": np.float32, "look_xy": np.float32, "limits": np.float32, "teeth": np.float32,
    "colours": np.float32, "light": np.float32,
}  # fmt: skip
_COUNTS: Final = (
    "coefficients", "vertices", "columns", "rows", "ring_count", "line_count", "chin_count",
    "jaw_count", "mouth_count", "gap_count", "lip_vertex_count", "skin_count", "texture_h",
    "texture_w", "centre", "look_h", "look_w",
)  # fmt: skip
_FLOATS: Final = ("still", "inset", "coordinate_limit", "shadow_reach")
_DOUBLES: Final = (
    "seam_depth", "upper_edge", "lower_edge", "trusted", "least_lowered", "lip_shadow", "edge_px",
)  # fmt: skip

_UNSOUND: Final = (
    "a face or a mouth source has a coordinate that is NaN or beyond "
    f"{COORDINATE_LIMIT_PX:.0f} px; expected pixels near the image"
)


class _Painter(ctypes.Structure):
    _fields_ = [  # noqa: RUF012 - ctypes' own way
        *((name, ctypes.c_void_p) for name in _ARRAYS),
        *((name, ctypes.c_int32) for name in _COUNTS),
        *((name, ctypes.c_float) for name in _FLOATS),
        *((name, ctypes.c_double) for name in _DOUBLES),
    ]


class _Source(ctypes.Structure):
    _fields_ = [  # noqa: RUF012 - ctypes' own way
        ("rgb", ctypes.c_void_p),
        ("canonical_vertices", ctypes.c_void_p),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("share", ctypes.c_float),
        ("pose", ctypes.c_float * 9),
        ("view", ctypes.c_float * 3),
    ]


class MouthView(NamedTuple):
    """A mouth to lay over the face, as `face.lend` wants it."""

    rgb: U8  # u8 [h, w, 3]
    canonical_vertices: F32  # f32 [V, 3]
    pose: F32  # f32 [9]
    view: tuple[float, float, float]  # left, top, zoom
    share: float


class Placed(NamedTuple):
    """Where everything goes: what `place` hands to `paint`."""

    box: tuple[int, int, int, int]  # x0, y0, x1, y1 of the patch, px; x1 <= x0: out of the picture
    memory: F32
    kept: I32
    bounds: I32  # the box, and how many triangles were kept


class Painted(NamedTuple):
    """A patch of the frame."""

    rgb: U8  # u8 [h, w, 3]
    mask: U8  # u8 [h, w], what may differ from the frame
    guides: U8 | None  # u8 [h, w, 3]: opacity, row of the gap, trust
    prior: U8 | None  # u8 [h', w', 3], a look of the lips over the same rectangle


class FacePainter:
    """The kernels with what never changes for a target; any number of threads may call it."""

    def __init__(
        self, arrays: Mapping[str, NDArray[Any]], numbers: Mapping[str, float], centre: int,
        look_shape: tuple[int, int],
    ) -> None:  # fmt: skip
        """arrays: f32 basis [K, V, 3], jaw_row [K], rings [R, 2], texture_xy and look_xy
        [V + G, 2], gap_row [G], limits [4], teeth [2, 6], colours [5, 3], light [3]; i32
        lips [4, n], line, chin, lip_vertices, skin, and triangles jaw, mouth, gap [T, 3]; u8
        texture [h, w, 2].

        numbers: still, inset, shadow_reach, seam_depth, upper_edge, lower_edge, trusted,
        least_lowered, lip_shadow, edge_px. centre: the vertex that rings go round.
        Raises: UsageError for shapes that disagree, or a triangle of no vertex.
        """
        self._held = {
            name: np.ascontiguousarray(arrays[name], kind) for name, kind in _ARRAYS.items()
        }
        held = self._held
        self._size, self._vertices = held["basis"].shape[:2]
        columns, grid = held["lips"].shape[1], len(held["gap_row"])
        self._ringed = self._vertices + len(held["rings"]) * len(held["line"])
        self._all = self._vertices + grid
        for name, vertices in (
            ("lips", self._vertices), ("line", self._vertices), ("chin", self._vertices),
            ("jaw", self._ringed), ("mouth", self._all), ("gap", grid), ("skin", self._vertices),
            ("lip_vertices", self._vertices),
        ):  # fmt: skip
            ids = held[name]
            if not 0 <= ids.min() <= ids.max() < vertices:
                raise UsageError(
                    f"{name} names {ids.min()}..{ids.max()}; expected 0..{vertices - 1}"
                )
        flat = [held[name].shape for name in ("texture_xy", "look_xy")]
        if flat != 2 * [(self._all, 2)] or grid % columns:
            raise UsageError(
                f"texture_xy and look_xy are {flat}, grid {grid} and lips {columns} long; "
                f"expected ({self._all}, 2), and one a multiple of the other"
            )
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
        self._painter = _Painter(
            **{name: address(array) for name, array in held.items()},
            **counts,
            **numbers,
            coordinate_limit=COORDINATE_LIMIT_PX,
        )
        self._at, self._look_shape = ctypes.addressof(self._painter), look_shape
        face = 3 * self._all + 4 * self._ringed + 2 * self._all
        self._memory_size, self._kept_size = face, 3 * counts["jaw_count"]

    def place(
        self, pose: F32, canonical_vertices: F32, own: F32, wanted: F32, corners: F32 | None,
        size: tuple[int, int],
    ) -> Placed:  # fmt: skip
        """A face f32 [V, 3] at pose f32 [9] that wears `own` f32 [K] and is to wear `wanted`.

        corners: f32 [2, 2] px that the patch must hold too. size: width and height of the frame.
        Raises: UsageError where a coordinate is not a number, or far outside.
        """
        memory = np.empty(self._memory_size, np.float32)
        kept, bounds = np.empty(self._kept_size, np.int32), np.empty(5, np.int32)
        unsound = native.library().ls_place_face(
            self._at, self._f32("pose", pose, (9,)),
            self._f32("canonical_vertices", canonical_vertices, (self._vertices, 3)),
            self._f32("own", own, (self._size,)),
            self._f32("wanted", wanted, (self._size,)),
            None if corners is None else self._f32("corners", corners, (2, 2)),
            *size, address(memory), address(kept), address(bounds),
        )  # fmt: skip
        if unsound:
            raise UsageError(_UNSOUND)
        x0, y0, x1, y1, _ = bounds.tolist()
        return Placed((x0, y0, x1, y1), memory, kept, bounds)

    def paint(
        self, placed: Placed, background: U8, wanted: F32, sources: Sequence[MouthView],
        scale: float, *, guided: bool, texture: U8 | None = None,
        prior_shape: tuple[int, int] = (1, 1), frame: U8 | None = None,
        spent: NDArray[np.int64] | None = None,
    ) -> Painted:  # fmt: skip
        """The patch of a face that was placed, in a frame u8 [h*3/2, w] I420.

        sources: their shares sum to 1. scale: px per inter-ocular distance. look: u8
        [*look_shape, 3], makes a layer of `expected_shape` of its own. frame: becomes the
        background with the patch in it; of its shape, contiguous. spent: i64 [3], takes the ns of
        STAGES. Raises: UsageError where a coordinate is not a number, or far outside.
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
        painted, mask = np.empty((*shape, 3), np.uint8), np.zeros(shape, np.uint8)
        guides = np.zeros((*shape, 3), np.uint8) if guided else None
        prior = None
        if texture is not None:
            prior = np.empty((*prior_shape, 3), np.uint8)
            texture = np.ascontiguousarray(texture, np.uint8)
            if texture.shape != (*self._look_shape, 3):
                raise UsageError(
                    f"a texture is {texture.shape}; expected u8 {(*self._look_shape, 3)}"
                )
        views = (_Source * len(sources))()
        held = []  # until the call returns
        for view, source in zip(views, sources, strict=True):
            rgb = np.ascontiguousarray(source.rgb, np.uint8)
            if rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
                raise UsageError(f"a source is {rgb.shape}; expected u8 [h, w, 3]")
            held.append(rgb)
            view.rgb, view.share = address(rgb), source.share
            view.height, view.width = rgb.shape[:2]
            view.canonical_vertices = self._f32(
                "canonical_vertices", source.canonical_vertices, (self._vertices, 3)
            )
            view.pose[:], view.view[:] = source.pose.tolist(), source.view
        unsound = native.library().ls_paint_face(
            self._at, address(placed.memory), address(placed.kept), address(placed.bounds),
            address(background), width, height, self._f32("wanted", wanted, (self._size,)),
            ctypes.addressof(views), len(sources), scale,
            *(
                None if one is None else address(one)
                for one in (texture, painted, mask, guides, prior)
            ),
            *prior_shape, *(None if out is None else address(out) for out in (frame, spent)),
        )  # fmt: skip
        if unsound:
            raise UsageError(_UNSOUND)
        return Painted(painted, mask, guides, prior)

    @staticmethod
    def _f32(name: str, array: F32, shape: tuple[int, ...]) -> int:
        if array.shape != shape or array.dtype != np.float32 or not array.flags.c_contiguous:
            raise UsageError(
                f"{name} is {array.dtype} {array.shape}; expected f32 {shape}, contiguous"
            )
        return address(array)
