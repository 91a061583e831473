"""The card under test: its memory, its clock and our kernels on it; or the host in its place.

Nothing here needs torch: where PTX is forced, every kernel in the process is compiled from PTX,
and torch's have none.
"""

from __future__ import annotations

import importlib
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lipstream.bench.commit import commit
from lipstream.bench.gpu import host
from lipstream.kernels.cuda import loader

_BUSY_BYTES: Final = 1 << 30  # copied to keep the card busy while launches are queued
_TRIES: Final = 5
_MOST_BUSY_COPIES: Final = 256
_SMI_FIELDS: Final = "driver_version,clocks.sm,clocks.mem,temperature.gpu,power.draw"


class Buffer:
    """Contiguous device memory with a shape."""

    def __init__(self, address: int, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self.address, self.shape, self.dtype = address, shape, np.dtype(dtype)

    @property
    def nbytes(self) -> int:
        """Size."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3."""
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "version": 3,
        }


class Card:
    """A device with our kernels loaded, and one stream. `open_card` makes it."""

    def __init__(self, driver: Any, device: Any, kernels: loader.GpuKernels, on_host: bool) -> None:
        self.driver, self.kernels, self.on_host = driver, kernels, on_host
        self._device = device
        self.stream = driver.Stream(1)  # not ordered by the default stream
        self._allocations: dict[int, Any] = {}
        self._busy: Buffer | None = None
        self._busy_copies = 1

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """Uninitialised memory."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        allocation = self.driver.mem_alloc(max(size, 1))
        self._allocations[int(allocation)] = allocation
        return Buffer(int(allocation), shape, dtype)

    def upload(self, values: NDArray[Any], onto: Any, stream: Any = None) -> None:
        """Copy in the order of the stream; `values` may change as soon as this returns."""
        address = onto.__cuda_array_interface__["data"][0]
        values = np.ascontiguousarray(values)
        self.driver.memcpy_htod_async(address, values, stream or self.stream)
        if stream is None:
            self.stream.synchronize()

    def put(self, values: NDArray[Any]) -> Buffer:
        """A copy on the device."""
        buffer = self.empty(values.shape, values.dtype)
        if buffer.nbytes:
            self.upload(values, buffer)
        return buffer

    def fill(self, buffer: Buffer, byte: int) -> None:
        """Every byte of it."""
        self.driver.memset_d8_async(buffer.address, byte, buffer.nbytes, self.stream)

    def read(self, buffer: Buffer) -> NDArray[Any]:
        """A copy on the host, of what the stream leaves."""
        out = np.empty(buffer.shape, buffer.dtype)
        if out.nbytes:
            self.driver.memcpy_dtoh_async(out, buffer.address, self.stream)
        self.stream.synchronize()
        return out

    def free(self, buffers: Iterable[Buffer]) -> None:
        """Give memory back."""
        self.stream.synchronize()
        for buffer in buffers:
            self._allocations.pop(buffer.address).free()

    def free_all(self) -> None:
        """Give back what is left."""
        self.stream.synchronize()
        for allocation in self._allocations.values():
            allocation.free()
        self._allocations.clear()

    def used_bytes(self) -> int:
        """Of the card, by everyone."""
        free, total = self.driver.mem_get_info()
        return int(total) - int(free)

    def copy(self, onto: Buffer, source: Buffer) -> None:
        """Device to device."""
        self.driver.memcpy_dtod_async(onto.address, source.address, onto.nbytes, self.stream)

    def times_ms(self, runs: Sequence[Callable[[], object]], rounds: int) -> list[float]:
        """Milliseconds of one of `runs`, launched back to back, in each of `rounds`.

        A round before them warms up.

        The card is kept busy until all are queued, so that it never waits for the host: the time
        is the kernels' own. Raises: RuntimeError if it waited all the same.
        """
        self._round_ms(runs)
        return [self._unhindered_ms(runs) / len(runs) for _ in range(rounds)]

    def _unhindered_ms(self, runs: Sequence[Callable[[], object]]) -> float:
        for _ in range(_TRIES):
            spent = self._round_ms(runs)
            if spent is not None:
                return spent
            self._busy_copies = min(4 * self._busy_copies, _MOST_BUSY_COPIES)
        raise RuntimeError("the card ran out of work before all launches were queued")

    def _round_ms(self, runs: Sequence[Callable[[], object]]) -> float | None:
        """None where the card waited for the host."""
        if self._busy is None:
            size = (1 << 16) if self.on_host else _BUSY_BYTES
            self._busy = self.empty((2, size // 2), np.uint8)
        half = self._busy.nbytes // 2
        begin, end = self.driver.Event(), self.driver.Event()
        for _ in range(self._busy_copies):
            self.driver.memcpy_dtod_async(
                self._busy.address + half, self._busy.address, half, self.stream
            )
        begin.record(self.stream)
        for run in runs:
            run()
        waited = bool(begin.query())
        end.record(self.stream)
        end.synchronize()
        return None if waited else float(begin.time_till(end))

    def describe(self) -> dict[str, Any]:
        """Hardware, versions, commit and date."""
        version = int(self.driver.get_driver_version())
        return {
            "card": self._device.name(),
            "capability": list(self._device.compute_capability()),
            "memory_gib": round(self._device.total_memory() / 2**30, 1),
            "cuda_of_driver": f"{version // 1000}.{version % 1000 // 10}",
            "l2_bytes": self.l2_bytes(),
            "nvidia_smi": None if self.on_host else _nvidia_smi(),
            "processor": platform.processor() or platform.machine(),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "commit": commit(),
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }

    def l2_bytes(self) -> int:
        """Of its last cache; inputs are rotated so that more than this is read."""
        if self.on_host:
            return 0
        return int(self._device.get_attribute(self.driver.device_attribute.L2_CACHE_SIZE))


@contextmanager
def open_card(device: str, folder: Path) -> Iterator[Card]:
    """The first card ("cuda"), or the host in its place ("host"), with its context current.

    folder: where kernels for the host are compiled to.
    Raises: BackendUnavailable, with the cause.
    """
    if device == "host":
        stand_in = host.HostDriver(host.compile_kernels(folder / "kernels_on_host.so"))
        package = {"pycuda": stand_in, "pycuda.driver": stand_in}
        with patch.dict(sys.modules, package):
            yield Card(stand_in, stand_in.Device(0), loader.load(), on_host=True)
        return
    kernels = loader.load()
    driver: Any = importlib.import_module("pycuda.driver")
    own = driver.Device(0)
    context = own.retain_primary_context()
    context.push()
    try:
        card = Card(driver, own, kernels, on_host=False)
        try:
            yield card
        finally:
            with suppress(driver.Error):  # after a fault every call fails; the first one is told
                card.free_all()
    finally:
        context.pop()  # pycuda ends the process where a context is left current
        context.detach()


def _nvidia_smi() -> str | None:
    """Driver, clocks (MHz), temperature and power, as the card is found: nothing is set."""
    if shutil.which("nvidia-smi") is None:
        return None
    done = subprocess.run(
        ["nvidia-smi", f"--query-gpu={_SMI_FIELDS}", "--format=csv,noheader", "--id=0"],
        capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    return done.stdout.strip() or None
