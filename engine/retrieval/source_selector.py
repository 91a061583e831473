"""Which footage frame lends its mouth: one that looks as wanted, without flicker.

The same fixed-lag search as for the footage, with other costs. Source: ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from lipstream.engine.errors import UsageError
from lipstream.engine.profiling import span
from lipstream.engine.retrieval.viterbi import FixedLagViterbi, LagState, Transitions
from lipstream.engine.target.appearance import Appearance, Prediction
from lipstream.engine.target.similarity import MouthSimilarity
from lipstream.engine.target.similarity_unit import random_pair_cost
from lipstream.engine.types import F32, I32, Expression, MatchedFrame
from lipstream.kernels.viterbi import feature_distance

_MAX_SOURCES = 4096  # all pairs are compared once
_MIN_GAP_RATIO = 0.7  # share of the wanted gap; what a source lacks of it has to be drawn


@dataclass(frozen=True, slots=True)
class MouthSources:
    """The S footage frames that may lend their mouth."""

    frames: I32  # i32 [S]
    expression: F32  # f32 [S, K]
    similarity: MouthSimilarity
    appearance: Appearance | None  # None: how they look is not known, their readings tell
    opens: F32  # f32 [K], how far each coefficient parts the lips, inter-ocular distances

    def __post_init__(self) -> None:
        """Check that the arrays belong together."""
        sources, similarity = len(self.frames), self.similarity
        if not 0 < sources <= _MAX_SOURCES:
            raise UsageError(f"{sources} mouth sources; expected 1 to {_MAX_SOURCES}")
        shapes, size = (self.expression.shape, self.opens.shape), similarity.projection.shape[1]
        if shapes != ((sources, size), (size,)):
            raise UsageError(
                f"expressions of sources and what opens lips are {shapes}; expected "
                f"{((sources, size), (size,))}"
            )
        if self.appearance is not None and len(self.appearance.sources) != sources:
            raise UsageError(
                f"appearance of {len(self.appearance.sources)} mouths; expected that of {sources}"
            )
        if len(similarity.source_descriptors) != sources or self.frames.max() >= len(
            similarity.frame_offset
        ):
            raise UsageError(
                f"descriptors of {len(similarity.source_descriptors)} sources and offsets of "
                f"{len(similarity.frame_offset)} frames; "
                f"expected {sources}, and more than {self.frames.max()}"
            )


@dataclass(frozen=True, slots=True)
class SourceCosts:
    """Weights of the source search; 1 is what two random sources are unlike.

    Changes at every chance flicker: no two sources have the same teeth and light.
    """

    read: float = 0.5  # times what readings are unlike, where looks are known
    look: float = 1.0  # times what looks are unlike
    switch: float = 0.03  # any change of source
    switch_distance: float = 0.05  # times what the two sources are unlike
    switch_anywhere: float = 0.07  # a change to a source that is no neighbour
    neighbours: int = 32
    synthesis_penalty: float = (
        8.0  # times the square of what a source lacks of `_SHOWN` of the wanted gap
    )

    def __post_init__(self) -> None:
        """Costs are costs."""
        if min(getattr(self, name) for name in self.__slots__) < 0:
            raise UsageError(f"{self}; expected 0 or more")


@dataclass(frozen=True, slots=True)
class SelectedSource:
    """A matched frame and the source that lends its mouth."""

    matched: MatchedFrame
    source: int  # row of the source table
    prediction: Prediction | None  # how the mouth is expected to look


@dataclass(frozen=True, slots=True)
class SourceState:
    """Where the source search stands."""

    search: LagState
    waiting: tuple[tuple[MatchedFrame, Prediction | None], ...]


class SourceSelector:
    """Stage: `MatchedFrame` in, `SelectedSource` out, `lag_frames` later (0: at once).

    It pays for what a source is unlike the wanted mouth over its background, in its readings and in
    how it is expected to look, for a gap that would have to be drawn, and for each change of
    source, less when the two look alike.
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
        self._alike, self._appearance = similarity, known = sources.similarity, sources.appearance
        offered = similarity.read(sources.expression, sources.frames)
        self._feature_weight = np.float32(1.0)
        if known is not None:
            self._feature_weight = np.float32(np.sqrt(costs.read))
            spread = known.spread()
            unit = np.sqrt(costs.look / random_pair_cost(known.sources * spread))
            self._texture_weight = (unit * spread).astype(np.float32)
            offered = np.concatenate(
                [self._feature_weight * offered, self._texture_weight * known.sources], axis=1
            )
        self._features = np.ascontiguousarray(offered.T, np.float32)  # f32 [F, S] or [F + P, S]
        self._free = np.zeros(len(offered), np.float32)
        self._opens = sources.opens
        self._gaps = np.maximum(sources.expression @ sources.opens, 0)
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
        """How its mouth is expected to look; None where that is not known."""
        if self._appearance is None:
            return None
        return self._appearance.predict(self._read(matched))

    def emission(self, matched: MatchedFrame, prediction: Prediction | None) -> F32:
        """Cost f32 [S] of each source; where nothing is foretold, readings alone tell."""
        coefficients = matched.expression.coefficients
        wanted = self._feature_weight * self._read(matched)
        if prediction is not None:
            wanted = np.concatenate([wanted, self._texture_weight * prediction.pca_coefficients])
        unlike = feature_distance(self._features[: len(wanted)], wanted, self._free)
        lacks = np.maximum(
            np.float32(_MIN_GAP_RATIO) * (self._opens @ coefficients) - self._gaps, 0
        )
        return unlike + self._synthesis_penalty * lacks * lacks

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
        """The state with the expressions changed that wait; what was chosen for them stays."""
        waiting = [replace(m, expression=change(m.expression)) for m, _ in state.waiting]
        return replace(state, waiting=tuple((m, self.predict(m)) for m in waiting))

    def _read(self, matched: MatchedFrame) -> F32:
        return self._alike.read(matched.expression.coefficients, matched.background)


def _source_transitions(source_descriptors: F32, costs: SourceCosts) -> Transitions:
    """Stay, or go to one of the most alike, or at a flat cost to any other."""
    sources, exact = len(source_descriptors), source_descriptors.astype(np.float64)
    squares = (exact**2).sum(axis=1)
    distance = np.maximum(squares[:, None] + squares - 2 * (exact @ exact.T), 0)
    np.fill_diagonal(distance, -1)  # itself first
    near = np.argsort(distance, axis=1, kind="stable")[:, : costs.neighbours + 1]
    cost = costs.switch + costs.switch_distance * np.take_along_axis(distance, near, axis=1)
    cost[:, 0] = 0
    return Transitions(
        near.astype(np.int32),
        cost.astype(np.float32),
        costs.switch_anywhere if sources > 1 else np.inf,
    )
