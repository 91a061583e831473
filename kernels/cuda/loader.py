"""The kernels on an NVIDIA GPU, through pycuda, from a fat binary that ships with the package.

Nothing is compiled at run time and no CUDA toolkit is needed. The device's primary context is
used, the one torch uses too, so both see the same memory; a context of pycuda's own (autoinit)
beside torch would not. pycuda must own the stream: `pycuda.driver.Stream(1)`, and torch takes its
handle through `torch.cuda.ExternalStream`.

Arrays are device memory: anything with `__cuda_array_interface__` (torch tensors, GPUArrays),
contiguous, with the sessions of a batch as first dimension. Results are written into arrays that
the caller owns.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any, Protocol

import numpy as np

from lipstream.kernels.build import FATBIN
from lipstream.kernels.errors import BackendUnavailable, UsageError

_SQUARE_BLOCK = (16, 16, 1)
_LINE_BLOCK = (256, 1, 1)
_NOTHING = np.uint64(0)  # a null pointer


class DeviceArray(Protocol):
    """Contiguous memory on the device."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 2 or later: shape, typestr, data, strides."""
        ...


def load(device: int = 0) -> GpuKernels:
    """The kernels on CUDA device number `device`.

    Raises:
        BackendUnavailable: pycuda, a driver, the device or the fat binary is missing.
    """
    try:
        driver: Any = importlib.import_module("pycuda.driver")
    except ImportError as error:
        raise BackendUnavailable(
            f"pycuda does not import ({error}); pip install 'lipstream[cuda]', "
            "which needs the CUDA toolkit"
        ) from error
    try:
        driver.init()
        context = driver.Device(device).retain_primary_context()
    except driver.Error as error:
        raise BackendUnavailable(
            f"no CUDA device {device} ({error}); check `nvidia-smi`, or leave the backend at auto"
        ) from error
    fatbin = resources.files("lipstream.kernels.cuda").joinpath(FATBIN)
    if not fatbin.is_file():
        raise BackendUnavailable(f"{FATBIN} is missing; run `python kernels/build.py --gpu`")
    return GpuKernels(driver, context, fatbin.read_bytes())


class GpuKernels:
    """Launches; one object per device, usable from any thread."""

    def __init__(self, driver: Any, context: Any, fatbin: bytes) -> None:
        """Load the code into `context`; `driver` is the module pycuda.driver."""
        self._context = context
        with self._current():
            try:
                self._module = driver.module_from_buffer(fatbin)
            except driver.Error as error:
                raise BackendUnavailable(
                    f"{FATBIN} does not load ({error}); it needs compute capability 7.5 or later"
                ) from error

    @contextmanager
    def _current(self) -> Iterator[None]:
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def _launch(
        self,
        name: str,
        arguments: tuple[Any, ...],
        threads: tuple[int, int],
        sessions: int,
        stream: Any,
    ) -> None:
        block = _SQUARE_BLOCK if threads[1] > 1 else _LINE_BLOCK
        grid = (-(-threads[0] // block[0]), -(-threads[1] // block[1]), sessions)
        if 0 in grid:
            return
        with self._current():
            self._module.get_function(name)(*arguments, block=block, grid=grid, stream=stream)

    def i420_to_rgb(self, i420: DeviceArray, rgb: DeviceArray, stream: Any = None) -> None:
        """u8 [B, h*3/2, w] into u8 [B, h, w, 3]."""
        sessions, h, w, _ = _check("rgb", rgb, "|u1", (None, None, None, 3))
        _even(h, w)
        _check("i420", i420, "|u1", (sessions, h * 3 // 2, w))
        arguments = (i420, np.int32(w), np.int32(h), rgb)
        self._launch("ls_gpu_i420_to_rgb", arguments, (w // 2, h // 2), sessions, stream)

    def rgb_into_i420(
        self,
        rgb: DeviceArray,
        mask: DeviceArray | None,
        i420: DeviceArray,
        stream: Any = None,
    ) -> None:
        """u8 [B, h, w, 3] into u8 [B, h*3/2, w], where mask u8 [B, h, w] is above 0; None: all."""
        sessions, h, w, _ = _check("rgb", rgb, "|u1", (None, None, None, 3))
        _even(h, w)
        _check("i420", i420, "|u1", (sessions, h * 3 // 2, w))
        if mask is not None:
            _check("mask", mask, "|u1", (sessions, h, w))
        arguments = (rgb, _or_nothing(mask), np.int32(w), np.int32(h), i420)
        self._launch("ls_gpu_rgb_into_i420", arguments, (w // 2, h // 2), sessions, stream)

    def min_plus(
        self,
        score_and_emission: tuple[DeviceArray, DeviceArray],
        graph: tuple[DeviceArray, DeviceArray],
        best_and_back: tuple[DeviceArray, DeviceArray],
        stream: Any = None,
    ) -> None:
        """Score and emission f32 [B, N] over predecessors i32 and cost f32 [N, P].

        Writes the new score f32 [B, N] and back pointers i32 [B, N].
        """
        score, emission = score_and_emission
        predecessors, cost = graph
        best, back = best_and_back
        sessions, states = _check("score", score, "<f4", (None, None))
        _check("emission", emission, "<f4", (sessions, states))
        _, slots = _check("predecessors", predecessors, "<i4", (states, None))
        _check("cost", cost, "<f4", (states, slots))
        _check("best", best, "<f4", (sessions, states))
        _check("back", back, "<i4", (sessions, states))
        sizes = (np.int32(states), np.int32(slots))
        arguments = (*sizes, score, predecessors, cost, emission, best, back)
        self._launch("ls_gpu_min_plus", arguments, (states, 1), sessions, stream)

    def mesh_map(
        self,
        vertices: tuple[DeviceArray, DeviceArray],
        triangles: DeviceArray,
        origins: DeviceArray,
        map_and_coverage: tuple[DeviceArray, DeviceArray],
        stream: Any = None,
    ) -> None:
        """Source and target vertices f32 [B, V, 2], triangles i32 [T, 3], origins i32 [B, 2].

        All sessions share the triangles. Writes map f32 [B, h, w, 2] and coverage u8 [B, h, w].
        """
        source_xy, target_xy = vertices
        mapped, coverage = map_and_coverage
        sessions, count, _ = _check("source_xy", source_xy, "<f4", (None, None, 2))
        _check("target_xy", target_xy, "<f4", (sessions, count, 2))
        faces, _ = _check("triangles", triangles, "<i4", (None, 3))
        _check("origins", origins, "<i4", (sessions, 2))
        _, h, w, _ = _check("map", mapped, "<f4", (sessions, None, None, 2))
        _check("coverage", coverage, "|u1", (sessions, h, w))
        arguments = (
            source_xy,
            target_xy,
            np.int32(count),
            triangles,
            np.int32(faces),
            origins,
            np.int32(w),
            np.int32(h),
            mapped,
            coverage,
        )
        self._launch("ls_gpu_mesh_map", arguments, (w, h), sessions, stream)

    def remap(
        self,
        images: DeviceArray,
        map_and_coverage: tuple[DeviceArray, DeviceArray | None],
        out: DeviceArray,
        stream: Any = None,
    ) -> None:
        """Images u8 [B, H, W, C] through map f32 [B, h, w, 2] into u8 [B, h, w, C].

        With coverage u8 [B, h, w], uncovered pixels become 0.
        """
        mapped, coverage = map_and_coverage
        sessions, height, width, channels = _check("images", images, "|u1", (None,) * 4)
        _, h, w, _ = _check("map", mapped, "<f4", (sessions, None, None, 2))
        _check("out", out, "|u1", (sessions, h, w, channels))
        if coverage is not None:
            _check("coverage", coverage, "|u1", (sessions, h, w))
        sizes = (np.int32(height), np.int32(width), np.int32(channels))
        arguments = (images, *sizes, mapped, _or_nothing(coverage), np.int32(h * w), out)
        self._launch("ls_gpu_remap", arguments, (h * w, 1), sessions, stream)

    def blend(
        self,
        background_and_layer: tuple[DeviceArray, DeviceArray],
        alpha: DeviceArray,
        gain_bias: DeviceArray | None,
        out: DeviceArray,
        stream: Any = None,
    ) -> None:
        """u8 [B, h, w, 3] twice by alpha f32 [B, h, w] into u8 [B, h, w, 3].

        With gain_bias f32 [B, 2, 3] the layer is colour-matched first.
        """
        background, layer = background_and_layer
        sessions, h, w, _ = _check("background", background, "|u1", (None, None, None, 3))
        _check("layer", layer, "|u1", (sessions, h, w, 3))
        _check("alpha", alpha, "<f4", (sessions, h, w))
        _check("out", out, "|u1", (sessions, h, w, 3))
        if gain_bias is not None:
            _check("gain_bias", gain_bias, "<f4", (sessions, 2, 3))
        arguments = (np.int32(h * w), background, layer, alpha, _or_nothing(gain_bias), out)
        self._launch("ls_gpu_blend", arguments, (h * w, 1), sessions, stream)


def _or_nothing(array: DeviceArray | None) -> Any:
    return _NOTHING if array is None else array


def _even(h: int, w: int) -> None:
    if h % 2 or w % 2:
        raise UsageError(f"pictures are {w}x{h} pixels; expected even sides")


def _check(
    name: str, array: DeviceArray, typestr: str, shape: tuple[int | None, ...]
) -> tuple[int, ...]:
    """Shape of a device array, after making sure that a kernel may walk it."""
    face = getattr(array, "__cuda_array_interface__", None)
    if face is None:
        raise UsageError(f"{name} is {type(array).__name__}; expected an array on the device")
    got = tuple(int(size) for size in face["shape"])
    fits = len(got) == len(shape) and all(
        want is None or size == want for size, want in zip(got, shape, strict=True)
    )
    if not fits or face["typestr"] != typestr:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise UsageError(f"{name} is {face['typestr']} {got}; expected {typestr} [{wanted}]")
    if face.get("strides") is not None:
        dense = np.dtype(typestr).itemsize
        for size, stride in zip(reversed(got), reversed(face["strides"]), strict=True):
            if size > 1 and stride != dense:
                raise UsageError(f"{name} is not contiguous; expected dense memory")
            dense *= size
    return got
