"""Memory with guard bytes on both sides, as dav1d's checkasm has it, for what compiled code writes.

A test calls compiled code through `Guards.call`: all that the call allocates lies between guard
bytes, and afterwards each of them must be what it was. Arrays that are written in place come from
`Guards.copy`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

from lipstream.kernels import native

GUARD_BYTES = 256
PATTERN = 0xA5  # of the guards, and of memory that nothing has written yet


class Guards:
    """What was allocated, with guard bytes round it."""

    def __init__(self) -> None:
        self._held: list[tuple[NDArray[np.uint8], str]] = []

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """As `native.empty`; the memory is full of PATTERN."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        buffer = np.full(size + 2 * GUARD_BYTES, PATTERN, np.uint8)
        self._held.append((buffer, f"{np.dtype(dtype)} {shape}"))
        return buffer[GUARD_BYTES : GUARD_BYTES + size].view(dtype).reshape(shape)

    def zeros(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """As `native.zeros`."""
        array = self.empty(shape, dtype)
        array[...] = 0
        return array

    def copy(self, array: NDArray[Any]) -> NDArray[Any]:
        """The same numbers between guard bytes."""
        copy = self.empty(array.shape, array.dtype)
        copy[...] = array
        return copy

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call compiled code and check all guard bytes so far."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native, "empty", self.empty)
            patch.setattr(native, "zeros", self.zeros)
            result = function(*arguments)
        assert self._held, "the call allocates nothing that it writes"
        for buffer, what in self._held:
            for side, guard in (("before", buffer[:GUARD_BYTES]), ("after", buffer[-GUARD_BYTES:])):
                assert (guard == PATTERN).all(), f"guard bytes {side} {what} were overwritten"
        return result


def assert_twins_agree(kernel: Any, *arguments: Any) -> Any:
    """Compiled code and twin give the same bits; returns the twin's result."""
    expected = kernel.reference(*arguments)
    got = Guards().call(kernel.native, *arguments)
    if not isinstance(expected, tuple):
        np.testing.assert_array_equal(got, expected)
        return expected
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    return expected
