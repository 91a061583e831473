"""The choice of mouth sources."""

from dataclasses import replace

import numpy as np
import pytest

from lipstream.engine.errors import UsageError
from lipstream.engine.retrieval.source_selector import SourceCosts, SourceSelector
from lipstream.engine.target.appearance import TEXTURE_SHAPE, Appearance
from lipstream.engine.target.similarity import MouthSimilarity
from lipstream.engine.target.sources import MouthSources
from lipstream.engine.types import F32, Expression, Lips, MatchedFrame
from tests.contract import run


def wanted(coefficients) -> Expression:
    return Expression(np.asarray(coefficients, np.float32), Lips(0, 0, 0), True, 0)


def sources(count=40, seed=0) -> MouthSources:
    """Each of its own frame; three features are of the expression, two of the frame."""
    random = np.random.default_rng(seed)
    expression = random.normal(size=(count, 3)).astype(np.float32)
    frame_offset = np.zeros((count, 5), np.float32)
    frame_offset[:, 3:] = random.normal(size=(count, 2))
    similarity = MouthSimilarity(np.eye(5, 3, dtype=np.float32), frame_offset, expression)
    return MouthSources(
        np.arange(count, dtype=np.int32), expression, similarity, None, np.zeros(3, np.float32)
    )


def matched(expression, background, index=0) -> MatchedFrame:
    return MatchedFrame(index, background, wanted(expression))


FREE = SourceCosts(switch=0, switch_distance=0, switch_default=0)


def test_the_source_nearest_to_the_wanted_mouth_is_selected():
    bank = sources()
    items = [matched(bank.expression[s], s) for s in (3, 3, 17, 17, 30)]
    chosen = run(SourceSelector(bank, costs=FREE), items)
    assert [c.source for c in chosen] == [3, 3, 17, 17, 30]
    assert [c.matched for c in chosen] == items


def appearance(training: F32, sources: F32) -> Appearance:
    """Textures with one component, of coefficient 1 in the training frames, f32 [3, N]."""
    return Appearance(
        relevance=np.ones(3, np.float32),
        features=training,
        length_scale=np.ones(1, np.float32),
        weights=np.ones((training.shape[1], 1), np.float32),
        textures=np.ones((2, *TEXTURE_SHAPE, 3), np.float32),
        sources=sources[:, None],
        reference_distance=1.0,
    )


def test_of_equal_features_the_source_nearest_to_the_predicted_texture_is_selected():
    """Two mouths of one expression and one background, with different textures."""
    twice = np.tile(np.float32([0.2, 0.1, 0]), (2, 1))
    similarity = MouthSimilarity(np.eye(3, dtype=np.float32), np.zeros((2, 3), np.float32), twice)
    rows = np.arange(2, dtype=np.int32)
    known = appearance(twice[:1].T.copy(), np.float32([0, 1]))
    bank = MouthSources(rows, twice, similarity, known, np.zeros(3, np.float32))
    near, far = run(
        SourceSelector(bank, costs=FREE), [matched(e, 0) for e in (twice[0], [9, 9, 9])]
    )
    assert (near.source, far.source) == (1, 0), "far away, the prediction is the mean"
    assert near.prediction is not None and near.prediction.pca_coefficients == pytest.approx([1])
    blind = SourceSelector(bank, costs=replace(FREE, texture=0.0))
    assert run(blind, [matched(twice[0], 0)])[0].source == 0
    with pytest.raises(UsageError, match="mouths"):
        replace(bank, appearance=appearance(twice[:1].T.copy(), np.float32([0, 1, 2])))


def test_waiting_frames_are_predicted_again_when_they_change():
    bank = sources()
    known = appearance(bank.expression[:1].T.copy(), np.zeros(40, np.float32))
    similarity = MouthSimilarity(
        np.eye(3, dtype=np.float32), np.zeros((40, 3), np.float32), bank.expression
    )
    selector = SourceSelector(replace(bank, similarity=similarity, appearance=known), lag_frames=2)
    _, state = selector.step(selector.init(), matched(bank.expression[5], 5))
    state = selector.changed(state, lambda _: wanted(bank.expression[0]))
    (item, prediction), *rest = state.waiting
    assert not rest and prediction is not None
    np.testing.assert_array_equal(item.expression.coefficients, bank.expression[0])
    assert prediction.pca_coefficients == pytest.approx([1]), "it is the training frame"


def test_light_and_pose_of_a_frame_count_besides_its_expression():
    """Two mouths of one expression: the background decides."""
    twice = np.tile(np.float32([0.2, 0.1, 0]), (2, 1))
    frame_offset = np.zeros((4, 5), np.float32)
    frame_offset[:, 3] = 0, 1, 0.9, 0.1
    similarity = MouthSimilarity(
        np.eye(5, 3, dtype=np.float32), frame_offset, np.eye(2, dtype=np.float32)
    )
    bank = MouthSources(
        np.arange(2, dtype=np.int32), twice, similarity, None, np.zeros(3, np.float32)
    )
    selector = SourceSelector(bank, costs=FREE)
    chosen = run(selector, [matched(twice[0], background) for background in (2, 3)])
    assert [c.source for c in chosen] == [1, 0]


def test_a_mouth_with_its_inside_visible_is_preferred_to_synthesis():
    """The wanted mouth is a little nearer to the closed one, which shows no inside."""
    expression = np.array([[0.0, 0.0], [1.0, 0.6]], np.float32)
    similarity = MouthSimilarity(
        np.eye(2, dtype=np.float32), np.zeros((2, 2), np.float32), expression
    )
    bank = MouthSources(
        np.arange(2, dtype=np.int32), expression, similarity, None, np.float32([0.2, 0])
    )
    item = matched([0.6, -0.1], 0)
    for synthesis_penalty, chosen in ((0.0, 0), (8.0, 1)):
        costs = SourceCosts(
            switch=0, switch_distance=0, switch_default=0, synthesis_penalty=synthesis_penalty
        )
        assert run(SourceSelector(bank, costs=costs), [item])[0].source == chosen
    shut = run(SourceSelector(bank, costs=FREE), [matched([0.0, 0.0], 0)])
    assert shut[0].source == 0  # a closed mouth needs no inside


def test_sources_do_not_flicker():
    """Between two mouths that fit equally, with noise, the choice stays."""
    random = np.random.default_rng(2)
    expression = np.array([[0, 0], [0.1, 0], [3, 3]], np.float32)
    similarity = MouthSimilarity(
        np.eye(2, dtype=np.float32), np.zeros((3, 2), np.float32), expression
    )
    bank = MouthSources(
        np.arange(3, dtype=np.int32), expression, similarity, None, np.zeros(2, np.float32)
    )
    items = [matched([0.05 + random.normal() * 0.03, 0], 0, i) for i in range(200)]

    def changes(costs) -> int:
        chosen = [c.source for c in run(SourceSelector(bank, costs=costs), items)]
        return int((np.diff(chosen) != 0).sum())

    assert changes(FREE) > 50
    assert changes(SourceCosts()) == 0


def test_a_change_goes_to_the_nearest_descriptor():
    """Of two that fit equally, the one that resembles the source on show."""
    expression = np.array([[0.0], [1], [1]], np.float32)
    textures = np.array([[0, 0], [3, 0], [0.1, 0]], np.float32)
    similarity = MouthSimilarity(
        np.ones((1, 1), np.float32), np.zeros((3, 1), np.float32), textures
    )
    bank = MouthSources(
        np.arange(3, dtype=np.int32), expression, similarity, None, np.zeros(1, np.float32)
    )
    costs = SourceCosts(switch=0, switch_distance=0.1, switch_default=9)
    chosen = run(SourceSelector(bank, costs=costs), [matched([0], 0), matched([1], 0)])
    assert [c.source for c in chosen] == [0, 2]


def test_any_source_can_be_reached():
    bank = sources(30)
    selector = SourceSelector(bank, costs=SourceCosts(neighbours=1))
    items = [matched(bank.expression[2], 2)] * 5 + [matched(bank.expression[25], 25)] * 5
    assert [c.source for c in run(selector, items)][-1] == 25


def test_more_or_no_sources_are_refused():
    bank = sources(3)
    with pytest.raises(UsageError, match="1 to"):
        replace(bank, frames=bank.frames[:0])
    with pytest.raises(UsageError, match="expressions"):
        replace(bank, expression=bank.expression[:, :2])
    with pytest.raises(UsageError, match="descriptors of 2"):
        replace(
            bank,
            similarity=replace(
                bank.similarity, source_descriptors=bank.similarity.source_descriptors[:2]
            ),
        )
    with pytest.raises(UsageError, match="more than 9"):
        replace(bank, frames=np.array([0, 1, 9], np.int32))
    with pytest.raises(UsageError, match="finite"):
        replace(bank.similarity, frame_offset=bank.similarity.frame_offset * np.float32(np.nan))
