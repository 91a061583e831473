"""As much of pycuda.driver as the proof and the loader use, on the host: no card, no CUDA.

The kernels are compiled by g++ and walk their pixels one after the other. What runs so is the
arithmetic of the kernels and the proof's own code; of a card's speed it says nothing.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import time
import types
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lipstream.kernels import build
from lipstream.kernels.errors import BackendUnavailable

_NAMES: Final = ("blockIdx", "blockDim", "gridDim", "threadIdx")
_CUDA: Final = Path(build.__file__).resolve().parent / "cuda"


class Error(Exception):
    """What every failed call of the driver raises."""


class _Index(ctypes.Structure):
    _fields_ = [(axis, ctypes.c_uint) for axis in "xyz"]


def compile_kernels(output: Path) -> Path:
    """lipstream.cu as a library for the host, in `output`, unless it is there and new.

    Raises: BackendUnavailable without g++, or where it refuses the source.
    """
    sources = [*_CUDA.glob("*.cu*")]
    if output.is_file() and output.stat().st_mtime > max(s.stat().st_mtime for s in sources):
        return output
    if shutil.which("g++") is None:
        raise BackendUnavailable("g++ is not on the path; it compiles the kernels for the host")
    done = subprocess.run(
        ["g++", "-x", "c++", "-include", str(_CUDA / "on_host.cuh"), "-w", *build.COMPILE_FLAGS]
        + ["-shared", "-fPIC", "-o", str(output), str(_CUDA / "lipstream.cu")],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise BackendUnavailable(f"g++ refuses lipstream.cu: {done.stderr[-400:]}")
    return output


class Allocation:
    """Memory, aligned as a card's."""

    def __init__(self, driver: HostDriver, size: int) -> None:
        self._driver, self.size = driver, size
        self._memory = np.empty(size + 256, np.uint8)
        self._at = int(self._memory.ctypes.data) + -int(self._memory.ctypes.data) % 256
        driver.used += size

    def __int__(self) -> int:
        return self._at

    def free(self) -> None:
        """Give it back; once."""
        if self._memory.size:
            self._memory = np.empty(0, np.uint8)
            self._driver.used -= self.size


class Event:
    """A moment of the host's clock."""

    def __init__(self) -> None:
        self._at = 0.0

    def record(self, stream: Any = None) -> None:
        """Now: whatever was started before has ended."""
        self._at = time.perf_counter()

    def query(self) -> bool:
        """Whether it has come; never before the host waits for it, as with a card that is busy."""
        return False

    def synchronize(self) -> None:
        """Nothing to wait for."""

    def time_till(self, other: Event) -> float:
        """Milliseconds."""
        return (other._at - self._at) * 1e3


class Stream:
    """An order of work; here all work is done when its call returns."""

    def __init__(self, flags: int = 0) -> None:
        self.flags, self.handle = flags, 0

    def synchronize(self) -> None:
        """Nothing to wait for."""


class _Function:
    """A kernel. One thread for each picture walks all of its pixels, which is quick."""

    def __init__(self, library: ctypes.CDLL, name: str) -> None:
        self._library, self._run = library, getattr(library, name)

    def __call__(
        self, *arguments: Any, block: tuple[int, ...], grid: tuple[int, ...], stream: Any
    ) -> None:
        if not isinstance(stream, Stream):
            raise Error(f"invalid stream: {type(stream).__name__}")
        values: list[Any] = []
        for argument in arguments:
            if isinstance(argument, np.int32):
                values.append(ctypes.c_int32(int(argument)))
            else:
                values.append(ctypes.c_void_p(argument.__cuda_array_interface__["data"][0]))
        at = {name: _Index.in_dll(self._library, name) for name in _NAMES}
        for name, size in (("blockDim", (1, 1, 1)), ("gridDim", (1, 1, grid[2]))):
            for axis, length in zip("xyz", size, strict=True):
                setattr(at[name], axis, length)
        for picture in range(grid[2]):
            at["blockIdx"].z = picture
            self._run(*values)


class HostDriver:
    """Stands for the module pycuda.driver."""

    Error, Event, Stream = Error, Event, Stream

    def __init__(self, library: Path) -> None:
        """`library`: what `compile_kernels` made."""
        self._library = ctypes.CDLL(str(library))
        self.used = 0  # bytes

    def init(self) -> None:
        """Nothing to start."""

    def Device(self, ordinal: int) -> Any:  # noqa: N802
        """The only one."""
        return types.SimpleNamespace(
            retain_primary_context=lambda: self,
            name=lambda: "host",
            compute_capability=lambda: (0, 0),
            total_memory=lambda: 1 << 30,
        )

    def push(self) -> None:
        """There is one context."""

    def pop(self) -> None:
        """There is one context."""

    def detach(self) -> None:
        """It stays."""

    def module_from_buffer(self, code: bytes) -> Any:
        """The host's library; the card's code is only looked at."""
        if len(code) < 1000:
            raise Error("invalid image")
        return types.SimpleNamespace(get_function=lambda name: _Function(self._library, name))

    def mem_alloc(self, size: int) -> Allocation:
        """Uninitialised."""
        return Allocation(self, size)

    def mem_get_info(self) -> tuple[int, int]:
        """Free and total bytes."""
        return (1 << 30) - self.used, 1 << 30

    def memcpy_htod_async(self, onto: int, values: NDArray[Any], stream: Any = None) -> None:
        """Host to device."""
        ctypes.memmove(int(onto), values.ctypes.data, values.nbytes)

    def memcpy_dtoh_async(self, onto: NDArray[Any], source: int, stream: Any = None) -> None:
        """Device to host."""
        ctypes.memmove(onto.ctypes.data, int(source), onto.nbytes)

    def memcpy_dtod_async(self, onto: int, source: int, size: int, stream: Any = None) -> None:
        """Device to device."""
        ctypes.memmove(int(onto), int(source), size)

    def memset_d8_async(self, onto: int, value: int, size: int, stream: Any = None) -> None:
        """Every byte."""
        ctypes.memset(int(onto), value, size)

    def get_driver_version(self) -> int:
        """No CUDA is served."""
        return 0

    def pagelocked_empty(self, shape: int, dtype: Any) -> NDArray[Any]:
        """Memory that a card would read by itself."""
        return np.empty(shape, dtype)
