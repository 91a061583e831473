"""Which real frame to show: footage in the order that fits the speech, and mouths to borrow.

`FootageMatcher` walks the target's footage so that the head moves as the words do; footage plays
forward, or back and forth, or jumps where a jump is not seen. `SourceSelector` picks, for each
frame, the footage frame whose mouth is nearest to the wanted one. Both are a fixed-lag search.

Costs are in one unit: 1 is the mean expression cost between two random frames of the track.

Source: ours. The charge on head motion in silence follows the re-timing of *Synthesizing Obama*
(SIGGRAPH 2017); the jumps follow *Video Textures* (SIGGRAPH 2000). The cost terms of the paper
(arXiv 2001.05201) were not available.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from lipstream.engine.errors import UsageError
from lipstream.engine.profiling import span
from lipstream.engine.retrieval.motion_graph import (
    Footage,
    FootageCosts,
    checked_weights,
    footage_transitions,
    playable,
    relative_speed,
)
from lipstream.engine.retrieval.source_selector import (
    MouthSources,
    SelectedSource,
    SourceCosts,
    SourceSelector,
    SourceState,
)
from lipstream.engine.retrieval.viterbi import FixedLagViterbi, LagState, Transitions, expected_cost
from lipstream.engine.target.similarity_unit import random_pair_cost
from lipstream.engine.types import F32, Expression, MatchedFrame
from lipstream.kernels.viterbi import feature_distance

__all__ = [
    "Footage",
    "FootageCosts",
    "FootageMatcher",
    "FootageState",
    "MouthSources",
    "SelectedSource",
    "SourceCosts",
    "SourceSelector",
    "SourceState",
    "sequential",
]


def sequential(frame_index: int, frames: int) -> int:
    """Track frame of output frame `frame_index` in the footage's own order, back and forth."""
    if frames < 1 or frame_index < 0:
        raise UsageError(f"frame {frame_index} of {frames}; expected a frame of at least one")
    if frames == 1:
        return 0
    there_and_back = 2 * (frames - 1)
    return frames - 1 - abs(frames - 1 - frame_index % there_and_back)


def moving_average(values: F32, reach: int) -> F32:
    """Mean over up to `reach` neighbours on either side, f32 [N]."""
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    positions = np.arange(len(values))
    first = np.maximum(positions - reach, 0)
    after = np.minimum(positions + reach + 1, len(values))
    mean: F32 = ((sums[after] - sums[first]) / (after - first)).astype(np.float32)
    return mean


@dataclass(frozen=True, slots=True)
class FootageState:
    """Where the walk through the footage stands."""

    search: LagState
    waiting: tuple[Expression, ...]  # wanted expressions of the frames not committed yet
    next_frame: int  # index of the next output frame to commit
    silent_frames: int  # since speech was last heard


class FootageMatcher:
    """Stage: wanted expression per output frame in, `MatchedFrame` out, `lag_frames` later."""

    def __init__(
        self,
        footage: Footage,
        lag_frames: int,
        fps: Fraction = Fraction(25),
        weights: F32 | None = None,
        costs: FootageCosts | None = None,
    ) -> None:
        """`weights`: f32 [K], of the squared differences of coefficients; all equal if None."""
        self.costs = costs or FootageCosts()
        self._search = FixedLagViterbi(footage_transitions(footage, self.costs), lag_frames, fps)
        weights = checked_weights(weights, footage.expression.shape[1])
        shown = playable(footage.rejected, self.costs.shortest_run_frames)
        scaled = footage.expression[shown] * np.sqrt(weights)
        unit = self.costs.expression / random_pair_cost(scaled)
        self._scale = np.sqrt(weights * np.float32(unit)).astype(np.float32)
        known = np.where(shown[:, None], footage.expression, 0) * self._scale
        self._features = np.ascontiguousarray(known.T, np.float32)  # f32 [K, N]
        self._allowed = np.where(shown, 0, np.inf).astype(np.float32)
        # A frame is calm when its surroundings are: a short lag cannot see that far by itself.
        rest = moving_average(relative_speed(footage, self.costs), self.costs.calm_frames)
        self._motion = (self.costs.silent_motion * rest).astype(np.float32)
        # Where does the footage lead? A short lag would run into its end, and never to rest.
        rest = self._allowed + self._motion
        self._to_go = tuple(
            np.nan_to_num(  # a frame never shown leads nowhere; its emission forbids it already
                expected_cost(self.transitions, np.concatenate([row, row]), self.costs.discount),
                posinf=0,
            )
            for row in (self._allowed, rest)
        )

    @property
    def lag_samples(self) -> int:
        """The lag in samples at 16 kHz."""
        return self._search.lag_samples

    @property
    def transitions(self) -> Transitions:
        """The graph that is walked: `footage_transitions`."""
        return self._search.transitions

    def emission(self, wanted: Expression, silent_frames: int) -> F32:
        """Cost f32 [N] of each track frame, for a wanted expression."""
        base = self._allowed
        if silent_frames:
            base = base + self._motion * self._settled(silent_frames)
        return feature_distance(self._features, wanted.coefficients * self._scale, base)

    def to_go(self, silent_frames: int) -> F32:
        """Expected cost f32 [2 N] of what follows each state, if things stay as they are."""
        speaking, resting = self._to_go
        if not silent_frames:
            return speaking
        guide: F32 = speaking + self._settled(silent_frames) * (resting - speaking)
        return guide

    def _settled(self, silent_frames: int) -> np.float32:
        """How much of the charge on motion applies, 0 to 1."""
        return np.float32(min(silent_frames / (self.costs.settle_frames + 1), 1))

    def init(self, previous: int | None = None, first_frame: int = 0) -> FootageState:
        """State before output frame `first_frame`; with `previous`, as if that had been shown.

        `previous` is a track frame, played forward.
        """
        before = () if previous is None else (previous,)
        return FootageState(self._search.init(before), (), first_frame, 0)

    @span("matcher")
    def step(
        self, state: FootageState, item: Expression
    ) -> tuple[list[MatchedFrame], FootageState]:
        """Consume the wanted expression of one output frame."""
        silent_frames = 0 if item.speech else state.silent_frames + 1
        row = self.emission(item, silent_frames)
        both_ways = np.concatenate([row, row])
        committed, search = self._search.step(state.search, both_ways, self.to_go(silent_frames))
        waiting = (*state.waiting, item)
        outputs = self._matched(committed, waiting, state.next_frame)
        done = len(outputs)
        return outputs, FootageState(search, waiting[done:], state.next_frame + done, silent_frames)

    def flush(self, state: FootageState) -> list[MatchedFrame]:
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
