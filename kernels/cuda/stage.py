"""The renderer's stage on an NVIDIA GPU: from the painted patch to finished pixels, in a batch.

    pictures ─► ls_gpu_crop ─► network ─► gates, sharpening ─► ls_gpu_paste ─► the same pictures
       ▲             ▲                          ▲                    ▲
       └─────────────┴── table of rows: each with its own picture, size and place ─┘

Nothing leaves the device between. Each picture has its own size; the crop has one size for all. A
row that is wrong is refused on its own, here and once more on the device, and the others go on.
The twin is `lipstream.engine.networks.stage_cpu.refine_row`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from lipstream.kernels.crop import DIFFERENCE_KEPT, GATES_KEPT, SYNTHETIC
from lipstream.kernels.cuda.loader import DeviceArray, GpuKernels, checked
from lipstream.kernels.errors import UsageError

# The fields of LsRow in stage.cuh.
_POINTERS: Final = ("picture", "conditioning", "prior", "previous", "refined")
ROW: Final = np.dtype(
    [(name, np.uint64) for name in _POINTERS]
    + [(name, np.int32) for name in ("height", "width", "prior_height", "prior_width")]
    + [(name, np.float32) for name in ("left", "top", "step", "zoom", "doubt", "sharpen")]
    + [("used", np.int32)],
    align=True,
)


class Memory(Protocol):
    """Where device memory comes from: torch's caching allocator, or pycuda's."""

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """Uninitialised device memory, with `__cuda_array_interface__`."""
        ...

    def upload(self, values: NDArray[Any], onto: Any, stream: Any) -> None:
        """Copy values into device memory, in the order of the stream."""
        ...


@dataclass(frozen=True, slots=True)
class Row:
    """One picture of a batch; u8 on the device."""

    picture: DeviceArray  # [h, w, 3], refined in place
    conditioning: DeviceArray  # [h, w, 3]
    prior: DeviceArray | None  # [h', w', 3]
    previous: DeviceArray | None  # [rows, columns, 3], `refined` of the frame before
    refined: DeviceArray  # [rows, columns, 3], written
    place: tuple[float, float, float]  # left, top, step: as kernels.crop takes it
    confidence: float = 1.0  # in the prior
    sharpen: float = 0.0


# Planes f32 [B, 12, rows, columns] and gates f32 [B, 3, rows, columns], on the device, and of how
# many rows the batch is.
Gating = Callable[[Any, Any, int], None]


class Stage:
    """Buffers for up to `most` rows. For one stream at a time."""

    def __init__(
        self, kernels: GpuKernels, memory: Memory, crop_shape: tuple[int, int], most: int
    ) -> None:
        """crop_shape: rows and columns of the crop."""
        self._kernels, self._memory, self._shape, self.most = kernels, memory, crop_shape, most

        def floats(planes: int) -> Any:
            return memory.empty((most, planes, *crop_shape), np.dtype(np.float32))

        def levels(*channels: int) -> Any:
            return memory.empty((most, *crop_shape, *channels), np.dtype(np.uint8))

        self._crops, self._weights, self._stored = levels(6), levels(), levels(3)
        self._planes, self._gates, self._once = floats(12), floats(3), floats(6)
        self._difference, self._spare, self._refined = floats(3), floats(3), floats(3)
        self._held = memory.empty((most,), np.dtype(np.int32))
        self._table = memory.empty((most, ROW.itemsize), np.dtype(np.uint8))
        self._tables = memory.empty((2, 256), np.dtype(np.uint8))
        memory.upload(np.stack([GATES_KEPT, DIFFERENCE_KEPT]), self._tables, None)

    def run(
        self, rows: Sequence[Row], network: Gating, batch: int, stream: Any
    ) -> list[UsageError | None]:
        """Refine the pictures in place, and write what each looks like in the crop.

        network: enqueues planes to gates on `stream`, for `batch` rows, at least as many as `rows`.
        The rest are empty. Returns for each row why it was left alone, or None.
        Raises: UsageError for more rows than fit.
        """
        refused = self.upload(rows, batch, stream)
        self.launch(network, batch, stream)
        return refused

    def upload(self, rows: Sequence[Row], batch: int, stream: Any) -> list[UsageError | None]:
        """The part of `run` that differs from call to call: the table, checked, to the device."""
        if not len(rows) <= batch <= self.most:
            raise UsageError(f"got {len(rows)} rows in a batch of {batch}, expected {self.most}")
        table = np.zeros(self.most, ROW)
        refused: list[UsageError | None] = []
        for place, row in zip(table, rows, strict=False):
            try:
                self._fill(place, row)
            except UsageError as error:
                refused.append(error)
            else:
                refused.append(None)
        self._memory.upload(table.view(np.uint8).reshape(self.most, -1), self._table, stream)
        return refused

    def launch(self, network: Gating, batch: int, stream: Any) -> None:
        """The rest of `run`, the same for each batch of one size: a CUDA graph may hold it."""

        def launch(name: str, *arguments: Any) -> None:
            self._kernels.launch(name, arguments, self._shape[::-1], batch, stream)

        table, held, crops = self._table, self._held, self._crops
        shape = tuple(np.int32(side) for side in self._shape)
        difference, spare, refined = self._difference, self._spare, self._refined
        launch("ls_gpu_crop", table, *shape, np.int32(SYNTHETIC), crops, self._planes, held)
        launch("ls_gpu_near_gap", table, held, *shape, crops, self._tables, self._weights)
        network(self._planes, self._gates, batch)
        launch("ls_gpu_mean_once", held, *shape, self._planes, self._once)
        gated = (self._gates, self._planes, self._once, self._weights, difference)
        launch("ls_gpu_gates", table, held, *shape, *gated)
        launch("ls_gpu_grid_along", held, *shape, difference, spare)
        launch("ls_gpu_grid_across", held, *shape, spare, crops, difference, refined)
        sharpened = (difference, refined, crops, self._weights, self._stored)
        launch("ls_gpu_sharpen", table, held, *shape, *sharpened)
        # A thread walks as many pixels of its picture as are left, so this grid does for any size.
        launch("ls_gpu_paste", table, held, *shape, self._stored)

    def _fill(self, place: Any, row: Row) -> None:
        """One row of the table; checks what kernels.crop checks."""
        height, width, _ = checked("picture", row.picture, "|u1", (None, None, 3))
        checked("conditioning", row.conditioning, "|u1", (height, width, 3))
        crop = (*self._shape, 3)
        checked("refined", row.refined, "|u1", crop)
        if row.previous is not None:
            checked("previous", row.previous, "|u1", crop)
        across = down = 0
        if row.prior is not None:
            down, across, _ = checked("prior", row.prior, "|u1", (None, None, 3))
        if 0 in (height, width) or (row.prior is not None and 0 in (down, across)):
            raise UsageError("a picture has no pixel; expected at least one")
        numbers = (*row.place, row.confidence, row.sharpen)
        if not (all(map(math.isfinite, numbers)) and row.place[2] > 0):
            raise UsageError(f"place {row.place}; expected finite left, top and a step above 0")
        for name in _POINTERS:
            array = getattr(row, name)
            if array is not None:
                place[name] = array.__cuda_array_interface__["data"][0]
        place["height"], place["width"] = height, width
        place["prior_height"], place["prior_width"] = down, across
        place["left"], place["top"], place["step"] = row.place
        place["zoom"] = 1 / row.place[2]
        place["doubt"], place["sharpen"] = 1 - row.confidence, row.sharpen
        place["used"] = 1
