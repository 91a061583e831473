"""Steps of a Viterbi search."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipstream.engine.errors import UsageError
from lipstream.kernels import viterbi
from tests.kernels.guard_bytes import assert_twins_agree
from tests.kernels.strategies import MORE, SEEDS

promise = pytest.mark.usefixtures("kernels")  # of each implementation, as a process chooses it
twins = pytest.mark.usefixtures("library")  # compiled code against NumPy


@promise
def test_min_plus_by_hand():
    inf = np.inf
    score = np.array([0, 4, inf], np.float32)
    predecessors = np.array([[0, 1], [1, 0], [2, 2]], np.int32)
    cost = np.array([[5, 1], [0, 4], [0, 1]], np.float32)
    best, back = viterbi.min_plus(score, predecessors, cost, np.array([1, 2, 3], np.float32))
    assert best.tolist() == [6, 6, inf]  # both are ties: 0 + 5 = 4 + 1 and 4 + 0 = 0 + 4
    assert back.tolist() == [0, 1, -1]


@promise
def test_feature_distance_by_hand():
    features = np.array([[0, 1, 3], [2, 2, 2]], np.float32)
    got = viterbi.feature_distance(
        features, np.array([1, 0], np.float32), np.array([0, 10, np.inf], np.float32)
    )
    assert got.tolist() == [5, 14, np.inf]
    with pytest.raises(UsageError, match="finite"):
        viterbi.feature_distance(features, np.array([np.nan, 0], np.float32), got)


@promise
@pytest.mark.parametrize("state", [-2, 3, 2**31 - 1, -(2**31)])
def test_states_and_back_pointers_that_are_none_are_refused(state):
    backs = [np.array([0, 1, -1], np.int32), np.array([2, 1, 0], np.int32)]
    states = np.array([0, 1, 2, -1], np.int32)
    assert viterbi.trace_back(backs, states).tolist() == [2, 1, -1, -1]
    astray = np.array([0, state], np.int32)
    with pytest.raises(UsageError, match="outside -1..2"):
        viterbi.trace_back(backs, astray)
    for at in range(2):
        wrong = [back.copy() for back in backs]
        wrong[at][1] = state
        with pytest.raises(UsageError, match="outside -1..2"):
            viterbi.trace_back(wrong, states)


@promise
def test_back_pointers_of_another_shape_or_type_are_refused():
    back, states = np.zeros(3, np.int32), np.zeros(1, np.int32)
    with pytest.raises(UsageError, match=r"back pointers is int32 \[2\]"):
        viterbi.trace_back([back, back[:2]], states)
    with pytest.raises(UsageError, match="back pointers is int64"):
        viterbi.trace_back([back.astype(np.int64)], states)


@twins
@MORE
@given(SEEDS, st.integers(1, 1200), st.integers(1, 23), st.integers(1, 6))
def test_twins_of_min_plus_with_ties_and_infinities(seed, states, slots, levels):
    random = np.random.default_rng(seed)

    def costs(shape):
        values = random.integers(0, levels, shape).astype(np.float32)
        values[random.random(shape) < 0.2] = np.inf
        return values

    score, emission = costs(states), costs(states)
    predecessors = random.integers(0, states, (states, slots), dtype=np.int32)
    cost = costs((states, slots))
    assert_twins_agree(viterbi.relax, score, predecessors, cost, emission)


@twins
@MORE
@given(SEEDS, st.integers(1, 500), st.integers(0, 6))
def test_twins_of_trace_back(seed, states, depth):
    random = np.random.default_rng(seed)
    backs = [random.integers(-1, states, states, dtype=np.int32) for _ in range(depth)]
    start = np.arange(states, dtype=np.int32)
    assert_twins_agree(viterbi.ancestors, backs, start)


@twins
@MORE
@given(SEEDS, st.integers(1, 5000), st.integers(0, 24))
def test_twins_of_feature_distance(seed, states, features):
    random = np.random.default_rng(seed)
    table = random.normal(size=(features, states)).astype(np.float32)
    wanted = random.normal(size=features).astype(np.float32)
    base = random.random(states, dtype=np.float32)
    base[random.random(states) < 0.1] = np.inf
    assert_twins_agree(viterbi.distance, table, wanted, base)
