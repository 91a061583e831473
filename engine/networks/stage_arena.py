"""Memory for batches of one size: fixed addresses, into which rows of any size are packed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lipstream.engine.networks.stage import Refined, StageRow
from lipstream.engine.types import U8

_LEAST_PIXELS: Final = 1 << 14


@dataclass(frozen=True, slots=True)
class PlacedRow:
    """A row whose pictures lie in an arena, one pixel after another."""

    row: StageRow
    first: int  # pixel of `pictures` and `maps`
    prior_first: int  # pixel of `priors`

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of its picture."""
        height, width, channels = self.row.painted.shape
        return height, width, channels


class Body(Protocol):
    """What computes the rows of an arena."""

    def prepare(self, placed: Sequence[PlacedRow]) -> None:
        """Write what differs from batch to batch, but for the pictures."""
        ...

    def enqueue(self, network: Any) -> None:
        """Start the steps in torch's current stream. The same for every batch of this arena."""
        ...


class Arena:
    """Pictures on the host, pinned where there is a device, and the same on the device."""

    def __init__(
        self, batch: int, crop_shape: tuple[int, int], pixels: tuple[int, int], device: str
    ) -> None:
        """`pixels`: room for so many of pictures, and of priors. On "cpu" both sides are one."""
        self.batch, self.crop_shape, self.device = batch, crop_shape, device
        self.pixels = pixels
        crops = batch * crop_shape[0] * crop_shape[1]
        sizes = {"pictures": pixels[0], "maps": pixels[0], "priors": pixels[1]}
        sizes |= {"previous": crops, "crops": crops}
        pinned = device != "cpu"
        self.host = {
            name: torch.zeros((size, 3), dtype=torch.uint8, pin_memory=pinned)
            for name, size in sizes.items()
        }
        self.on_device: dict[str, Tensor] = {
            name: tensor.to(device) if pinned else tensor for name, tensor in self.host.items()
        }
        self._views: dict[str, U8] = {name: tensor.numpy() for name, tensor in self.host.items()}
        self._used = 0  # pixels

    def put(self, rows: Sequence[StageRow]) -> list[PlacedRow]:
        """Pack checked rows on the host."""
        placed, first, prior_first = [], 0, 0
        area = self.crop_shape[0] * self.crop_shape[1]
        for index, row in enumerate(rows):
            placed.append(PlacedRow(row, first, prior_first))
            self._write("pictures", first, row.painted)
            first += self._write("maps", first, row.conditioning)
            if row.prior is not None:
                prior_first += self._write("priors", prior_first, row.prior)
            if row.previous is not None:
                self._write("previous", index * area, row.previous)
        self._used = first
        if self.device != "cpu":
            sizes = {"pictures": first, "maps": first, "priors": prior_first}
            sizes["previous"] = len(rows) * area
            for name, size in sizes.items():
                self.on_device[name][:size].copy_(self.host[name][:size], non_blocking=True)
        return placed

    def fetch(self) -> None:
        """Finished pictures and crops to the host, in torch's current stream."""
        if self.device != "cpu":
            for name, size in (("pictures", self._used), ("crops", len(self.host["crops"]))):
                self.host[name][:size].copy_(self.on_device[name][:size], non_blocking=True)

    def take(self, index: int, placed: PlacedRow) -> Refined:
        """What became of row number `index`, once the stream has come so far; copies."""
        height, width, channels = placed.shape
        area = self.crop_shape[0] * self.crop_shape[1]
        pixels = self._views["pictures"][placed.first : placed.first + height * width]
        crop = self._views["crops"][index * area : (index + 1) * area]
        return Refined(
            pixels.reshape(height, width, channels).copy(),
            crop.reshape(*self.crop_shape, channels).copy(),
        )

    def _write(self, name: str, first: int, image: NDArray[np.uint8]) -> int:
        """Returns how many pixels."""
        size = image.shape[0] * image.shape[1]
        self._views[name][first : first + size].reshape(image.shape)[:] = image
        return size


def pixels_of(rows: Sequence[StageRow]) -> tuple[int, int]:
    """Room that rows need: a power of two of pixels of pictures, and of priors.

    So an arena serves nearly all batches of its size, and a patch that grows makes no new one.
    """
    pictures = sum(row.painted.shape[0] * row.painted.shape[1] for row in rows)
    priors = sum(row.prior.shape[0] * row.prior.shape[1] for row in rows if row.prior is not None)
    return tuple(  # type: ignore[return-value]
        max(_LEAST_PIXELS, 1 << (size - 1).bit_length()) if size else _LEAST_PIXELS
        for size in (pictures, priors)
    )
