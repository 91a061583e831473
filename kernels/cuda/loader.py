"""The kernels on an NVIDIA GPU, through pycuda, from a fat binary that ships with the package.

Nothing is compiled at run time and no CUDA toolkit is needed. The device's primary context is
used, the one torch uses too, so both see the same memory; a context of pycuda's own (autoinit)
beside torch would not. pycuda must own the stream: `pycuda.driver.Stream(1)`, and torch takes its
handle through `torch.cuda.ExternalStream`.

Arrays are device memory: anything with `__cuda_array_interface__` (torch tensors, GPUArrays),
contiguous. Results are written into arrays that the caller owns.
"""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any, Final, Protocol

import numpy as np

from lipstream.kernels.build import FATBIN
from lipstream.kernels.errors import BackendUnavailable, UsageError

_BLOCK: Final = (32, 8, 1)
# Pixels of a thread, one below another, in kernels that look at 5 x 5: LS_STRIP of strip.cuh.
_STRIP: Final = 4
_IN_STRIPS: Final = ("ls_gpu_near_gap", "ls_gpu_mean_once", "ls_gpu_gates", "ls_gpu_sharpen")


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
        if "libcuda" in str(error):
            raise BackendUnavailable(f"there is no NVIDIA driver for pycuda ({error})") from error
        raise BackendUnavailable(
            f"pycuda does not import ({error}); pip install 'lipstream[cuda]', "
            "which needs the CUDA toolkit"
        ) from error
    fatbin = resources.files("lipstream.kernels.cuda").joinpath(FATBIN)
    if not fatbin.is_file():
        raise BackendUnavailable(f"{FATBIN} is missing; run `python kernels/build.py --gpu`")
    try:
        driver.init()
        context = driver.Device(device).retain_primary_context()
    except driver.Error as error:
        raise BackendUnavailable(
            f"no CUDA device {device} ({error}); check `nvidia-smi`, or leave the backend at auto"
        ) from error
    return GpuKernels(driver, context, fatbin.read_bytes())


class GpuKernels:
    """Launches; one object per device, usable from any thread."""

    def __init__(self, driver: Any, context: Any, fatbin: bytes) -> None:
        """Load the code into `context`; `driver` is the module pycuda.driver."""
        self._driver, self._context = driver, context
        # By name, here or when the process ends: pycuda's own destructor of a primary context
        # calls cuCtxDetach on what torch may still use (pycuda 2026.1).
        weakref.finalize(self, context.detach)
        with self._current():
            try:
                self._module = driver.module_from_buffer(fatbin)
            except driver.Error as error:
                raise BackendUnavailable(
                    f"{FATBIN} does not load ({error}); it needs compute capability 8.0 or later"
                ) from error

    @contextmanager
    def _current(self) -> Iterator[None]:
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def stream(self) -> Any:
        """A stream for `launch`; torch takes its `handle`."""
        with self._current():
            return self._driver.Stream(1)  # CU_STREAM_NON_BLOCKING

    def launch(
        self,
        name: str,
        arguments: tuple[Any, ...],
        pixels: tuple[int, int],
        batch: int,
        stream: Any,
    ) -> None:
        """Start a kernel with a thread for each pixel or strip of (columns, rows), of each picture.

        Raises: BackendUnavailable when the driver refuses, with its words.
        """
        high = _BLOCK[1] * (_STRIP if name in _IN_STRIPS else 1)
        grid = (-(-pixels[0] // _BLOCK[0]), -(-pixels[1] // high), batch)
        if 0 in grid:
            return
        with self._current():
            try:
                self._module.get_function(name)(*arguments, block=_BLOCK, grid=grid, stream=stream)
            except self._driver.Error as error:
                raise BackendUnavailable(f"{name} does not start ({error})") from error


def checked(
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
