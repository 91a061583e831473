"""Least-cost paths through a graph of states, whole or with a fixed lag.

A path visits one state per frame; it pays each state's emission cost at its frame and each
transition's cost. Costs are f32; the running score is shifted to a least value of 0 at every
frame, so that its precision does not decay in a long session. Ties go to the transition listed
first, and at the end to the lowest state.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np

from lipstream.engine.errors import UsageError
from lipstream.engine.frozen import Frozen
from lipstream.engine.timebase import frame_sample
from lipstream.engine.types import F32, I32
from lipstream.kernels.viterbi import min_plus, trace_back


@dataclass(frozen=True, slots=True)
class Transitions:
    """The transitions into each state, and their costs.

    Raises:
        UsageError: shapes that disagree, a predecessor that is no state, a cost that is negative
            or NaN.
    """

    predecessors: I32  # i32 [N, P]; pad with any state at infinite cost
    cost: F32  # f32 [N, P], infinite where there is no transition
    default_cost: float = np.inf  # from any state to any other; infinite forbids it

    def __post_init__(self) -> None:
        """Check once, so that the kernel need not."""
        table, cost = self.predecessors, self.cost
        if table.ndim != 2 or 0 in table.shape or table.dtype != np.int32:
            raise UsageError(f"predecessors is {table.dtype} {table.shape}; expected i32 [N, P]")
        if cost.shape != table.shape or cost.dtype != np.float32:
            raise UsageError(
                f"transition cost is {cost.dtype} {cost.shape}; expected f32 {table.shape}"
            )
        if table.min() < 0 or table.max() >= len(table):
            raise UsageError(
                f"predecessors span {table.min()}..{table.max()}; expected 0..{len(table) - 1}"
            )
        if not ((cost >= 0).all() and self.default_cost >= 0):  # also false for NaN
            raise UsageError("a transition cost is negative or NaN; expected 0 or more")

    @property
    def states(self) -> int:
        """N."""
        return len(self.predecessors)

    def cost_between(self, previous: int, state: int) -> float:
        """Cost of the cheapest transition from `previous` to `state`; infinite if there is none."""
        costs = self.cost[state][self.predecessors[state] == previous]
        return float(min(costs.min(initial=np.inf), self.default_cost))

    def advance(self, score: F32, emission: F32) -> tuple[F32, I32]:
        """One frame on: score f32 [N] with a least value of 0, back pointers i32 [N].

        Raises:
            UsageError: no state can be reached at finite cost.
        """
        after, back = min_plus(score, self.predecessors, self.cost, emission)
        if self.default_cost < np.inf:
            origin = score.argmin()
            direct = emission + (score[origin] + np.float32(self.default_cost))
            better = direct < after
            after[better] = direct[better]
            back[better] = origin
        return _from_zero(after), back


def _from_zero(score: F32) -> F32:
    """The same array, shifted in place so that its least value is 0."""
    least = score.min()
    if not least < np.inf:
        raise UsageError("no state has a finite cost; expected at least one that is allowed")
    score -= least
    return score


def _check_emission(transitions: Transitions, emission: F32) -> None:
    if emission.shape != (transitions.states,) or emission.dtype != np.float32:
        raise UsageError(
            f"emission is {emission.dtype} {emission.shape}; expected f32 ({transitions.states},)"
        )


def viterbi(transitions: Transitions, emissions: Iterable[F32]) -> I32:
    """The least-cost path over a whole clip.

    Args:
        transitions: over N states.
        emissions: T rows f32 [N].

    Returns:
        i32 [T], the state at each frame.
    """
    score: F32 | None = None
    backs: list[I32] = []
    for emission in emissions:
        _check_emission(transitions, emission)
        if score is None:
            score = _from_zero(emission.copy())
        else:
            score, back = transitions.advance(score, emission)
            backs.append(back)
    if score is None:
        return np.empty(0, np.int32)
    return np.array(_path(backs, int(score.argmin())), np.int32)


def _path(backs: Iterable[I32], last: int) -> list[int]:
    """States from the first frame to `last`, through back pointers that begin at frame 1."""
    states = [last]
    for back in reversed(tuple(backs)):
        states.append(int(back[states[-1]]))
    return states[::-1]


# Frames held from which it pays to look for those that all paths agree on: a long trace then serves
# many frames, and with fewer a trace is as short as the look.
_LONG_FRAMES: Final = 50


@dataclass(frozen=True, slots=True)
class LagState:
    """What the fixed-lag search remembers; its arrays are never written to again."""

    score: F32 | None  # f32 [N], before the first frame None
    backs: tuple[I32, ...]  # i32 [N] each, between the frames held, oldest first
    held_frames: int  # seen, but not committed yet
    agreed: tuple[int, ...] = ()  # states of the oldest frames held, which all paths pass


class FixedLagViterbi(Frozen):
    """Viterbi that commits frame t when frame t + lag has been seen.

    Then it keeps only the paths that pass through what was committed, so the committed states
    always form one legal path of finite cost. With lag >= clip length nothing is ever pruned
    and flush returns the offline optimum.

        concat(step(e0), step(e1), ..., flush())  is one path;  lag = ∞:  == viterbi(e0, e1, ...)

    Where all surviving paths agree on a frame before its lag is over, it is still put out at its
    time: the delay of the engine is constant and stated. With a long lag they agree on all but the
    newest frames, and those are found once for many frames: a frame then costs no trace.
    """

    def __init__(
        self, transitions: Transitions, lag_frames: int, fps: Fraction = Fraction(25)
    ) -> None:
        """`lag_frames` >= 0; `fps` gives the duration of a frame."""
        if lag_frames < 0:
            raise UsageError(f"lag_frames is {lag_frames}; expected 0 or more")
        self.transitions = transitions
        self.lag_frames = lag_frames
        self.fps = fps

    @property
    def lag_samples(self) -> int:
        """The lag in samples at 16 kHz."""
        return frame_sample(self.lag_frames, self.fps)

    def init(self, previous: Sequence[int] = ()) -> LagState:
        """State before the first frame; with `previous`, that frame must follow one of them."""
        if not previous:
            return LagState(None, (), 0)
        if not 0 <= min(previous) <= max(previous) < self.transitions.states:
            raise UsageError(f"previous is {previous}; expected 0..{self.transitions.states - 1}")
        return LagState(self._only(previous), (), 0)

    def step(
        self, state: LagState, item: F32, to_go: F32 | None = None
    ) -> tuple[list[int], LagState]:
        """Consume one emission row f32 [N]; commits at most one frame.

        `to_go` (f32 [N]) is the expected cost of each state after this frame. It guides the
        commitment beyond the lag, and nothing else: paths are compared by their own costs.
        """
        _check_emission(self.transitions, item)
        backs = state.backs
        if state.score is None:
            score = _from_zero(item.copy())
        else:
            score, back = self.transitions.advance(state.score, item)
            if state.held_frames:
                backs = (*backs, back)
        held, agreed = state.held_frames + 1, state.agreed
        if held <= self.lag_frames:
            return [], LagState(score, backs, held)
        if not agreed and held > _LONG_FRAMES:
            agreed = _agreed(score, backs)
        if agreed:
            return [agreed[0]], LagState(score, backs[1:], held - 1, agreed[1:])
        best = int((score if to_go is None else score + to_go).argmin())
        if not score[best] < np.inf:
            raise UsageError("to_go leaves no state; expected a finite one among those allowed")
        committed = _path(backs, best)[0]
        if not backs:
            return [committed], LagState(self._only([committed]), (), 0)
        return [committed], LagState(_descendants(score, backs, committed), backs[1:], held - 1)

    def flush(self, state: LagState) -> list[int]:
        """The frames still held, on the best path."""
        if state.score is None or not state.held_frames:
            return []
        return _path(state.backs, int(state.score.argmin()))

    def _only(self, alive: Sequence[int]) -> F32:
        score = np.full(self.transitions.states, np.inf, np.float32)
        score[list(alive)] = 0
        return score


def expected_cost(transitions: Transitions, emission: F32, discount: float) -> F32:
    """Cost of each state from the next frame on, if `emission` f32 [N] stays: f32 [N].

    The fixed point of  value[n] = discount * min over transitions out (cost + emission + value), by
    value iteration until it moves by less than 1 %. Transitions of `default_cost` are left out.

    Args:
        transitions: over N states; each can be left.
        emission: f32 [N].
        discount: per frame, below 1; 1 / (1 - discount) frames ahead matter.
    """
    slots = transitions.predecessors.shape[1]
    usable = np.isfinite(transitions.cost).ravel()
    origin = transitions.predecessors.ravel()[usable]
    target = np.repeat(np.arange(transitions.states, dtype=np.int32), slots)[usable]
    order = np.argsort(origin, kind="stable")
    origin, target = origin[order], target[order]
    cost = transitions.cost.ravel()[usable][order] + emission[target]
    left, first = np.unique(origin, return_index=True)
    value = np.zeros(transitions.states, np.float32)
    while True:
        after = np.full_like(value, np.inf)
        after[left] = np.float32(discount) * np.minimum.reduceat(cost + value[target], first)
        alive = np.isfinite(after)
        moved = np.abs(after[alive] - value[alive]).max(initial=0)
        value = after
        if moved <= 1e-2 * max(float(after[alive].max(initial=0)), 1e-6):
            return value


def _agreed(score: F32, backs: tuple[I32, ...]) -> tuple[int, ...]:
    """States of the oldest frames held, as far as all paths of finite score pass them."""
    passed = np.flatnonzero(score < np.inf)
    for position in range(len(backs) - 1, -1, -1):
        if len(passed) == 1:
            return tuple(_path(backs[: position + 1], int(passed[0])))
        before = np.zeros(len(score), bool)
        before[backs[position][passed]] = True
        passed = np.flatnonzero(before)
    return (int(passed[0]),) if len(passed) == 1 else ()


def _descendants(score: F32, backs: tuple[I32, ...], ancestor: int) -> F32:
    """`score` with every state infinite whose path does not begin at `ancestor`."""
    alive = np.flatnonzero(score < np.inf).astype(np.int32)
    kept = alive[trace_back(list(reversed(backs)), alive) == ancestor]
    pruned = np.full_like(score, np.inf)
    pruned[kept] = score[kept]
    return pruned
