"""The walk through the footage and the choice of mouths."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipstream.engine.errors import UsageError
from lipstream.engine.retrieval.background_matcher import BackgroundMatcher
from lipstream.engine.retrieval.motion_graph import BackgroundFootage, MotionCosts, playable
from lipstream.engine.retrieval.sequential import sequential
from lipstream.engine.retrieval.source_selector import SourceCosts, SourceSelector
from lipstream.engine.target.appearance import TEXTURE_SHAPE, Appearance
from lipstream.engine.target.similarity import MouthSimilarity
from lipstream.engine.target.sources import MouthSources
from lipstream.engine.types import F32, Expression, Lips, MatchedFrame

FPS = Fraction(25)
SEEDS = st.integers(0, 2**32 - 1)


def wanted(coefficients, speech=True, sample=0) -> Expression:
    return Expression(np.asarray(coefficients, np.float32), Lips(0, 0, 0), speech, sample)


def footage(frames=60, features=3, jumps=2, seed=0, rejected=()) -> BackgroundFootage:
    random = np.random.default_rng(seed)
    out = np.zeros(frames, bool)
    out[list(rejected)] = True
    return BackgroundFootage(
        expression=random.normal(size=(frames, features)).astype(np.float32),
        head_speed=random.uniform(0, 0.6, frames).astype(np.float32),
        rejected=out,
        jumps=random.integers(0, frames, (frames, jumps)).astype(np.int32),
        jump_cost=random.uniform(0, 1, (frames, jumps)).astype(np.float32),
    )


def run(stage, items, state=None):
    state = stage.init() if state is None else state
    outputs = []
    for item in items:
        done, state = stage.step(state, item)
        outputs += done
    return outputs + stage.flush(state)


def step_cost(matcher, before, after) -> float:
    """Cheapest way to show one track frame after another, in whatever direction of play."""
    n = matcher.transitions.states // 2
    return min(
        matcher.transitions.cost_between(b, a)
        for b in (before, n + before)
        for a in (after, n + after)
    )


def test_the_footage_s_own_words_play_it_forward():
    track = footage()
    matcher = BackgroundMatcher(track, 2, costs=MotionCosts(expression=1, discount=0))
    frames = run(matcher, [wanted(track.expression[n]) for n in range(10, 40)])
    assert [f.background for f in frames] == list(range(10, 40))
    assert [f.frame_index for f in frames] == list(range(30))


def test_each_output_carries_its_own_expression():
    track = footage()
    items = [wanted(track.expression[n], sample=640 * n) for n in range(20)]
    frames = run(BackgroundMatcher(track, 5), items)
    assert [f.expression for f in frames] == items


@settings(max_examples=40, deadline=None, derandomize=True)
@given(SEEDS, st.integers(1, 30), st.integers(0, 6), st.booleans())
def test_walks_are_legal_and_never_show_a_rejected_frame(seed, frames, lag, some_rejected):
    random = np.random.default_rng(seed)
    rejected = random.choice(frames, frames // 3, replace=False) if some_rejected else ()
    track = footage(frames, seed=seed, rejected=rejected)
    matcher = BackgroundMatcher(track, lag, FPS, weights=np.array([1, 0.5, 2], np.float32))
    items = [wanted(random.normal(size=3), speech=bool(random.integers(2))) for _ in range(40)]
    walk = [f.background for f in run(matcher, items)]
    assert len(walk) == 40
    assert not track.rejected[walk].any()
    for before, after in zip(walk, walk[1:], strict=False):
        neighbour = abs(after - before) <= 1
        assert neighbour or after in track.jumps[before] or before in track.jumps[after]
        assert step_cost(matcher, before, after) < np.inf


def test_the_lag_is_what_it_says():
    track = footage()
    matcher = BackgroundMatcher(track, 5, Fraction(30_000, 1001))
    assert matcher.lag_samples == 5 * 16_000 * 1001 // 30_000
    state, given_out = matcher.init(), []
    for n in range(12):
        done, state = matcher.step(state, wanted(track.expression[n]))
        given_out.append(len(done))
    assert given_out == [0] * 5 + [1] * 7
    assert len(matcher.flush(state)) == 5


def test_outputs_do_not_depend_on_what_comes_after_the_lag():
    track, random = footage(), np.random.default_rng(1)
    items = [wanted(random.normal(size=3)) for _ in range(30)]
    other = items[:20] + [wanted(random.normal(size=3), speech=False) for _ in range(10)]
    restless = MotionCosts(expression=1, any_jump=0, jump=1, turn=0.2)
    matcher = BackgroundMatcher(track, 3, costs=restless)
    one, two = run(matcher, items), run(matcher, other)
    assert [f.background for f in one[:17]] == [f.background for f in two[:17]]
    assert [f.background for f in one] != [f.background for f in two]


def test_the_head_rests_in_silence():
    """Half the footage moves, half is still; the mouths are the same."""
    frames = 80
    track = BackgroundFootage(
        expression=np.zeros((frames, 2), np.float32),
        head_speed=np.where(np.arange(frames) < 40, 0.5, 0.0).astype(np.float32),
        rejected=np.zeros(frames, bool),
        jumps=((np.arange(frames) + 40) % frames).astype(np.int32)[:, None],
        jump_cost=np.full((frames, 1), 0.05, np.float32),
    )
    matcher = BackgroundMatcher(track, 2)
    speech = run(matcher, [wanted([0, 0])] * 30, matcher.init(previous=5))
    assert [f.background for f in speech] == list(range(6, 36))
    silence = run(matcher, [wanted([0, 0], speech=False)] * 30, matcher.init(previous=5))
    assert (track.head_speed[[f.background for f in silence[-20:]]] == 0).all()


def test_runs_too_short_to_play_are_left_out():
    rejected = np.ones(20, bool)
    rejected[[1, 2, 3, 4, 5, 9, 14, 15, 16, 17, 18, 19]] = False
    assert np.flatnonzero(playable(rejected, 5)).tolist() == [1, 2, 3, 4, 5, *range(14, 20)]
    assert np.flatnonzero(playable(rejected, 25)).tolist() == list(range(14, 20))


def test_the_end_is_left_before_it_is_reached():
    """A jump shortly before the end: the only other way on is to turn, which costs more."""
    frames = 100
    jumps = np.full((frames, 1), -1, np.int32)
    jumps[95] = 10
    track = replace(still_footage(frames), jumps=jumps, jump_cost=np.zeros((frames, 1), np.float32))
    items = [wanted([0, 0])] * 200
    short_sighted = BackgroundMatcher(track, 0, costs=MotionCosts(discount=0))
    walk = run(short_sighted, items, short_sighted.init(previous=0))
    assert walk[98].background == 99
    far_sighted = BackgroundMatcher(track, 0)
    walk = run(far_sighted, items, far_sighted.init(previous=0))
    assert [f.background for f in walk[:98]] == [*range(1, 96), 10, 11, 12]
    assert max(f.background for f in walk) == 95


def test_what_is_not_known_of_rejected_frames_does_not_matter():
    track = footage(60, rejected=range(25, 30))
    items = [wanted(track.expression[n]) for n in range(20)]
    expected = [f.background for f in run(BackgroundMatcher(track, 2), items)]
    track.expression[25:30] = np.nan
    track.head_speed[25:30] = np.nan
    again = BackgroundFootage(
        track.expression, track.head_speed, track.rejected, track.jumps, track.jump_cost
    )
    got = [f.background for f in run(BackgroundMatcher(again, 2), items)]
    assert got == expected
    with pytest.raises(UsageError, match="finite"):
        BackgroundFootage(
            track.expression,
            track.head_speed,
            np.zeros(60, bool),
            track.jumps,
            track.jump_cost,
        )


def still_footage(frames) -> BackgroundFootage:
    return BackgroundFootage(
        np.zeros((frames, 2), np.float32),
        np.zeros(frames, np.float32),
        np.zeros(frames, bool),
        np.empty((frames, 0), np.int32),
        np.empty((frames, 0), np.float32),
    )


def test_the_last_frame_can_be_left():
    """Without jumps, footage is played back and forth; it does not tremble or freeze."""
    track = still_footage(30)
    matcher = BackgroundMatcher(track, 0)
    walk = run(matcher, [wanted([0, 0])] * 60, matcher.init(previous=20))
    assert [f.background for f in walk] == [*range(21, 30), *range(28, -1, -1), *range(1, 23)]


def test_an_interrupted_walk_goes_on_where_it_was():
    track = footage(seed=4)
    matcher = BackgroundMatcher(track, 4)
    frames = run(matcher, [wanted(track.expression[50])] * 3, matcher.init(17, first_frame=900))
    assert frames[0].frame_index == 900
    assert step_cost(matcher, 17, frames[0].background) < np.inf


def test_one_still_frame_is_footage_enough():
    track = still_footage(1)
    frames = run(BackgroundMatcher(track, 1), [wanted([1, 2])] * 5)
    assert [f.background for f in frames] == [0] * 5


def test_the_cheapest_jumps_into_a_frame_are_kept():
    frames = 60
    jumps = np.full((frames, 1), 59, np.int32)  # everyone wants to frame 59
    cost = np.linspace(1, 0, frames, dtype=np.float32)[:, None]
    track = BackgroundFootage(
        np.zeros((frames, 1), np.float32),
        np.zeros(frames, np.float32),
        np.zeros(frames, bool),
        jumps,
        cost,
    )
    ways = BackgroundMatcher(track, 0).transitions
    assert ways.cost_between(50, 59) < np.inf
    assert ways.cost_between(3, 59) == np.inf
    assert ways.predecessors.shape == (2 * frames, 20)
    assert ways.cost_between(frames + 59, frames + 50) < np.inf  # the same jump, played backward


def test_back_and_forth():
    assert [sequential(i, 4) for i in range(9)] == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert [sequential(i, 1) for i in range(3)] == [0, 0, 0]
    with pytest.raises(UsageError):
        sequential(0, 0)


def test_bad_footage_is_refused():
    with pytest.raises(UsageError, match="rejected"):
        footage(4, rejected=range(4))
    track = footage(4)
    with pytest.raises(UsageError, match="expected"):
        BackgroundFootage(
            track.expression, track.head_speed[:2], track.rejected, track.jumps, track.jump_cost
        )
    with pytest.raises(UsageError, match="weights"):
        BackgroundMatcher(track, 0, weights=np.array([1, np.nan, 1], np.float32))
    with pytest.raises(UsageError, match="costs"):
        MotionCosts(repeat=-1)


def sources(count=40, seed=0) -> MouthSources:
    """Each of its own frame; the first three readings are the expression's, two the frame's."""
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


def test_a_source_looks_as_wanted():
    bank = sources()
    items = [matched(bank.expression[s], s) for s in (3, 3, 17, 17, 30)]
    chosen = run(SourceSelector(bank, costs=FREE), items)
    assert [c.source for c in chosen] == [3, 3, 17, 17, 30]
    assert [c.matched for c in chosen] == items


def looking(known: F32, lent: F32) -> Appearance:
    """Looks of one direction, a share of 1 in the frames that were learned from, f32 [3, N]."""
    return Appearance(
        relevance=np.ones(3, np.float32),
        features=known,
        length_scale=np.ones(1, np.float32),
        weights=np.ones((known.shape[1], 1), np.float32),
        textures=np.ones((2, *TEXTURE_SHAPE, 3), np.float32),
        sources=lent[:, None],
        reference_distance=1.0,
    )


def test_of_mouths_that_read_alike_the_one_that_looks_as_expected_is_lent():
    """Two mouths of one expression and one background; the footage says how they look."""
    twice = np.tile(np.float32([0.2, 0.1, 0]), (2, 1))
    similarity = MouthSimilarity(np.eye(3, dtype=np.float32), np.zeros((2, 3), np.float32), twice)
    rows = np.arange(2, dtype=np.int32)
    known = looking(twice[:1].T.copy(), np.float32([0, 1]))
    bank = MouthSources(rows, twice, similarity, known, np.zeros(3, np.float32))
    near, far = run(
        SourceSelector(bank, costs=FREE), [matched(e, 0) for e in (twice[0], [9, 9, 9])]
    )
    assert (near.source, far.source) == (1, 0), "far from all that is known, it is the mean"
    assert near.prediction is not None and near.prediction.pca_coefficients == pytest.approx([1])
    blind = SourceSelector(bank, costs=replace(FREE, texture=0.0))
    assert run(blind, [matched(twice[0], 0)])[0].source == 0
    with pytest.raises(UsageError, match="mouths"):
        replace(bank, appearance=looking(twice[:1].T.copy(), np.float32([0, 1, 2])))


def test_what_waits_is_foretold_anew_when_it_changes():
    bank = sources()
    known = looking(bank.expression[:1].T.copy(), np.zeros(40, np.float32))
    similarity = MouthSimilarity(
        np.eye(3, dtype=np.float32), np.zeros((40, 3), np.float32), bank.expression
    )
    selector = SourceSelector(replace(bank, similarity=similarity, appearance=known), lag_frames=2)
    _, state = selector.step(selector.init(), matched(bank.expression[5], 5))
    state = selector.changed(state, lambda _: wanted(bank.expression[0]))
    (item, prediction), *rest = state.waiting
    assert not rest and prediction is not None
    np.testing.assert_array_equal(item.expression.coefficients, bank.expression[0])
    assert prediction.pca_coefficients == pytest.approx([1]), (
        "it is the frame that was learned from"
    )


def test_what_a_frame_is_beside_its_expression_counts():
    """Two mouths of one expression: the background says which."""
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


def test_a_mouth_that_shows_its_inside_is_preferred_to_one_to_be_drawn():
    """The wanted mouth lies a little nearer to the closed one, which has nothing to show."""
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
    assert shut[0].source == 0  # a closed mouth asks for nothing to be shown


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


def test_a_change_goes_to_one_that_looks_alike():
    """Of two that are equally right, the one that looks like what is shown."""
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
