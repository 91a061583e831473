"""The twin of the product of a matrix and a vector in `kernels.gru`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]


def affine(x: F32, weights: NDArray[np.float16], bias: F32) -> F32:
    """bias + sum over i, in order, of x[i] * weights[:, i]: f32 [outputs]."""
    total = bias.copy()
    for value, column in zip(x, weights.T.astype(np.float32), strict=True):
        total += value * column
    return total
