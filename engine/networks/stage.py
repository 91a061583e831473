"""The renderer's stage over a batch: rows of painted patches in, finished pixels out.

    patch ─► crop ─► network ─► gates, sharpening ─► paste by opacity ─► the same patch, finished

A row has its own size, place and prior; the crop has one size for all of a batch. What computes it
is a `StageExecutor`: torch (`stage_torch`) or our CUDA kernels (`stage_kernels`) on a device, or
the CPU's renderer (`rendering.refiner.CpuStage`), to which the others are equal within one level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from lipstream.engine.errors import UsageError
from lipstream.engine.networks.base import Described
from lipstream.engine.types import F32, U8
from lipstream.kernels.checks import require

BATCHES: Final = (1, 2, 4, 8, 16, 32, 64)  # rows that batches are padded to
MOST_ROWS: Final = BATCHES[-1]


@dataclass(frozen=True, slots=True)
class StageRow:
    """One picture, as its painter left it; nothing of it is written."""

    painted: U8  # u8 [h, w, 3]
    conditioning: U8  # u8 [h, w, 3], see kernels.crop
    prior: U8 | None  # u8 [h', w', 3], over the same rectangle
    previous: U8 | None  # u8 [rows, columns, 3], `Refined.crop` of the frame before
    place: tuple[float, float, float]  # left, top, step: where the crop lies in the patch
    confidence: float = 1.0  # in the prior
    sharpen: float = 0.0

    def check(self, crop_shape: tuple[int, int]) -> None:
        """Raises: UsageError for a row that cannot be computed, so that it costs no other one."""
        require("painted", self.painted, np.uint8, (None, None, 3))
        require("conditioning", self.conditioning, np.uint8, self.painted.shape)
        if self.prior is not None:
            require("prior", self.prior, np.uint8, (None, None, 3))
        if self.previous is not None:
            require("previous", self.previous, np.uint8, (*crop_shape, 3))
        for name, image in (("painted", self.painted), ("prior", self.prior)):
            if image is not None and 0 in image.shape:
                raise UsageError(f"{name} is u8 {list(image.shape)}; expected at least one pixel")
        numbers = self.numbers()
        if not (np.isfinite(numbers).all() and (numbers[2:4] > 0).all()):
            raise UsageError(
                f"place {self.place}, confidence {self.confidence}, sharpen {self.sharpen}; "
                "expected finite numbers and a step above 0"
            )

    def numbers(self) -> F32:
        """f32 [6]: left, top, step, 1 / step, doubt in the prior, strength of the sharpening."""
        left, top, step = self.place
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            zoom = np.float64(1) / np.float64(step)
            row = [left, top, step, zoom, 1 - self.confidence, self.sharpen]
            return np.array(row, np.float32)


@dataclass(frozen=True, slots=True)
class Refined:
    """What became of a row; the arrays are the caller's."""

    pixels: U8  # u8 [h, w, 3]
    crop: U8  # u8 [rows, columns, 3], refined: `StageRow.previous` of the next frame


class StageExecutor(Described, Protocol):
    """Computes batches. One call at a time, all from one thread."""

    @property
    def crop_shape(self) -> tuple[int, int]:
        """Rows and columns."""
        ...

    def run(self, rows: Sequence[StageRow]) -> list[Refined | UsageError]:
        """1 to MOST_ROWS rows, each to what became of it or to why it was refused.

        The batch is padded to `padded_size`. For one size of batch a row's result does not depend
        on the other rows, bit for bit; across sizes it is within one level.
        Raises: BackendUnavailable when the device fails, for all of them.
        """
        ...


def padded_size(rows: int) -> int:
    """The least of BATCHES that holds so many rows. Raises: UsageError where none does."""
    if not 1 <= rows <= MOST_ROWS:
        raise UsageError(f"got a batch of {rows} rows, expected 1 to {MOST_ROWS}")
    return next(size for size in BATCHES if size >= rows)


def refuse(rows: Sequence[StageRow], crop_shape: tuple[int, int]) -> list[UsageError | None]:
    """For each row, why it cannot be computed, or None."""
    found: list[UsageError | None] = []
    for row in rows:
        try:
            row.check(crop_shape)
        except UsageError as error:
            found.append(error)
        except (TypeError, ValueError) as error:  # such as a place of two numbers
            found.append(UsageError(f"a row that cannot be read: {error}"))
        else:
            found.append(None)
    return found
