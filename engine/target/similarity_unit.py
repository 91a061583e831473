"""The unit of cost of a search over features."""

from __future__ import annotations

import numpy as np

from lipstream.engine.types import F32


def random_pair_cost(features: F32) -> float:
    """Unit of cost: mean squared distance of two random rows of f32 [N, F]; 1 if all are equal."""
    spread = 2 * float(features.var(axis=0, dtype=np.float64).sum())
    return spread if spread > 0 else 1.0
