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
from lipstream.engine.footage import (
    Footage,
    FootageCosts,
    footage_transitions,
    playable,
    relative_speed,
)
from lipstream.engine.types import F32, Expression, MatchedFrame
from lipstream.engine.viterbi import FixedLagViterbi, LagState, Transitions, expected_cost
from lipstream.kernels.dynamic import feature_distance

__all__ = [
    "Footage",
    "FootageCosts",
    "FootageMatcher",
    "MouthSources",
    "SelectedSource",
    "SourceCosts",
    "SourceSelector",
    "sequential",
]

_MAX_SOURCES = 4096  # all pairs are compared once


def sequential(frame_index: int, frames: int) -> int:
    """Track frame of output frame `frame_index` in the footage's own order, back and forth."""
    if frames < 1 or frame_index < 0:
        raise UsageError(f"frame {frame_index} of {frames}; expected a frame of at least one")
    if frames == 1:
        return 0
    there_and_back = 2 * (frames - 1)
    return frames - 1 - abs(frames - 1 - frame_index % there_and_back)


def random_pair_cost(features: F32) -> float:
    """Unit of cost: mean squared distance of two random rows of f32 [N, F]; 1 if all are equal."""
    spread = 2 * float(features.var(axis=0, dtype=np.float64).sum())
    return spread if spread > 0 else 1.0


def moving_average(values: F32, reach: int) -> F32:
    """Mean over up to `reach` neighbours on either side, f32 [N]."""
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    positions = np.arange(len(values))
    first = np.maximum(positions - reach, 0)
    after = np.minimum(positions + reach + 1, len(values))
    mean: F32 = ((sums[after] - sums[first]) / (after - first)).astype(np.float32)
    return mean


def checked_weights(weights: F32 | None, features: int) -> F32:
    """Weights f32 [K] as given, or ones."""
    if weights is None:
        return np.ones(features, np.float32)
    if weights.shape != (features,) or not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise UsageError(f"weights are {weights}; expected {features} numbers of 0 or more")
    return weights


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
        calm = moving_average(relative_speed(footage, self.costs), self.costs.calm_frames)
        self._motion = (self.costs.silent_motion * calm).astype(np.float32)
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

    def _settled(self, silent_frames: int) -> np.float32:
        """How much of the charge on motion applies, 0 to 1."""
        return np.float32(min(silent_frames / (self.costs.settle_frames + 1), 1))

    def init(self, previous: int | None = None, first_frame: int = 0) -> FootageState:
        """State before output frame `first_frame`; with `previous`, as if that had been shown.

        `previous` is a track frame, played forward.
        """
        before = () if previous is None else (previous,)
        return FootageState(self._search.init(before), (), first_frame, 0)

    def step(
        self, state: FootageState, item: Expression
    ) -> tuple[list[MatchedFrame], FootageState]:
        """Consume the wanted expression of one output frame."""
        silent_frames = 0 if item.speech else state.silent_frames + 1
        row = self.emission(item, silent_frames)
        both_ways = np.concatenate([row, row])
        speaking, resting = self._to_go
        settled = self._settled(silent_frames)
        to_go = speaking if settled == 0 else speaking + settled * (resting - speaking)
        committed, search = self._search.step(state.search, both_ways, to_go)
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


@dataclass(frozen=True, slots=True)
class MouthSources:
    """The S footage frames that may lend their mouth."""

    expression: F32  # f32 [S, K]
    pose: F32  # f32 [S, Q], any units, the same as the track's
    weights: F32 | None = None  # f32 [K], of squared differences of coefficients; None: equal

    def __post_init__(self) -> None:
        """Check that the arrays belong together."""
        sources = len(self.expression)
        if self.expression.ndim != 2 or self.pose.ndim != 2 or len(self.pose) != sources:
            raise UsageError(
                f"sources have expression {self.expression.shape} and pose {self.pose.shape}; "
                "expected [S, K] and [S, Q]"
            )
        if not 0 < sources <= _MAX_SOURCES:
            raise UsageError(f"{sources} mouth sources; expected 1 to {_MAX_SOURCES}")


@dataclass(frozen=True, slots=True)
class SourceCosts:
    """Weights of the source search; 1 is the expression cost of two random sources."""

    expression: float = 1.0
    pose: float = 1.0  # times the squared pose distance over that of two random sources
    switch: float = 0.05  # any change of source: flicker
    switch_distance: float = 0.25  # times the expression cost between the two sources
    switch_anywhere: float = 0.6  # a change to a source that is no neighbour
    neighbours: int = 16

    def __post_init__(self) -> None:
        """Costs are costs."""
        if min(getattr(self, name) for name in self.__slots__) < 0:
            raise UsageError(f"{self}; expected 0 or more")


@dataclass(frozen=True, slots=True)
class SelectedSource:
    """A matched frame and the source that lends its mouth."""

    matched: MatchedFrame
    source: int  # row of the source table


@dataclass(frozen=True, slots=True)
class SourceState:
    """Where the source search stands."""

    search: LagState
    waiting: tuple[MatchedFrame, ...]


class SourceSelector:
    """Stage: `MatchedFrame` in, `SelectedSource` out, `lag_frames` later (0: at once).

    It pays for distance from the wanted expression, for distance from the background's pose, and
    for each change of source, less when the two mouths look alike.
    """

    def __init__(
        self,
        sources: MouthSources,
        track_pose: F32,
        lag_frames: int = 0,
        fps: Fraction = Fraction(25),
        costs: SourceCosts | None = None,
    ) -> None:
        """`track_pose`: f32 [N, Q], of every frame that may be a background."""
        costs = costs or SourceCosts()
        if track_pose.ndim != 2 or track_pose.shape[1] != sources.pose.shape[1]:
            raise UsageError(
                f"track pose is {track_pose.shape}; expected [N, {sources.pose.shape[1]}]"
            )
        weights = checked_weights(sources.weights, sources.expression.shape[1])
        weighted = sources.expression * np.sqrt(weights)
        unit = costs.expression / random_pair_cost(weighted)
        pose_scale = np.float32(np.sqrt(costs.pose / random_pair_cost(sources.pose)))
        self._expression_scale = np.sqrt(weights * np.float32(unit)).astype(np.float32)
        self._track_pose = (track_pose * pose_scale).astype(np.float32)  # f32 [N, Q]
        shapes, poses = sources.expression * self._expression_scale, sources.pose * pose_scale
        self._features = np.ascontiguousarray(
            np.concatenate([shapes, poses], axis=1).T, np.float32
        )  # f32 [K + Q, S]
        self._free = np.zeros(len(weighted), np.float32)
        self._search = FixedLagViterbi(_source_transitions(weighted, costs), lag_frames, fps)

    @property
    def lag_samples(self) -> int:
        """The lag in samples at 16 kHz."""
        return self._search.lag_samples

    def emission(self, matched: MatchedFrame) -> F32:
        """Cost f32 [S] of each source."""
        wanted = np.concatenate(
            [
                matched.expression.coefficients * self._expression_scale,
                self._track_pose[matched.background],
            ]
        )
        return feature_distance(self._features, wanted, self._free)

    def init(self) -> SourceState:
        """State before the first frame."""
        return SourceState(self._search.init(), ())

    def step(
        self, state: SourceState, item: MatchedFrame
    ) -> tuple[list[SelectedSource], SourceState]:
        """Consume one matched frame."""
        chosen, search = self._search.step(state.search, self.emission(item))
        waiting = (*state.waiting, item)
        outputs = [SelectedSource(m, s) for m, s in zip(waiting, chosen, strict=False)]
        return outputs, SourceState(search, waiting[len(outputs) :])

    def flush(self, state: SourceState) -> list[SelectedSource]:
        """The frames still held."""
        chosen = self._search.flush(state.search)
        return [SelectedSource(m, s) for m, s in zip(state.waiting, chosen, strict=True)]


def _source_transitions(expression: F32, costs: SourceCosts) -> Transitions:
    """Stay, or go to one of the nearest in expression, or at a flat cost to any other."""
    sources = len(expression)
    squares = (expression.astype(np.float64) ** 2).sum(axis=1)
    distance = squares[:, None] + squares - 2 * (expression.astype(np.float64) @ expression.T)
    distance = np.maximum(distance, 0) / random_pair_cost(expression)
    np.fill_diagonal(distance, -1)  # itself first
    near = np.argsort(distance, axis=1, kind="stable")[:, : costs.neighbours + 1]
    cost = costs.switch + costs.switch_distance * np.take_along_axis(distance, near, axis=1)
    cost[:, 0] = 0
    return Transitions(
        near.astype(np.int32),
        cost.astype(np.float32),
        costs.switch_anywhere if sources > 1 else np.inf,
    )
