"""Percentiles of samples, and the confidence interval of a change between two sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
_DRAWS: Final = 400
_BLOCK: Final = 25  # a second of frames: the load of a machine correlates neighbours


def percentiles(samples: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99, max and mean; all 0 without samples."""
    if not len(samples):
        return dict.fromkeys(("p50", "p95", "p99", "max", "mean"), 0.0)
    values = np.asarray(samples, np.float64)
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    found = {"p50": p50, "p95": p95, "p99": p99, "max": values.max(), "mean": values.mean()}
    return {name: round(float(value), 4) for name, value in found.items()}


def draw_percentile(samples: Sequence[float], percent: float, seed: int = 0) -> F64:
    """Bootstrap draws of a percentile, f64 [draws], from blocks of a second of frames.

    Source: Künsch, "The jackknife and the bootstrap for general stationary observations" (1989);
    moving blocks.
    """
    values = np.asarray(samples, np.float64)
    random = np.random.default_rng(seed)
    block = max(1, min(_BLOCK, len(values) // 8))
    blocks = np.lib.stride_tricks.sliding_window_view(values, block)
    count = -(-len(values) // block)
    picked = blocks[random.integers(0, len(blocks), (_DRAWS, count))].reshape(_DRAWS, -1)
    return np.percentile(picked, percent, axis=1)


def change(
    before: Sequence[float], after: Sequence[float], percent: float = 50.0
) -> tuple[float, float, float]:
    """after / before - 1 of a percentile, and both ends of its 95 % interval, in percent."""
    old, new = (float(np.percentile(np.asarray(x), percent)) for x in (before, after))
    draws = draw_percentile(after, percent, 1) / np.maximum(draw_percentile(before, percent), 1e-9)
    low, high = np.percentile(draws, [2.5, 97.5])
    return 100 * (new / max(old, 1e-9) - 1), 100 * (float(low) - 1), 100 * (float(high) - 1)
