"""The motion graph of a target's footage: which frame may follow which, and at what cost.

Costs are in one unit: 1 is the mean expression cost between two random frames of the track.
Source: ours; jumps follow *Video Textures* (SIGGRAPH 2000).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.errors import UsageError
from lipstream.engine.retrieval.viterbi import Transitions
from lipstream.engine.types import F32, I32, Conduct

_INCOMING = 17  # jumps kept into each frame, the cheapest: with 3 neighbours, 20 ways in


@dataclass(frozen=True, slots=True)
class BackgroundFootage:
    """What the matcher reads of a target's N footage frames."""

    expression: F32  # f32 [N, K]
    head_speed: F32  # f32 [N], inter-ocular distances per second
    rejected: NDArray[np.bool_]  # bool [N], frames never to be shown
    jumps: I32  # i32 [N, M], frames that may follow frame n besides its neighbours; -1 for none
    jump_cost: F32  # f32 [N, M], 1 is plainly visible
    conduct: Conduct | None = None  # of a photo's loop

    def __post_init__(self) -> None:
        """Check that the arrays belong together."""
        n = len(self.expression)
        sound = (
            self.expression.ndim == 2
            and n > 0
            and self.head_speed.shape == (n,)
            and self.rejected.shape == (n,)
            and self.jumps.ndim == 2
            and len(self.jumps) == n
            and self.jump_cost.shape == self.jumps.shape
            and (self.conduct is None or self.conduct.speaking.shape == (n,))
        )
        if not sound:
            raise UsageError(
                f"footage arrays are {self.expression.shape}, {self.head_speed.shape}, "
                f"{self.rejected.shape}, {self.jumps.shape}, {self.jump_cost.shape}; "
                "expected [N, K], [N], [N], [N, M], [N, M] with N > 0"
            )
        if self.rejected.all():
            raise UsageError(f"all {n} frames are rejected; expected at least one to show")
        shown = ~self.rejected
        if not (
            np.isfinite(self.expression[shown]).all() and np.isfinite(self.head_speed[shown]).all()
        ):
            raise UsageError(
                "expression or head speed is not finite in a frame that is not rejected"
            )


@dataclass(frozen=True, slots=True)
class MotionCosts:
    """Weights of the background search, in units of a random frame's expression cost.

    Tuned on the footage of three speakers (docs/retrieval.md). The mouth is replaced in any case,
    so smooth play counts far more than a matching mouth, and a trembling head is worse than any
    mismatch.
    """

    expression: float = 0.1
    silent_motion: float = 2.0  # per frame shown in silence, at `fast_head` speed
    rest_frames: int = 12  # before and after, over which speed is averaged for `silent_motion`
    fast_head: float = 0.8  # inter-ocular distances per second: the fastest tenth of speech
    shortest_run_frames: int = 25  # usable frames in a row; shorter runs are not shown
    settle_frames: int = 6  # of silence until `silent_motion` counts in full
    backward: float = 0.02  # each frame played backward
    turn: float = 4.0  # changing the direction of play
    repeat: float = 5.0  # showing a frame again
    unsteady: float = 2.0  # added to both at `fast_head` speed: a moving head does not stop at once
    jump: float = 4.0  # times the jump's own cost
    any_jump: float = 3.0  # added for each
    conduct: float = 0.25  # each frame of listening in speech, and of speaking in silence
    cue: float = 2.5  # at a cue, a frame in which no gesture begins
    again: float = 1.0  # a frame that was shown just before
    discount: float = 0.97  # per frame, of the expected cost after the lag: about 1.3 s count

    def __post_init__(self) -> None:
        """Check the range of each."""
        if min(getattr(self, name) for name in self.__slots__) < 0 or not self.fast_head > 0:
            raise UsageError(f"{self}; expected costs of 0 or more and fast_head above 0")
        if self.discount >= 1:
            raise UsageError(f"discount is {self.discount}; expected less than 1")


# All frames of a photo's loop are of one picture, so a jump is hardly seen. Nothing need play
# backward, and the listening part is calm as it is.
PHOTO_COSTS: Final = MotionCosts(silent_motion=0, settle_frames=15, backward=0.3, any_jump=1.5)


def checked_weights(weights: F32 | None, features: int) -> F32:
    """Weights f32 [K] as given, or ones."""
    if weights is None:
        return np.ones(features, np.float32)
    if weights.shape != (features,) or not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise UsageError(f"weights are {weights}; expected {features} numbers of 0 or more")
    return weights


def relative_speed(footage: BackgroundFootage, costs: MotionCosts) -> F32:
    """Head speed f32 [N] over `fast_head`, at most 1; 0 where it is not known."""
    known = np.nan_to_num(footage.head_speed, nan=0, posinf=0)
    relative: F32 = np.minimum(known / np.float32(costs.fast_head), 1).astype(np.float32)
    return relative


def playable(rejected: NDArray[np.bool_], shortest_run_frames: int) -> NDArray[np.bool_]:
    """Frames bool [N] in runs long enough to play; the longest runs where all are short.

    In a short run between two rejected frames, play could only alternate.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[True], rejected, [True]]).astype(np.int8)))
    first, after = edges[::2], edges[1::2]
    length = after - first
    kept = length >= min(shortest_run_frames, int(length.max()))
    allowed = np.zeros(len(rejected), bool)
    for begin, end in zip(first[kept], after[kept], strict=True):
        allowed[begin:end] = True
    return allowed


def motion_transitions(footage: BackgroundFootage, costs: MotionCosts) -> Transitions:
    """Graph over 2 N states: frame n played forward is state n, played backward state N + n.

    The direction is part of the state; otherwise the cheapest way to stay in one place is to
    alternate between two frames. A forward jump i -> j is cheap because j resembles i + 1, so
    j -> i costs the same backward. Every frame has a successor: it can be repeated, and play can
    turn.
    """
    n = len(footage.expression)
    frames = np.arange(n, dtype=np.int32)
    speed = relative_speed(footage, costs)
    unsteady = (costs.unsteady * speed).astype(np.float32)
    predecessors = np.repeat(np.arange(2 * n, dtype=np.int32)[:, None], 3 + _INCOMING, axis=1)
    cost = np.full(predecessors.shape, np.inf, np.float32)
    ahead, back = predecessors[:n], predecessors[n:]
    ahead_cost, back_cost = cost[:n], cost[n:]
    ahead[1:, 0], ahead_cost[1:, 0] = frames[:-1], 0
    ahead[1:, 1], ahead_cost[1:, 1] = n + frames[:-1], costs.turn + unsteady[:-1]
    back[:-1, 0], back_cost[:-1, 0] = n + frames[1:], costs.backward
    back[:-1, 1], back_cost[:-1, 1] = frames[1:], costs.turn + unsteady[1:]
    cost[:, 2] = costs.repeat + np.tile(unsteady, 2)

    price = costs.any_jump + costs.jump * footage.jump_cost
    origin = np.repeat(frames, footage.jumps.shape[1])
    target, price = footage.jumps.ravel(), price.astype(np.float32).ravel()
    usable = (target >= 0) & np.isfinite(price)
    usable &= np.abs(target - origin) > 1  # a jump to a neighbour would undercut a repeat
    if usable.any():
        if target.max() >= n:
            raise UsageError(f"a jump leads to frame {target.max()}; the footage has {n}")
        origin, target, price = origin[usable], target[usable], price[usable]
        _add_jumps(ahead, ahead_cost, (origin, target, price))
        _add_jumps(back, back_cost, (n + target, origin, price + np.float32(costs.backward)))
    return Transitions(predecessors, cost)


def _add_jumps(predecessors: I32, cost: F32, jumps: tuple[I32, I32, F32]) -> None:
    """Write jumps (origin state, row, price) into the rows' free slots, the cheapest first."""
    origin, target, price = jumps
    order = np.lexsort((origin, price, target))
    origin, target, price = origin[order], target[order], price[order]
    rank = np.arange(len(target)) - np.searchsorted(target, target)  # among those into one row
    kept = rank < _INCOMING
    predecessors[target[kept], 3 + rank[kept]] = origin[kept]
    cost[target[kept], 3 + rank[kept]] = price[kept]
