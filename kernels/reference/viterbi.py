"""The twins of `kernels.viterbi`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lipstream.kernels.errors import UsageError

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]


def min_plus(score: F32, predecessors: I32, transition_cost: F32, emission: F32) -> tuple[F32, I32]:
    """One step of Viterbi in pull form, ties to the lowest slot.

    score f32 [N], predecessors i32 [N, P], transition_cost f32 [N, P], emission f32 [N] -> new
    score f32 [N] and back pointer i32 [N], which is the chosen predecessor, or -1 where every way
    in costs infinity (the new score is then infinite).
    """
    candidates = score[predecessors] + transition_cost  # f32 [N, P]
    slot = candidates.argmin(axis=1)
    states = np.arange(score.size)
    best = candidates[states, slot]
    back = np.where(np.isinf(best), np.int32(-1), predecessors[states, slot])
    return best + emission, back


def trace_back(backs: list[I32], states: I32) -> I32:
    """Follow back pointers: ancestor i32 [S] of each of `states`, through `backs` newest first.

    A state of -1 stays -1.

    Raises: UsageError where a state or a back pointer is neither -1 nor a state.
    """
    ancestors = states
    for back in backs:
        _require_states(ancestors, back.size)
        ancestors = np.where(ancestors >= 0, back[ancestors], np.int32(-1))
    _require_states(ancestors, backs[0].size if backs else 2**31 - 1)
    return ancestors


def _require_states(states: I32, count: int) -> None:
    if states.size and not -1 <= states.min() <= states.max() < count:
        raise UsageError(f"a state or back pointer is outside -1..{count - 1}")


def feature_distance(features: F32, wanted: F32, base: F32) -> F32:
    """base[n] + sum over k of (features[k, n] - wanted[k])^2, summed in the order of k: f32 [N]."""
    total = base.copy()
    for row, value in zip(features, wanted, strict=True):
        difference = row - value
        total += difference * difference
    return total
