"""Stage: which footage frame to show behind the mouth, so that the head moves as the words do.

The footage plays forward or back and forth, and jumps where a jump is least visible: a fixed-lag
search over its motion graph.

Costs are in one unit: 1 is the mean expression cost between two random frames of the track.

Source: ours. The cost of head motion in silence follows the re-timing of *Synthesizing Obama*
(SIGGRAPH 2017); the jumps follow *Video Textures* (SIGGRAPH 2000). The cost terms of the paper
(arXiv 2001.05201) were not available.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from lipstream.engine.frozen import Frozen
from lipstream.engine.profiling import span
from lipstream.engine.retrieval.conduct import ConductCost, CueState
from lipstream.engine.retrieval.motion_graph import (
    PHOTO_COSTS,
    BackgroundFootage,
    MotionCosts,
    checked_weights,
    motion_transitions,
    playable,
    relative_speed,
)
from lipstream.engine.retrieval.viterbi import FixedLagViterbi, LagState, Transitions, expected_cost
from lipstream.engine.target.bundle import Target
from lipstream.engine.target.similarity import random_pair_cost
from lipstream.engine.types import F32, Expression, MatchedFrame
from lipstream.kernels.viterbi import feature_distance


def moving_average(values: F32, radius: int) -> F32:
    """Mean over up to `radius` neighbours on either side, f32 [N]."""
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    positions = np.arange(len(values))
    first = np.maximum(positions - radius, 0)
    after = np.minimum(positions + radius + 1, len(values))
    mean: F32 = ((sums[after] - sums[first]) / (after - first)).astype(np.float32)
    return mean


@dataclass(frozen=True, slots=True)
class MatcherState:
    """What the matcher remembers."""

    search: LagState
    waiting: tuple[Expression, ...]  # wanted expressions of the frames not committed yet
    next_frame: int  # index of the next output frame to commit
    silent_frames: int  # since the last speech
    cues: CueState = CueState()


class BackgroundMatcher(Frozen):
    """Wanted expression per output frame in, `MatchedFrame` out, `lag_frames` later."""

    def __init__(
        self,
        footage: BackgroundFootage,
        lag_frames: int,
        fps: Fraction = Fraction(25),
        weights: F32 | None = None,
        costs: MotionCosts | None = None,
    ) -> None:
        """`weights`: f32 [K], of the squared differences of coefficients; all equal if None."""
        self.costs = costs or MotionCosts()
        self._search = FixedLagViterbi(motion_transitions(footage, self.costs), lag_frames, fps)
        weights = checked_weights(weights, footage.expression.shape[1])
        shown = playable(footage.rejected, self.costs.shortest_run_frames)
        scaled = footage.expression[shown] * np.sqrt(weights)
        unit = self.costs.expression / random_pair_cost(scaled)
        self._scale = np.sqrt(weights * np.float32(unit)).astype(np.float32)
        known = np.where(shown[:, None], footage.expression, 0) * self._scale
        self._features = np.ascontiguousarray(known.T, np.float32)  # f32 [K, N]
        self._allowed = np.where(shown, 0, np.inf).astype(np.float32)
        # The speed around a frame counts, not its own: a short lag does not reach that far.
        speed = moving_average(relative_speed(footage, self.costs), self.costs.rest_frames)
        self._motion = (self.costs.silent_motion * speed).astype(np.float32)
        self._conduct = ConductCost(footage.conduct, self.costs) if footage.conduct else None
        # Without the cost of what follows, a short lag runs into the end of the footage, and never
        # reaches a place where the head rests.
        talking, resting = self._allowed, self._allowed + self._motion
        if self._conduct:
            talking = talking + self._conduct.listening
            resting = resting + self._conduct.speaking
        self._to_go = tuple(
            np.nan_to_num(  # infinite for a frame never shown; its emission forbids it already
                expected_cost(self.transitions, np.concatenate([row, row]), self.costs.discount),
                posinf=0,
            )
            for row in (talking, resting)
        )

    @property
    def lag_samples(self) -> int:
        """The lag in samples at 16 kHz."""
        return self._search.lag_samples

    @property
    def transitions(self) -> Transitions:
        """The motion graph, from `motion_transitions`."""
        return self._search.transitions

    def emission(self, wanted: Expression, silent_frames: int) -> F32:
        """Cost f32 [N] of each track frame, for a wanted expression."""
        base = self._allowed
        if silent_frames:
            base = base + self._motion * self._rest_weight(silent_frames)
        return feature_distance(self._features, wanted.coefficients * self._scale, base)

    def to_go(self, silent_frames: int) -> F32:
        """Expected cost f32 [2 N] of what follows each state, if speech or silence goes on."""
        speaking, resting = self._to_go
        if not silent_frames:
            return speaking
        guide: F32 = speaking + self._rest_weight(silent_frames) * (resting - speaking)
        return guide

    def _rest_weight(self, silent_frames: int) -> np.float32:
        """Weight of the cost of motion, 0 to 1."""
        return np.float32(min(silent_frames / (self.costs.settle_frames + 1), 1))

    def init(self, previous: int | None = None, first_frame: int = 0) -> MatcherState:
        """State before output frame `first_frame`; with `previous`, as after that frame.

        `previous` is a track frame, played forward.
        """
        before = () if previous is None else (previous,)
        return MatcherState(self._search.init(before), (), first_frame, 0)

    @span("matcher")
    def step(
        self, state: MatcherState, item: Expression
    ) -> tuple[list[MatchedFrame], MatcherState]:
        """Consume the wanted expression of one output frame."""
        silent_frames = 0 if item.speech else state.silent_frames + 1
        row, cues = self.emission(item, silent_frames), state.cues
        if self._conduct:
            held = len(state.waiting)
            conduct, cues = self._conduct.step(cues, item, state.next_frame + held, held)
            row = row + conduct
        both_ways = np.concatenate([row, row])
        committed, search = self._search.step(state.search, both_ways, self.to_go(silent_frames))
        waiting = (*state.waiting, item)
        outputs = self._matched(committed, waiting, state.next_frame)
        done = len(outputs)
        next_frame = state.next_frame + done
        if self._conduct:
            cues = self._conduct.shown(cues, [o.background for o in outputs], next_frame - 1)
        return outputs, MatcherState(search, waiting[done:], next_frame, silent_frames, cues)

    def changed(
        self, state: MatcherState, change: Callable[[Expression], Expression]
    ) -> MatcherState:
        """The state with the waiting expressions changed; the search goes on as it stands."""
        return replace(state, waiting=tuple(change(e) for e in state.waiting))

    def flush(self, state: MatcherState) -> list[MatchedFrame]:
        """The frames still held."""
        return self._matched(self._search.flush(state.search), state.waiting, state.next_frame)

    def _matched(
        self, states: list[int], wanted: tuple[Expression, ...], first_frame: int
    ) -> list[MatchedFrame]:
        frames = len(self._allowed)
        return [
            MatchedFrame(first_frame + i, state % frames, expression)
            for i, (state, expression) in enumerate(zip(states, wanted, strict=False))
        ]


def matcher_of(target: Target, lag_frames: int, weights: F32) -> BackgroundMatcher:
    """The matcher over a target's footage. weights: of the coefficients, f32 [K]."""
    track = target.track
    footage = BackgroundFootage(
        track.expression, track.head_speed, ~track.usable, *target.jumps, target.conduct
    )
    costs = PHOTO_COSTS if target.conduct else None
    return BackgroundMatcher(footage, lag_frames, target.fps, weights, costs)
