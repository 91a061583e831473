"""The step of a Viterbi search and its emission: what the frame matcher runs per frame."""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from lipstream.kernels import native
from lipstream.kernels.checks import require
from lipstream.kernels.dispatch import kernel
from lipstream.kernels.errors import UsageError
from lipstream.kernels.reference import viterbi as reference

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]

# Multiply-adds or so, 20 to 50 us: up to here a call keeps the interpreter's lock.
_BRIEF = 40_000


def min_plus(score: F32, predecessors: I32, transition_cost: F32, emission: F32) -> tuple[F32, I32]:
    """One step of Viterbi in pull form; ties go to the lowest slot.

    new[n] = emission[n] + min over p of (score[predecessors[n, p]] + transition_cost[n, p])

    Args:
        score: f32 [N], infinite where dead.
        predecessors: i32 [N, P]; every entry in 0..N-1. The table never changes and reading it once
            more costs a tenth of the step, so `engine.retrieval.viterbi.Transitions` checks its
            entries when it is made, and they are not checked here. Pad with any state and an
            infinite cost.
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
    return relax(score, predecessors, transition_cost, emission)


def trace_back(backs: list[I32], states: I32) -> I32:
    """Ancestor i32 [S] of each of `states` (i32 [S]) through back pointers, newest first.

    backs: i32 [N] each. A state of -1 stays -1.

    Raises:
        UsageError: lengths that differ, or a state or back pointer that is neither -1 nor a state.
    """
    require("states", states, np.int32, (None,))
    for back in backs:
        if back.shape != backs[0].shape or back.dtype != np.int32:
            require("back pointers", back, np.int32, (len(backs[0]),))
    return ancestors(backs, states)


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
    return distance(features, wanted, base)


@kernel(reference.min_plus)
def relax(score: F32, predecessors: I32, transition_cost: F32, emission: F32) -> tuple[F32, I32]:
    """`min_plus` without its checks."""
    score, emission = np.ascontiguousarray(score), np.ascontiguousarray(emission)
    predecessors = np.ascontiguousarray(predecessors)
    transition_cost = np.ascontiguousarray(transition_cost)
    states, slots = predecessors.shape
    best, back = native.empty(states, np.float32), native.empty(states, np.int32)
    library = native.library()
    step = library.ls_min_plus_brief if states * slots <= _BRIEF else library.ls_min_plus
    step(states, slots, score, predecessors, transition_cost, emission, best, back)
    return best, back


@kernel(reference.trace_back)
def ancestors(backs: list[I32], states: I32) -> I32:
    """`trace_back` without its checks of shapes."""
    states = np.ascontiguousarray(states)
    rows = [np.ascontiguousarray(back) for back in backs]  # held until the call returns
    pointers = (ctypes.c_void_p * max(len(rows), 1))(*map(native.address, rows))
    out = native.empty(states.shape, np.int32)
    size = rows[0].size if rows else 2**31 - 1
    if native.library().ls_trace_back(size, len(rows), pointers, len(states), states, out):
        raise UsageError(f"a state or back pointer is outside -1..{size - 1}")
    return out


@kernel(reference.feature_distance)
def distance(features: F32, wanted: F32, base: F32) -> F32:
    """`feature_distance` without its checks."""
    features, wanted = np.ascontiguousarray(features), np.ascontiguousarray(wanted)
    base = np.ascontiguousarray(base)
    total = native.empty(base.shape, np.float32)
    k, n = features.shape
    library = native.library()
    add = library.ls_feature_distance_brief if k * n <= _BRIEF else library.ls_feature_distance
    add(n, k, features, wanted, base, total)
    return total
