"""The compiled kernels behind ctypes: array in, array out. Checks belong to the wrappers."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lipstream.kernels.errors import BackendUnavailable

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
U8 = NDArray[np.uint8]

ABI_VERSION = 11  # the same number stands in cpu.cpp; both change with any signature

_REMEDY = "run `python kernels/build.py` in the source tree, or reinstall with a C++ compiler"

_SHORT = 40_000  # multiply-adds or so: 20 to 50 us
_POINTER = ctypes.c_void_p
_INT = ctypes.c_int32
_FLOAT = ctypes.c_float


@functools.cache
def library() -> ctypes.CDLL:
    """The shared library.

    Raises:
        BackendUnavailable: it was not built, does not load, or is of another version.
    """
    # setuptools writes _cpu.<platform>.so, build.py writes _cpu.so; the newest is meant.
    found = [p for p in Path(__file__).parent.glob("_cpu*") if p.suffix in (".so", ".dll")]
    if not found:
        raise BackendUnavailable(f"compiled kernels were not built; {_REMEDY}")
    path = max(found, key=lambda candidate: candidate.stat().st_mtime)
    return open_library(path)


def open_library(path: Path) -> ctypes.CDLL:
    """The library in this file, its functions declared.

    Raises:
        BackendUnavailable: it does not load, or is of another version.
    """
    try:
        loaded = ctypes.CDLL(str(path))
        version = loaded.ls_abi_version()
    except (OSError, AttributeError) as error:
        raise BackendUnavailable(f"{path.name} does not load ({error}); {_REMEDY}") from error
    if version != ABI_VERSION:
        raise BackendUnavailable(
            f"{path.name} has interface {version}, expected {ABI_VERSION}; {_REMEDY}"
        )
    signatures: dict[str, list[Any]] = {
        "ls_i420_region_to_rgb": [_POINTER] + [_INT] * 6 + [_POINTER],
        "ls_rgb_region_into_i420": [_POINTER, _POINTER] + [_INT] * 6 + [_POINTER],
        "ls_min_plus": [_INT, _INT] + [_POINTER] * 6,
        "ls_feature_distance": [_INT, _INT] + [_POINTER] * 4,
        "ls_mesh_map": [_POINTER, _POINTER, _POINTER] + [_INT] * 5 + [_POINTER] * 2,
        "ls_remap": [_POINTER] + [_INT] * 3 + [_POINTER, _INT, _POINTER],
        "ls_warp_region": [_POINTER] + [_INT] * 6 + [_POINTER] * 3 + [_INT] + [_POINTER],
        "ls_warp_mesh": [_POINTER] + [_INT] * 3 + [_POINTER] * 3 + [_INT] * 5 + [_POINTER] * 2,
        "ls_crop_in": [_POINTER] * 4 + [_INT] * 4 + [_FLOAT] * 3 + [_INT] * 2 + [_POINTER] * 2,
        "ls_affine": [_POINTER, _INT, _POINTER, _POINTER, _INT, _POINTER],
        "ls_encoder_step": [_POINTER] * 12,
        "ls_renderer_run": [_POINTER, _POINTER, _FLOAT] + [_POINTER] * 3,
        "ls_fuse": [_POINTER] * 2 + [_INT] * 2 + [_POINTER] * 2,
        "ls_sharpen": [_POINTER, _INT, _INT, _FLOAT] + [_POINTER] * 3,
        "ls_withhold": [_POINTER, _INT, _INT] + [_POINTER] * 3,
        "ls_crop_out": [_POINTER] * 2
        + [_INT, _INT, _POINTER]
        + [_INT] * 2
        + [_FLOAT] * 3
        + [_POINTER] * 3,
        "ls_paint_face": [_POINTER] * 5
        + [_INT] * 2
        + [_POINTER] * 2
        + [_INT, ctypes.c_double]
        + [_POINTER] * 5
        + [_INT] * 2
        + [_POINTER] * 2,
        "ls_mix": [_INT, _POINTER, _POINTER, _INT, _POINTER],
        "ls_sum_layers": [_INT, _INT] + [_POINTER] * 3,
        "ls_blend": [_INT, _POINTER, _POINTER, _POINTER, _INT, _POINTER, _POINTER],
    }
    short: dict[str, list[Any]] = {
        "ls_features_step": [_POINTER] * 5,
        "ls_trace_back": [_INT, _INT] + [_POINTER] * 3,
        "ls_place_face": [_POINTER] * 6 + [_INT] * 2 + [_POINTER] * 3,
        "ls_drive": [_POINTER, _INT, _INT] + [_POINTER] * 4 + [_INT] * 2 + [_POINTER] * 2,
        "ls_place": [_POINTER] * 3
        + [_INT, _POINTER, _INT, _POINTER, _INT, _INT, _POINTER, _INT]
        + [_POINTER] * 3,
        "ls_stirred": [_POINTER] * 3 + [_INT, _FLOAT] + [_POINTER] * 2,
        "ls_lend": [_POINTER, _POINTER, _INT, _POINTER, _INT, _POINTER, _POINTER]
        + [_POINTER, _INT, _POINTER, _INT, _FLOAT]
        + [_POINTER] * 4,
        "ls_relight": [_POINTER] * 2
        + [_INT] * 3
        + [_POINTER] * 2
        + [_INT, _POINTER, _POINTER, _POINTER],
        "ls_halve_into": [_POINTER] * 2 + [_INT] * 2 + [_POINTER, _INT],
        "ls_renderer_scratch": [_POINTER],
        "ls_renderer_fits": [],
        "ls_mesh_is_sound": [_POINTER, _POINTER, _INT, _POINTER, _INT, _FLOAT],
    }
    # Conversations share one interpreter lock. A long kernel lets go of it; a short one would wait
    # longer to have it back than it runs. Those that are short on small inputs are there twice.
    holding = ctypes.PyDLL(str(path))
    for name, arguments in {**signatures, **short}.items():
        function = getattr(holding if name in short else loaded, name)
        function.argtypes = arguments
        function.restype = None
        setattr(loaded, name, function)
    for name in ("ls_min_plus", "ls_feature_distance"):
        function = getattr(holding, name)
        function.argtypes, function.restype = signatures[name], None
        setattr(loaded, f"{name}_held", function)
    for name in (
        "ls_stirred",
        "ls_renderer_fits",
        "ls_mesh_is_sound",
        "ls_place_face",
        "ls_paint_face",
    ):
        getattr(loaded, name).restype = _INT
    loaded.ls_renderer_scratch.restype = ctypes.c_int64
    return loaded


def address(array: NDArray[Any]) -> int:
    """Where its data lies; sixty a frame, and `array.ctypes.data` costs five times as much."""
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array))  # type: ignore[arg-type]
    except (TypeError, ValueError):  # not to be written to, or empty
        where: int = array.__array_interface__["data"][0]
        return where


def _pointer(array: NDArray[Any] | None) -> int | None:
    return None if array is None else address(array)


def i420_region_to_rgb(i420: U8, x: int, y: int, w: int, h: int) -> U8:
    """See `color.i420_region_to_rgb`."""
    rgb = np.empty((h, w, 3), np.uint8)
    height, width = i420.shape[0] * 2 // 3, i420.shape[1]
    library().ls_i420_region_to_rgb(_pointer(i420), width, height, x, y, w, h, _pointer(rgb))
    return rgb


def rgb_region_into_i420(rgb: U8, i420: U8, x: int, y: int, mask: U8 | None) -> None:
    """See `color.rgb_region_into_i420`."""
    rgb = np.ascontiguousarray(rgb)
    mask = None if mask is None else np.ascontiguousarray(mask)
    h, w = rgb.shape[:2]
    height, width = i420.shape[0] * 2 // 3, i420.shape[1]
    library().ls_rgb_region_into_i420(
        _pointer(rgb), _pointer(mask), width, height, x, y, w, h, _pointer(i420)
    )


def min_plus(score: F32, predecessors: I32, transition_cost: F32, emission: F32) -> tuple[F32, I32]:
    """See `dynamic.min_plus`."""
    score, emission = np.ascontiguousarray(score), np.ascontiguousarray(emission)
    predecessors = np.ascontiguousarray(predecessors)
    transition_cost = np.ascontiguousarray(transition_cost)
    states, slots = predecessors.shape
    best = np.empty(states, np.float32)
    back = np.empty(states, np.int32)
    few = states * slots <= _SHORT
    relax = library().ls_min_plus_held if few else library().ls_min_plus
    relax(
        states,
        slots,
        _pointer(score),
        _pointer(predecessors),
        _pointer(transition_cost),
        _pointer(emission),
        _pointer(best),
        _pointer(back),
    )
    return best, back


def trace_back(backs: list[I32], states: I32) -> I32:
    """See `dynamic.trace_back`."""
    states = np.ascontiguousarray(states)
    rows = [np.ascontiguousarray(back) for back in backs]
    pointers = (ctypes.c_void_p * max(len(rows), 1))(*(_pointer(row) for row in rows))
    ancestors = np.empty_like(states)
    library().ls_trace_back(len(states), len(rows), pointers, _pointer(states), _pointer(ancestors))
    return ancestors


def feature_distance(features: F32, wanted: F32, base: F32) -> F32:
    """See `dynamic.feature_distance`."""
    features, wanted = np.ascontiguousarray(features), np.ascontiguousarray(wanted)
    base = np.ascontiguousarray(base)
    total = np.empty_like(base)
    k, n = features.shape
    few = k * n <= _SHORT
    measure = library().ls_feature_distance_held if few else library().ls_feature_distance
    measure(n, k, _pointer(features), _pointer(wanted), _pointer(base), _pointer(total))
    return total


def mesh_is_sound(source_xy: F32, target_xy: F32, triangles: I32, limit: float) -> bool:
    """Whether triangles name vertices that there are, and coordinates are within the limit."""
    source_xy, target_xy = np.ascontiguousarray(source_xy), np.ascontiguousarray(target_xy)
    triangles = np.ascontiguousarray(triangles)
    return bool(
        library().ls_mesh_is_sound(
            _pointer(source_xy), _pointer(target_xy), len(source_xy), _pointer(triangles),
            len(triangles), limit,
        )
    )  # fmt: skip


def mesh_map(
    source_xy: F32,
    target_xy: F32,
    triangles: I32,
    out_shape: tuple[int, int],
    origin: tuple[int, int],
) -> tuple[F32, U8]:
    """See `mesh.mesh_map`."""
    h, w = out_shape
    source_xy, target_xy = np.ascontiguousarray(source_xy), np.ascontiguousarray(target_xy)
    triangles = np.ascontiguousarray(triangles)
    mapped = np.zeros((h, w, 2), np.float32)
    coverage = np.zeros((h, w), np.uint8)
    library().ls_mesh_map(
        _pointer(source_xy),
        _pointer(target_xy),
        _pointer(triangles),
        len(triangles),
        h,
        w,
        origin[0],
        origin[1],
        _pointer(mapped),
        _pointer(coverage),
    )
    return mapped, coverage


def remap(image: U8, mapped: F32) -> U8:
    """See `mesh.remap`."""
    image, mapped = np.ascontiguousarray(image), np.ascontiguousarray(mapped)
    h, w = mapped.shape[:2]
    height, width, channels = image.shape
    out = np.empty((h, w, channels), np.uint8)
    library().ls_remap(
        _pointer(image), height, width, channels, _pointer(mapped), h * w, _pointer(out)
    )
    return out


def warp_mesh(
    source: U8,
    source_xy: F32,
    target_xy: F32,
    triangles: I32,
    out_shape: tuple[int, int],
    origin: tuple[int, int],
    onto: U8 | None = None,
) -> tuple[U8, U8]:
    """See `mesh.warp_mesh`."""
    h, w = out_shape
    source = np.ascontiguousarray(source)
    source_xy, target_xy = np.ascontiguousarray(source_xy), np.ascontiguousarray(target_xy)
    triangles = np.ascontiguousarray(triangles)
    height, width, channels = source.shape
    warped = np.zeros((h, w, channels), np.uint8) if onto is None else onto.copy()
    coverage = np.zeros((h, w), np.uint8)
    library().ls_warp_mesh(
        _pointer(source), height, width, channels, _pointer(source_xy), _pointer(target_xy),
        _pointer(triangles), len(triangles), h, w, *origin, _pointer(warped), _pointer(coverage),
    )  # fmt: skip
    return warped, coverage


def warp_region(
    i420: U8, box: tuple[int, int, int, int], source_xy: F32, target_xy: F32, triangles: I32
) -> U8:
    """See `mesh.warp_region`."""
    i420, triangles = np.ascontiguousarray(i420), np.ascontiguousarray(triangles)
    source_xy, target_xy = np.ascontiguousarray(source_xy), np.ascontiguousarray(target_xy)
    out = np.empty_like(i420)
    height, width = i420.shape[0] * 2 // 3, i420.shape[1]
    library().ls_warp_region(
        _pointer(i420), width, height, *box, _pointer(source_xy), _pointer(target_xy),
        _pointer(triangles), len(triangles), _pointer(out),
    )  # fmt: skip
    return out


def weighted_sum(layers: F32, weights: F32) -> U8:
    """See `composite.summed`."""
    layers, weights = np.ascontiguousarray(layers), np.ascontiguousarray(weights)
    out = np.empty(layers.shape[1:], np.uint8)
    library().ls_sum_layers(
        len(weights), out.size, _pointer(layers), _pointer(weights), _pointer(out)
    )
    return out


def blend(background: U8, layer: U8, alpha: U8 | F32, match: tuple[F32, F32] | None) -> U8:
    """See `composite.blend`; `match` is (gain, bias), f32 [3] each."""
    background, layer = np.ascontiguousarray(background), np.ascontiguousarray(layer)
    weights: NDArray[Any] = np.ascontiguousarray(alpha)
    gain_bias = None if match is None else np.ascontiguousarray(np.concatenate(match))
    out = np.empty_like(background)
    library().ls_blend(
        weights.size,
        _pointer(background),
        _pointer(layer),
        _pointer(weights),
        int(weights.dtype == np.uint8),
        _pointer(gain_bias),
        _pointer(out),
    )
    return out


def crossfade(old: U8, new: U8, weight: int) -> U8:
    """See `composite.mixed`."""
    old, new = np.ascontiguousarray(old), np.ascontiguousarray(new)
    out = np.empty_like(old)
    library().ls_mix(old.size, _pointer(old), _pointer(new), weight, _pointer(out))
    return out


def crop_in(
    picture: U8,
    guides: U8,
    prior: U8 | None,
    previous: U8 | None,
    place: tuple[float, float, float],
    shape: tuple[int, int],
) -> tuple[U8, F32]:
    """See `crop.crop_in`."""
    picture, guides = np.ascontiguousarray(picture), np.ascontiguousarray(guides)
    prior = None if prior is None else np.ascontiguousarray(prior)
    previous = None if previous is None else np.ascontiguousarray(previous)
    size = picture.shape[:2]
    layer_size = (0, 0) if prior is None else prior.shape[:2]
    crop = np.empty((*shape, 6), np.uint8)
    planes = np.empty((12, *shape), np.float32)
    library().ls_crop_in(
        _pointer(picture), _pointer(guides), _pointer(prior), _pointer(previous), *size,
        *layer_size, *place, *shape, _pointer(crop), _pointer(planes),
    )  # fmt: skip
    return crop, planes


def fused(gates: F32, planes: F32) -> F32:
    """See `crop.fused`."""
    gates, planes = np.ascontiguousarray(gates), np.ascontiguousarray(planes)
    rows, columns = planes.shape[1:]
    out = np.empty((3, rows, columns), np.float32)
    scratch = np.empty((3 * rows + 1, columns), np.float32)
    library().ls_fuse(
        _pointer(gates), _pointer(planes), rows, columns, _pointer(scratch), _pointer(out)
    )
    return out


def unsharp_mask(difference: F32, crop: U8, amount: float) -> F32:
    """See `crop.sharpened`."""
    crop = np.ascontiguousarray(crop)
    rows, columns = crop.shape[:2]
    out = np.array(difference, order="C")
    scratch = np.empty((rows + 3, columns), np.float32)
    library().ls_sharpen(
        _pointer(crop), rows, columns, amount, _pointer(scratch), _pointer(scratch[rows:]),
        _pointer(out),
    )  # fmt: skip
    return out


def attenuate_in_synthetic(difference: F32, crop: U8, table: U8) -> F32:
    """See `crop.withheld`."""
    crop = np.ascontiguousarray(crop)
    rows, columns = crop.shape[:2]
    out = np.array(difference, order="C")
    spare = np.empty((2, rows, columns), np.uint8)
    library().ls_withhold(
        _pointer(crop), rows, columns, _pointer(table), _pointer(spare), _pointer(out)
    )
    return out


def crop_out(
    difference: F32, crop: U8, picture: U8, guides: U8, place: tuple[float, float, float]
) -> U8:
    """See `crop.crop_out`; `picture` is contiguous."""
    difference, crop = np.ascontiguousarray(difference), np.ascontiguousarray(crop)
    guides = np.ascontiguousarray(guides)
    h, w = picture.shape[:2]
    left, top, step = place
    shape = crop.shape[:2]
    stored, refined = np.empty((2, *shape, 3), np.uint8)
    library().ls_crop_out(
        _pointer(difference), _pointer(crop), *shape, _pointer(guides), h, w, left, top, 1 / step,
        _pointer(stored), _pointer(picture), _pointer(refined),
    )  # fmt: skip
    return refined


def affine(x: F32, blocks: NDArray[np.float16], bias: F32) -> F32:
    """See `reference.affine`; blocks f16 [n, inputs, 64] as `recurrent.packed` lays them."""
    x, blocks, bias = (
        np.ascontiguousarray(x),
        np.ascontiguousarray(blocks),
        np.ascontiguousarray(bias),
    )
    out = np.empty_like(bias)
    library().ls_affine(
        _pointer(x), len(x), _pointer(blocks), _pointer(bias), len(bias), _pointer(out)
    )
    return out


def drive(
    basis: F32, canonical_vertices: F32, own: F32, wanted: F32, lips: I32, rows: int
) -> tuple[F32, F32]:
    """See `face.drive`."""
    basis, canonical_vertices, lips = (
        np.ascontiguousarray(basis),
        np.ascontiguousarray(canonical_vertices),
        np.ascontiguousarray(lips),
    )
    own, wanted = np.ascontiguousarray(own), np.ascontiguousarray(wanted)
    size, count = basis.shape[:2]
    n = lips.shape[1]
    vertices = np.empty((count, 3), np.float32)
    grid = np.empty((rows * n, 3), np.float32)
    library().ls_drive(
        _pointer(basis), size, count, _pointer(canonical_vertices), _pointer(own), _pointer(wanted),
        _pointer(lips), n, rows, _pointer(vertices), _pointer(grid),
    )  # fmt: skip
    return vertices, grid


def place(
    pose: F32, canonical_vertices: F32, vertices: F32, grid: F32, line: I32, centre: int, rings: F32
) -> tuple[F32, F32, F32]:
    """See `face.place`."""
    canonical_vertices, vertices, grid = (
        np.ascontiguousarray(canonical_vertices),
        np.ascontiguousarray(vertices),
        np.ascontiguousarray(grid),
    )
    pose, line, rings = (
        np.ascontiguousarray(pose),
        np.ascontiguousarray(line),
        np.ascontiguousarray(rings),
    )
    count = len(canonical_vertices)
    start, moved = np.empty((2, count + len(line) * len(rings), 2), np.float32)
    points = np.empty((count + len(grid), 2), np.float32)
    library().ls_place(
        _pointer(pose), _pointer(canonical_vertices), _pointer(vertices), count, _pointer(grid),
        len(grid), _pointer(line), len(line), centre, _pointer(rings), len(rings),
        _pointer(start), _pointer(moved), _pointer(points),
    )  # fmt: skip
    return start, moved, points


def moving_triangles(start: F32, moved: F32, triangles: I32, still_px: float) -> tuple[I32, F32]:
    """See `face.stirred`."""
    start, moved, triangles = (
        np.ascontiguousarray(start),
        np.ascontiguousarray(moved),
        np.ascontiguousarray(triangles),
    )
    kept, bounds = np.empty_like(triangles), np.empty(4, np.float32)
    count = library().ls_stirred(
        _pointer(start), _pointer(moved), _pointer(triangles), len(triangles), still_px,
        _pointer(kept), _pointer(bounds),
    )  # fmt: skip
    return kept[:count], bounds


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
    """See `face.lend`."""
    vertices, grid, canonical_vertices = (
        np.ascontiguousarray(vertices),
        np.ascontiguousarray(grid),
        np.ascontiguousarray(canonical_vertices),
    )
    pose, view = np.ascontiguousarray(pose), np.ascontiguousarray(view)
    lips, chin = np.ascontiguousarray(lips), np.ascontiguousarray(chin)
    count, n = len(canonical_vertices), lips.shape[1]
    points = np.empty((count + len(grid), 2), np.float32)
    confidence, lowered = np.empty(len(grid), np.float32), np.empty(1, np.float32)
    scratch = np.empty((count + len(grid), 3), np.float32)
    library().ls_lend(
        _pointer(vertices), _pointer(grid), len(grid) // n, _pointer(canonical_vertices), count,
        _pointer(pose), _pointer(view), _pointer(lips), n, _pointer(chin), len(chin), inset,
        _pointer(scratch), _pointer(points), _pointer(confidence), _pointer(lowered),
    )  # fmt: skip
    return points, confidence, float(lowered[0])


def relight(
    layer: U8, below: U8, points: F32, skin: I32, limits: tuple[int, float, float, float]
) -> None:
    """See `face.relight`; `layer` is contiguous and the rows of `below` are."""
    points, skin = np.ascontiguousarray(points), np.ascontiguousarray(skin)
    h, w = layer.shape[:2]
    scratch = np.empty((6, len(skin)), np.float64)
    along, bounds = np.empty(w, np.float32), np.array(limits, np.float32)
    library().ls_relight(
        _pointer(layer), _pointer(below), below.strides[0], h, w, _pointer(points), _pointer(skin),
        len(skin), _pointer(bounds), _pointer(scratch), _pointer(along),
    )  # fmt: skip


def downsample2x(fine: U8, covered: U8, window: U8) -> None:
    """See `face.halve_into`; the rows of `window` are contiguous."""
    fine, covered = np.ascontiguousarray(fine), np.ascontiguousarray(covered)
    h, w = window.shape[:2]
    library().ls_halve_into(
        _pointer(fine), _pointer(covered), h, w, _pointer(window), window.strides[0]
    )
