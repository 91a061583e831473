"""Which footage frame lends its mouth: near in expression and in pose, without flicker.

The same fixed-lag search as for the footage, with other costs. Source: ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from lipstream.engine.errors import UsageError
from lipstream.engine.footage import random_pair_cost
from lipstream.engine.timing import stage
from lipstream.engine.types import F32, MatchedFrame
from lipstream.engine.viterbi import FixedLagViterbi, LagState, Transitions
from lipstream.kernels.dynamic import feature_distance

_MAX_SOURCES = 4096  # all pairs are compared once


@dataclass(frozen=True, slots=True)
class MouthSources:
    """The S footage frames that may lend their mouth."""

    expression: F32  # f32 [S, K]
    pose: F32  # f32 [S, Q], any units, the same as the track's
    forms: F32 | None = None  # f32 [F, K], linear readings of an expression whose squared
    # differences count, such as the lips' opening; None: every coefficient alike

    def __post_init__(self) -> None:
        """Check that the arrays belong together."""
        sources = len(self.expression)
        if self.expression.ndim != 2 or self.pose.ndim != 2 or len(self.pose) != sources:
            raise UsageError(
                f"sources have expression {self.expression.shape} and pose {self.pose.shape}; "
                "expected [S, K] and [S, Q]"
            )
        size = self.expression.shape[1]
        if self.forms is not None and (
            self.forms.ndim != 2 or self.forms.shape[1] != size or not np.isfinite(self.forms).all()
        ):
            raise UsageError(f"forms are {self.forms.shape}; expected [F, {size}], all finite")
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
        size = sources.expression.shape[1]
        forms = np.eye(size, dtype=np.float32) if sources.forms is None else sources.forms
        read = sources.expression @ forms.T
        unit = np.sqrt(costs.expression / random_pair_cost(read))
        pose_scale = np.float32(np.sqrt(costs.pose / random_pair_cost(sources.pose)))
        self._forms = (forms * np.float32(unit)).astype(np.float32)  # f32 [F, K]
        self._track_pose = (track_pose * pose_scale).astype(np.float32)  # f32 [N, Q]
        shapes, poses = sources.expression @ self._forms.T, sources.pose * pose_scale
        self._features = np.ascontiguousarray(
            np.concatenate([shapes, poses], axis=1).T, np.float32
        )  # f32 [F + Q, S]
        self._free = np.zeros(len(read), np.float32)
        self.search = FixedLagViterbi(_source_transitions(read, costs), lag_frames, fps)

    @property
    def lag_samples(self) -> int:
        """The lag in samples at 16 kHz."""
        return self.search.lag_samples

    def emission(self, matched: MatchedFrame) -> F32:
        """Cost f32 [S] of each source."""
        wanted = np.concatenate(
            [
                self._forms @ matched.expression.coefficients,
                self._track_pose[matched.background],
            ]
        )
        return feature_distance(self._features, wanted, self._free)

    def init(self) -> SourceState:
        """State before the first frame."""
        return SourceState(self.search.init(), ())

    @stage("sources")
    def step(
        self, state: SourceState, item: MatchedFrame
    ) -> tuple[list[SelectedSource], SourceState]:
        """Consume one matched frame."""
        chosen, search = self.search.step(state.search, self.emission(item))
        waiting = (*state.waiting, item)
        outputs = [SelectedSource(m, s) for m, s in zip(waiting, chosen, strict=False)]
        return outputs, SourceState(search, waiting[len(outputs) :])

    def flush(self, state: SourceState) -> list[SelectedSource]:
        """The frames still held."""
        chosen = self.search.flush(state.search)
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
