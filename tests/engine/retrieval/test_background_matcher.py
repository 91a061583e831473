"""The path through the footage."""

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
from lipstream.engine.types import Expression, Lips

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


def test_the_expressions_of_the_footage_play_it_forward():
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
def test_paths_are_legal_and_never_show_a_rejected_frame(seed, frames, lag, some_rejected):
    random = np.random.default_rng(seed)
    rejected = random.choice(frames, frames // 3, replace=False) if some_rejected else ()
    track = footage(frames, seed=seed, rejected=rejected)
    matcher = BackgroundMatcher(track, lag, FPS, weights=np.array([1, 0.5, 2], np.float32))
    items = [wanted(random.normal(size=3), speech=bool(random.integers(2))) for _ in range(40)]
    path = [f.background for f in run(matcher, items)]
    assert len(path) == 40
    assert not track.rejected[path].any()
    for before, after in zip(path, path[1:], strict=False):
        neighbour = abs(after - before) <= 1
        assert neighbour or after in track.jumps[before] or before in track.jumps[after]
        assert step_cost(matcher, before, after) < np.inf


def test_the_lag_is_the_stated_one():
    track = footage()
    matcher = BackgroundMatcher(track, 5, Fraction(30_000, 1001))
    assert matcher.lag_samples == 5 * 16_000 * 1001 // 30_000
    state, given_out = matcher.init(), []
    for n in range(12):
        done, state = matcher.step(state, wanted(track.expression[n]))
        given_out.append(len(done))
    assert given_out == [0] * 5 + [1] * 7
    assert len(matcher.flush(state)) == 5


def test_outputs_do_not_depend_on_items_after_the_lag():
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
    path = run(short_sighted, items, short_sighted.init(previous=0))
    assert path[98].background == 99
    far_sighted = BackgroundMatcher(track, 0)
    path = run(far_sighted, items, far_sighted.init(previous=0))
    assert [f.background for f in path[:98]] == [*range(1, 96), 10, 11, 12]
    assert max(f.background for f in path) == 95


def test_values_of_rejected_frames_do_not_matter():
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
    """Without jumps, footage is played back and forth; it neither alternates nor freezes."""
    track = still_footage(30)
    matcher = BackgroundMatcher(track, 0)
    path = run(matcher, [wanted([0, 0])] * 60, matcher.init(previous=20))
    assert [f.background for f in path] == [*range(21, 30), *range(28, -1, -1), *range(1, 23)]


def test_a_search_can_begin_after_a_given_frame():
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
    jumps = np.full((frames, 1), 59, np.int32)  # every frame jumps to frame 59
    cost = np.linspace(1, 0, frames, dtype=np.float32)[:, None]
    track = BackgroundFootage(
        np.zeros((frames, 1), np.float32),
        np.zeros(frames, np.float32),
        np.zeros(frames, bool),
        jumps,
        cost,
    )
    transitions = BackgroundMatcher(track, 0).transitions
    assert transitions.cost_between(50, 59) < np.inf
    assert transitions.cost_between(3, 59) == np.inf
    assert transitions.predecessors.shape == (2 * frames, 20)
    assert transitions.cost_between(frames + 59, frames + 50) < np.inf  # the same, backward


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
