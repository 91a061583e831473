"""The dynamic-programming step and its emission: what the frame matcher runs per frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lipstream.kernels import native
from lipstream.kernels.checks import require
from lipstream.kernels.dispatch import use_native
from lipstream.kernels.errors import UsageError
from lipstream.kernels.reference import all as reference

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]


def min_plus(score: F32, predecessors: I32, transition_cost: F32, emission: F32) -> tuple[F32, I32]:
    """One step of Viterbi in pull form; ties go to the lowest slot.

    new[n] = emission[n] + min over p of (score[predecessors[n, p]] + transition_cost[n, p])

    Args:
        score: f32 [N], infinite where dead.
        predecessors: i32 [N, P]; every entry in 0..N-1 (`Transitions` checks this
            once; it is not checked here). Pad with any state and an infinite cost.
        transition_cost: f32 [N, P], infinite where there is no way; never NaN.
        emission: f32 [N].

    Returns:
        new score f32 [N]; back pointer i32 [N], the predecessor taken, -1 where none is finite.
    """
    n = score.shape[0]
    require("score", score, np.float32, (n,))
    require("emission", emission, np.float32, (n,))
    require("predecessors", predecessors, np.int32, (n, None))
    require("transition_cost", transition_cost, np.float32, predecessors.shape)
    if use_native():
        return native.min_plus(score, predecessors, transition_cost, emission)
    return reference.min_plus(score, predecessors, transition_cost, emission)


def trace_back(backs: list[I32], states: I32) -> I32:
    """Ancestor i32 [S] of each of `states` (i32 [S]) through back pointers, newest first."""
    require("states", states, np.int32, (None,))
    if use_native():
        return native.trace_back(backs, states)
    return reference.trace_back(backs, states)


def feature_distance(features: F32, wanted: F32, base: F32) -> F32:
    """base[n] + sum over k of (features[k, n] - wanted[k])^2.

    Args:
        features: f32 [K, N], feature-major, already scaled by the square roots of the weights.
        wanted: f32 [K], scaled alike.
        base: f32 [N], what each state costs anyway; infinite forbids it.
    """
    require("features", features, np.float32, (None, None))
    k, n = features.shape
    require("wanted", wanted, np.float32, (k,))
    require("base", base, np.float32, (n,))
    if not np.isfinite(wanted).all():
        raise UsageError("wanted has a value that is not finite; expected numbers")
    if use_native():
        return native.feature_distance(features, wanted, base)
    return reference.feature_distance(features, wanted, base)
