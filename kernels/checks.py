"""Shape and type checks shared by the kernel wrappers: what reaches compiled code is sound."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lipstream.kernels.errors import UsageError


def require(
    name: str, array: NDArray[Any], dtype: DTypeLike, shape: tuple[int | None, ...]
) -> None:
    """Raise UsageError unless `array` has this dtype and shape; None stands for any size."""
    # Called forty times a frame, so in plain steps.
    if isinstance(array, np.ndarray) and array.dtype == dtype and array.ndim == len(shape):
        for got, want in zip(array.shape, shape, strict=True):
            if got != want and want is not None:
                break
        else:
            return
    is_array = isinstance(array, np.ndarray)
    got_text = f"{array.dtype} {list(array.shape)}" if is_array else type(array).__name__
    sizes = ", ".join("any" if size is None else str(size) for size in shape)
    raise UsageError(f"{name} is {got_text}; expected {np.dtype(dtype)} [{sizes}]")


def require_indices(
    name: str, indices: NDArray[np.int32], shape: tuple[int | None, ...], count: int
) -> None:
    """Raise UsageError unless these are i32 of this shape, each 0 to count - 1."""
    require(name, indices, np.int32, shape)
    # One pass: as unsigned numbers those below 0 are the largest.
    if indices.size and int(indices.view(np.uint32).max()) >= count:
        raise UsageError(f"{name} names {indices.min()}..{indices.max()}; expected 0..{count - 1}")


def require_i420(name: str, i420: NDArray[np.uint8]) -> tuple[int, int]:
    """Raise UsageError unless this is an I420 picture with even sides; returns (h, w)."""
    require(name, i420, np.uint8, (None, None))
    rows, w = i420.shape
    h = rows * 2 // 3
    if rows % 3 or h % 2 or w % 2 or rows == 0 or w == 0:
        raise UsageError(
            f"{name} is u8 [{rows}, {w}]; expected u8 [h*3/2, w] with even h and w (I420)"
        )
    if not i420.flags.c_contiguous:
        raise UsageError(f"{name} is not contiguous; pass numpy.ascontiguousarray({name})")
    return h, w


def require_region(x: int, y: int, w: int, h: int, width: int, height: int) -> None:
    """Raise UsageError unless the rectangle is even and inside the picture."""
    if x % 2 or y % 2 or w % 2 or h % 2:
        raise UsageError(f"region x={x} y={y} w={w} h={h}; expected even numbers")
    if x < 0 or y < 0 or w <= 0 or h <= 0 or x + w > width or y + h > height:
        raise UsageError(
            f"region x={x} y={y} w={w} h={h}; expected it to lie inside {width}x{height}"
        )
