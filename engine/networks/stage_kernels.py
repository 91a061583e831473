"""The steps of the renderer's stage as our CUDA kernels (`kernels.cuda`), on torch's memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lipstream.engine.networks.stage_arena import Arena, PlacedRow
from lipstream.kernels.cuda.loader import GpuKernels
from lipstream.kernels.cuda.stage import Row, Stage

_TYPES: Final = {"uint8": torch.uint8, "int32": torch.int32, "float32": torch.float32}


class TorchMemory:
    """Memory of torch's allocator, which the kernels see by its address."""

    def __init__(self, device: str) -> None:
        self._device = device

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Shared:
        """See `kernels.cuda.stage.Memory`."""
        tensor = torch.empty(shape, dtype=_TYPES[dtype.name], device=self._device)
        return Shared(tensor, dtype.str)

    def upload(self, values: NDArray[Any], onto: Shared, stream: object) -> None:
        """See `kernels.cuda.stage.Memory`; `stream` is torch's current one, or none yet is."""
        onto.tensor.copy_(torch.from_numpy(values))


class Shared:
    """Part of a tensor as the kernels take it: on "cpu", too, where they are compiled for it."""

    def __init__(
        self, tensor: Tensor, typestr: str, shape: tuple[int, ...] | None = None, first: int = 0
    ) -> None:
        """`shape`: other than the tensor's; `first`: number of it where the part begins."""
        self.tensor = tensor  # which holds the memory
        self._typestr = typestr
        self._shape = tuple(tensor.shape) if shape is None else shape
        self._address = tensor.data_ptr() + first * tensor.element_size()

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """See `kernels.cuda.loader.DeviceArray`."""
        return {
            "shape": self._shape, "typestr": self._typestr, "data": (self._address, False),
            "version": 3,
        }  # fmt: skip


class KernelBody:
    """Computes the rows of one arena."""

    def __init__(self, kernels: GpuKernels, stream: Any, arena: Arena) -> None:
        """`stream`: of the kernels' driver; torch's current one is the same."""
        self._arena, self._stream = arena, stream
        self._stage = Stage(kernels, TorchMemory(arena.device), arena.crop_shape, arena.batch)

    def prepare(self, placed: Sequence[PlacedRow]) -> None:
        """See `Body`."""
        rows = [self._row(index, one) for index, one in enumerate(placed)]
        refused = self._stage.upload(rows, self._arena.batch, self._stream)
        assert not any(refused), refused  # they were checked before they were packed

    def enqueue(self, network: Callable[[Tensor], Tensor]) -> None:
        """See `Body`."""

        def gating(planes: Shared, gates: Shared, batch: int) -> None:
            gates.tensor.copy_(network(planes.tensor))

        self._stage.launch(gating, self._arena.batch, self._stream)

    def _row(self, index: int, placed: PlacedRow) -> Row:
        row, shape, crop = placed.row, placed.shape, (*self._arena.crop_shape, 3)
        at = index * crop[0] * crop[1]

        def part(name: str, shape: tuple[int, ...], first: int) -> Shared:
            return Shared(self._arena.on_device[name], "|u1", shape, 3 * first)

        return Row(
            part("pictures", shape, placed.first),
            part("maps", shape, placed.first),
            None if row.prior is None else part("priors", row.prior.shape, placed.prior_first),
            None if row.previous is None else part("previous", crop, at),
            part("crops", crop, at),
            row.place,
            row.confidence,
            row.sharpen,
        )
