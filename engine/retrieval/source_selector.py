"""Stage: which mouth source to warp onto each frame, near the wanted mouth and without flicker.

The same fixed-lag search as for the background, with other costs. Source: ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from lipstream.engine.errors import UsageError
from lipstream.engine.frozen import Frozen
from lipstream.engine.profiling import span
from lipstream.engine.retrieval.viterbi import FixedLagViterbi, LagState, Transitions
from lipstream.engine.target.appearance import Prediction
from lipstream.engine.target.similarity import random_pair_cost
from lipstream.engine.target.sources import MouthSources
from lipstream.engine.types import F32, Expression, MatchedFrame
from lipstream.kernels.viterbi import feature_distance

_MIN_GAP_RATIO = 0.7  # of the wanted gap; below it, teeth are synthesised


@dataclass(frozen=True, slots=True)
class SourceCosts:
    """Weights of the source search; 1 is the mean dissimilarity of two random sources.

    A change of source costs something, because no two sources have the same teeth and light: a
    mouth that changes at each small gain flickers.
    """

    features: float = 0.5  # times the distance of features, where textures are predicted
    texture: float = 1.0  # times the distance of predicted textures
    switch: float = 0.03  # a change to one of the nearest `neighbours`
    switch_distance: float = 0.05  # added: times the squared distance of the two sources
    switch_default: float = 0.07  # in place of both: a change to any other source
    neighbours: int = 32
    synthesis_penalty: float = 8.0  # times the squared shortfall from `_MIN_GAP_RATIO` of the gap

    def __post_init__(self) -> None:
        """Check the range of each."""
        if min(getattr(self, name) for name in self.__slots__) < 0:
            raise UsageError(f"{self}; expected 0 or more")


@dataclass(frozen=True, slots=True)
class SelectedSource:
    """A matched frame and the source of its mouth."""

    matched: MatchedFrame
    source: int  # row of the source table
    prediction: Prediction | None  # of the mouth's texture


@dataclass(frozen=True, slots=True)
class SourceState:
    """What the selector remembers."""

    search: LagState
    waiting: tuple[tuple[MatchedFrame, Prediction | None], ...]


class SourceSelector(Frozen):
    """`MatchedFrame` in, `SelectedSource` out, `lag_frames` later (0: at once).

    Costs: the distance of a source from the wanted mouth over its background, in features and in
    predicted texture; a gap that has to be synthesised; and each change of source, less when the
    two are alike.
    """

    def __init__(
        self,
        sources: MouthSources,
        lag_frames: int = 0,
        fps: Fraction = Fraction(25),
        costs: SourceCosts | None = None,
    ) -> None:
        """Lay out the search."""
        costs = SourceCosts() if costs is None else costs
        similarity, known = sources.similarity, sources.appearance
        self._similarity, self._appearance = similarity, known
        offered = similarity.features(sources.expression, sources.frames)
        self._feature_weight = np.float32(1.0)
        if known is not None:
            self._feature_weight = np.float32(np.sqrt(costs.features))
            spread = known.spread()
            unit = np.sqrt(costs.texture / random_pair_cost(known.sources * spread))
            self._texture_weight = (unit * spread).astype(np.float32)
            offered = np.concatenate(
                [self._feature_weight * offered, self._texture_weight * known.sources], axis=1
            )
        self._features = np.ascontiguousarray(offered.T, np.float32)  # f32 [F, S] or [F + P, S]
        self._base = np.zeros(len(offered), np.float32)
        self._opening = sources.opening
        self._gaps = np.maximum(sources.expression @ sources.opening, 0)
        self._synthesis_penalty = np.float32(
            costs.synthesis_penalty / random_pair_cost(self._gaps[:, None])
        )
        transitions = _source_transitions(similarity.source_descriptors, costs)
        self.search = FixedLagViterbi(transitions, lag_frames, fps)

    @property
    def lag_samples(self) -> int:
        """The lag in samples at 16 kHz."""
        return self.search.lag_samples

    def predict(self, matched: MatchedFrame) -> Prediction | None:
        """The texture of its mouth; None for a target without an appearance model."""
        if self._appearance is None:
            return None
        return self._appearance.predict(self._features_of(matched))

    def emission(self, matched: MatchedFrame, prediction: Prediction | None) -> F32:
        """Cost f32 [S] of each source; without a prediction, of the features alone."""
        coefficients = matched.expression.coefficients
        wanted = self._feature_weight * self._features_of(matched)
        if prediction is not None:
            wanted = np.concatenate([wanted, self._texture_weight * prediction.pca_coefficients])
        distance = feature_distance(self._features[: len(wanted)], wanted, self._base)
        wanted_gap = np.float32(_MIN_GAP_RATIO) * (self._opening @ coefficients)
        shortfall = np.maximum(wanted_gap - self._gaps, 0)
        return distance + self._synthesis_penalty * shortfall * shortfall

    def init(self) -> SourceState:
        """State before the first frame."""
        return SourceState(self.search.init(), ())

    @span("sources")
    def step(
        self, state: SourceState, item: MatchedFrame
    ) -> tuple[list[SelectedSource], SourceState]:
        """Consume one matched frame."""
        prediction = self.predict(item)
        chosen, search = self.search.step(state.search, self.emission(item, prediction))
        waiting = (*state.waiting, (item, prediction))
        outputs = [SelectedSource(m, s, f) for (m, f), s in zip(waiting, chosen, strict=False)]
        return outputs, SourceState(search, waiting[len(outputs) :])

    def flush(self, state: SourceState) -> list[SelectedSource]:
        """The frames still held."""
        chosen = self.search.flush(state.search)
        return [SelectedSource(m, s, f) for (m, f), s in zip(state.waiting, chosen, strict=True)]

    def changed(
        self, state: SourceState, change: Callable[[Expression], Expression]
    ) -> SourceState:
        """The state with the waiting expressions changed; the search goes on as it stands."""
        waiting = [replace(m, expression=change(m.expression)) for m, _ in state.waiting]
        return replace(state, waiting=tuple((m, self.predict(m)) for m in waiting))

    def _features_of(self, matched: MatchedFrame) -> F32:
        return self._similarity.features(matched.expression.coefficients, matched.background)


def _source_transitions(source_descriptors: F32, costs: SourceCosts) -> Transitions:
    """Stay, or change to one of the nearest, or at a flat cost to any other."""
    sources, exact = len(source_descriptors), source_descriptors.astype(np.float64)
    squares = (exact**2).sum(axis=1)
    distance = np.maximum(squares[:, None] + squares - 2 * (exact @ exact.T), 0)
    np.fill_diagonal(distance, -1)  # itself first
    near = np.argsort(distance, axis=1, kind="stable")[:, : costs.neighbours + 1]
    cost = costs.switch + costs.switch_distance * np.take_along_axis(distance, near, axis=1)
    cost[:, 0] = 0
    default_cost = costs.switch_default if sources > 1 else np.inf
    return Transitions(near.astype(np.int32), cost.astype(np.float32), default_cost)
