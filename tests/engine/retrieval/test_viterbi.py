"""Whole and fixed-lag search against a textbook Viterbi written here."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipstream.engine.errors import UsageError
from lipstream.engine.retrieval import viterbi as search
from lipstream.engine.retrieval.viterbi import FixedLagViterbi, Transitions, expected_cost, viterbi

MANY = settings(max_examples=150, deadline=None, derandomize=True)
SEEDS = st.integers(0, 2**32 - 1)


def edges_of(transitions: Transitions) -> dict[tuple[int, int], float]:
    edges: dict[tuple[int, int], float] = {}
    for state in range(transitions.states):
        ways = zip(transitions.predecessors[state], transitions.cost[state], strict=True)
        for previous, cost in ways:
            key = (int(previous), state)
            edges[key] = min(edges.get(key, math.inf), float(cost))
        for previous in range(transitions.states):
            key = (previous, state)
            edges[key] = min(edges.get(key, math.inf), transitions.default_cost)
    return edges


def path_cost(edges, emissions, path) -> float:
    total = float(emissions[0][path[0]])
    for t in range(1, len(path)):
        total += edges[path[t - 1], path[t]] + float(emissions[t][path[t]])
    return total


def best_cost(edges, emissions) -> float:
    """Textbook Viterbi over all pairs, in Python floats."""
    states = range(len(emissions[0]))
    score = [float(v) for v in emissions[0]]
    for row in emissions[1:]:
        score = [
            float(row[j]) + min(score[i] + edges.get((i, j), math.inf) for i in states)
            for j in states
        ]
    return min(score)


def problem(seed, states, slots, frames, hub=False):
    """Small integers: sums are exact in f32, so optimal costs compare exactly."""
    random = np.random.default_rng(seed)
    predecessors = random.integers(0, states, (states, slots), dtype=np.int32)
    cost = random.integers(0, 6, (states, slots)).astype(np.float32)
    cost[random.random(cost.shape) < 0.3] = np.inf
    predecessors[:, 0] = np.arange(states)  # each state may repeat: there is always a path
    cost[:, 0] = random.integers(0, 6, states)
    emissions = random.integers(0, 9, (frames, states)).astype(np.float32)
    allowed = random.random(states) < 0.8
    allowed[random.integers(states)] = True
    emissions[:, ~allowed] = np.inf
    return Transitions(predecessors, cost, 4.0 if hub else math.inf), emissions


def fold(stage, rows, state=None):
    state = stage.init() if state is None else state
    outputs = []
    for row in rows:
        committed, state = stage.step(state, row)
        outputs.append(committed)
    return outputs, stage.flush(state)


@MANY
@given(SEEDS, st.integers(1, 8), st.integers(1, 4), st.integers(1, 9), st.booleans())
def test_viterbi_reaches_the_brute_force_optimum(seed, states, slots, frames, hub):
    transitions, emissions = problem(seed, states, slots, frames, hub)
    path = viterbi(transitions, emissions)
    edges = edges_of(transitions)
    assert path.shape == (frames,)
    assert path_cost(edges, emissions, path) == best_cost(edges, emissions)


@MANY
@given(SEEDS, st.integers(1, 8), st.integers(1, 4), st.integers(1, 12), st.integers(0, 5))
def test_every_lag_commits_one_legal_path_with_a_constant_delay(seed, states, slots, frames, lag):
    transitions, emissions = problem(seed, states, slots, frames)
    outputs, rest = fold(FixedLagViterbi(transitions, lag), emissions)
    assert [len(committed) for committed in outputs] == [int(t >= lag) for t in range(frames)]
    assert len(rest) == min(lag, frames)
    path = [state for committed in outputs for state in committed] + rest
    edges = edges_of(transitions)
    cost = path_cost(edges, emissions, path)
    assert math.isfinite(cost)
    assert cost >= best_cost(edges, emissions)


@MANY
@given(SEEDS, st.integers(1, 8), st.integers(1, 4), st.integers(1, 9), st.integers(0, 3))
def test_a_lag_of_the_whole_clip_is_the_offline_path(seed, states, slots, frames, extra):
    transitions, emissions = problem(seed, states, slots, frames)
    outputs, rest = fold(FixedLagViterbi(transitions, frames + extra - 1), emissions)
    path = [state for committed in outputs for state in committed] + rest
    assert path_cost(edges_of(transitions), emissions, path) == best_cost(
        edges_of(transitions), emissions
    )
    assert path == viterbi(transitions, emissions).tolist()


def surviving_paths(transitions, emissions, lag) -> list[int]:
    """Fixed lag with every state's own path written out; ties go to the first transition."""
    states = range(transitions.states)
    paths = {s: ([s], float(emissions[0][s])) for s in states if emissions[0][s] < math.inf}
    given: list[int] = []
    for t in range(len(emissions)):
        if t:
            before, paths = paths, {}
            for state in states:
                ways = zip(transitions.predecessors[state], transitions.cost[state], strict=True)
                reached = [
                    (before[int(p)][1] + float(cost), int(p))
                    for p, cost in ways
                    if int(p) in before
                ]
                total, previous = min(reached, key=lambda way: way[0], default=(math.inf, -1))
                total += float(emissions[t][state])
                if total < math.inf:
                    paths[state] = ([*before[previous][0], state], total)
        if t >= lag:
            best = min(paths, key=lambda state: paths[state][1])
            chosen = paths[best][0][len(given)]
            paths = {s: (p, cost) for s, (p, cost) in paths.items() if p[len(given)] == chosen}
            given.append(chosen)
    best = min(paths, key=lambda state: paths[state][1])
    return paths[best][0]


@MANY
@given(SEEDS, st.integers(2, 8), st.integers(1, 4), st.integers(2, 10), st.integers(0, 4))
def test_the_committed_state_begins_the_best_surviving_path(seed, states, slots, frames, lag):
    transitions, emissions = problem(seed, states, slots, frames)
    outputs, rest = fold(FixedLagViterbi(transitions, lag), emissions)
    path = [state for committed in outputs for state in committed] + rest
    assert path == surviving_paths(transitions, emissions, lag)


@MANY
@given(SEEDS, st.integers(2, 8), st.integers(1, 4), st.integers(2, 30), st.integers(2, 12))
def test_a_long_lag_commits_the_same_states_by_what_all_paths_agree_on(
    seed, states, slots, frames, lag
):
    transitions, emissions = problem(seed, states, slots, frames)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_LONG_FRAMES", 2)
        outputs, rest = fold(FixedLagViterbi(transitions, lag), emissions)
    assert [len(committed) for committed in outputs] == [int(t >= lag) for t in range(frames)]
    path = [state for committed in outputs for state in committed] + rest
    assert path == surviving_paths(transitions, emissions, lag)


def test_a_long_lag_rarely_traces(monkeypatch):
    """Once in many frames, for all that the paths agree on; else 250 frames each time."""
    traces = []
    trace = search.trace_back

    def counted(backs, states):
        traces.append(len(backs))
        return trace(backs, states)

    agreed = search._agreed

    def looked(score, backs):
        traces.append(len(backs))
        return agreed(score, backs)

    monkeypatch.setattr(search, "trace_back", counted)
    monkeypatch.setattr(search, "_agreed", looked)
    transitions, emissions = problem(1, 40, 4, 1_000)
    outputs, rest = fold(FixedLagViterbi(transitions, 250), emissions)
    path = [state for committed in outputs for state in committed] + rest
    assert path == viterbi(transitions, emissions).tolist()
    assert 1 <= len(traces) <= 8


@MANY
@given(SEEDS, st.integers(1, 8), st.integers(1, 4), st.integers(1, 12), st.integers(0, 5))
def test_expected_cost_guides_the_commitment_and_nothing_else(seed, states, slots, frames, lag):
    transitions, emissions = problem(seed, states, slots, frames)
    stage = FixedLagViterbi(transitions, lag)
    random = np.random.default_rng(seed)
    state, path = stage.init(), []
    for row in emissions:
        to_go = random.integers(0, 50, states).astype(np.float32)
        committed, state = stage.step(state, row, to_go)
        path += committed
    path += stage.flush(state)
    edges = edges_of(transitions)
    cost = path_cost(edges, emissions, path)
    assert math.isfinite(cost)
    if lag >= frames:
        assert cost == best_cost(edges, emissions)


@MANY
@given(SEEDS, st.integers(1, 6), st.integers(1, 4))
def test_expected_cost_solves_its_equation(seed, states, slots):
    transitions, emissions = problem(seed, states, slots, 1)
    discount = 0.9
    value = expected_cost(transitions, emissions[0], discount).astype(float)
    best = np.full(states, np.inf)
    for (before, after), cost in edges_of(transitions).items():
        best[before] = min(best[before], cost + emissions[0][after] + value[after])
    both = np.isfinite(value) & np.isfinite(best)
    assert (np.isfinite(value) == np.isfinite(best)).all()
    np.testing.assert_allclose(
        value[both], discount * best[both], atol=0.011 * value[both].max(initial=1e-3)
    )


def test_ties_go_to_the_transition_listed_first():
    predecessors = np.array([[1, 0, 2]] * 3, np.int32)
    transitions = Transitions(predecessors, np.zeros((3, 3), np.float32))
    path = viterbi(transitions, np.zeros((4, 3), np.float32))
    assert path.tolist() == [1, 1, 1, 0]  # the last state is the lowest, its transition in slot 0


def test_steps_leave_their_state_as_it_was():
    transitions, emissions = problem(3, 6, 3, 12)
    stage = FixedLagViterbi(transitions, 2)
    state, kept, expected = stage.init(), [], []
    for row in emissions:
        committed, after = stage.step(state, row)
        kept.append(state)
        expected.append(committed)
        state = after
    for row, before, committed in zip(emissions, kept, expected, strict=True):
        assert stage.step(before, row)[0] == committed


def test_interleaved_streams_are_independent():
    transitions, emissions = problem(5, 7, 3, 10)
    stage = FixedLagViterbi(transitions, 1)
    alone = fold(stage, emissions)
    one, two = stage.init(), stage.init()
    outputs = []
    for row, other in zip(emissions, emissions[::-1], strict=True):
        committed, one = stage.step(one, row)
        _, two = stage.step(two, other)
        outputs.append(committed)
    assert (outputs, stage.flush(one)) == alone


def test_going_on_from_a_state_obeys_the_transitions():
    predecessors = np.array([[0, 2], [0, 1], [1, 2]], np.int32)  # a ring 0 -> 1 -> 2 -> 0
    cost = np.array([[np.inf, 0], [0, np.inf], [0, np.inf]], np.float32)
    stage = FixedLagViterbi(Transitions(predecessors, cost), 0)
    outputs, rest = fold(stage, np.zeros((4, 3), np.float32), stage.init(previous=[1]))
    assert (outputs, rest) == ([[2], [0], [1], [2]], [])


def test_a_long_stream_keeps_its_precision():
    """Costs near 1000 a frame would pass 2^24 in f32 after 17 000 frames."""
    transitions = Transitions(np.array([[0], [1]], np.int32), np.zeros((2, 1), np.float32))
    rows = np.full((40_000, 2), 1000, np.float32)
    rows[:, 0] += np.float32(2**-10)
    path = viterbi(transitions, rows)
    assert set(path.tolist()) == {1}


def test_bad_tables_and_rows_are_refused():
    good = np.zeros((3, 2), np.int32)
    with pytest.raises(UsageError, match="span"):
        Transitions(good + 3, np.zeros((3, 2), np.float32))
    with pytest.raises(UsageError, match="NaN"):
        Transitions(good, np.full((3, 2), np.nan, np.float32))
    with pytest.raises(UsageError, match="emission"):
        viterbi(Transitions(good, np.zeros((3, 2), np.float32)), np.zeros((2, 4), np.float32))
    with pytest.raises(UsageError, match="no state"):
        viterbi(
            Transitions(good, np.zeros((3, 2), np.float32)), np.full((2, 3), np.inf, np.float32)
        )
