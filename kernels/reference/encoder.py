"""The twins of the two products of a matrix and a vector in `kernels.encoder`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]


def affine(x: F32, weights: NDArray[np.float16], bias: F32) -> F32:
    """bias + sum over i, in order, of x[i] * weights[:, i]: f32 [outputs]."""
    total = bias.copy()
    for value, column in zip(x, weights.T.astype(np.float32), strict=True):
        total += value * column
    return total


def level_limit(weights: NDArray[np.int8]) -> int:
    """The largest level of an input: it has 16 bits, and no sum of products leaves 32 bits."""
    most = int(np.abs(weights.astype(np.int64)).sum(1).max(initial=1))
    return min(2**15 - 1, (2**31 - 1) // most)


def integer_affine(x: F32, weights: NDArray[np.int8], scale: F32, bias: F32) -> F32:
    """bias + scale * (weights @ x), f32 [outputs], with x rounded to integer levels.

    The largest |x| is `level_limit`, so 16 bits are used whatever the size of x.
    """
    limit = np.float32(level_limit(weights))
    largest = np.abs(x).max()
    if largest < np.float32(1e-30):
        return bias.copy()
    levels = np.rint(x * (limit / largest)).astype(np.int32)
    total: NDArray[Any] = weights.astype(np.int32) @ levels
    return total.astype(np.float32) * (scale * (largest / limit)) + bias
