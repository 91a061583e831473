"""A session id as 255 signs."""

from itertools import combinations

import numpy as np
import pytest

from lipstream.engine.errors import UsageError
from lipstream.engine.watermark import code

RANDOM = np.random.default_rng(7)
IDS = [0, 1, 2**32 - 1, *(int(n) for n in RANDOM.integers(0, 2**32, 60))]


def noisy(session, deviation, seed=0):
    signs = 2.0 * code.encode(session) - 1
    noise = np.random.default_rng(seed).normal(0, deviation, code.LENGTH)
    return (signs + noise).astype(np.float32)


def test_words_differ_in_at_least_85_places():
    words = [code.encode(session).astype(int) for session in IDS]
    assert min(int((a != b).sum()) for a, b in combinations(words, 2)) >= 85


def test_the_sum_of_two_words_of_the_code_is_a_word():
    generator = code._generator()
    assert (generator[:, : len(generator)] == np.eye(len(generator))).all()
    # The weight of a word of the BCH code is 0 or at least the designed distance.
    messages = RANDOM.integers(0, 2, (500, len(generator)))
    weights = (messages @ generator % 2).sum(1)
    assert weights[messages.any(1)].min() >= 85


@pytest.mark.parametrize("session", IDS[:6])
def test_ids_come_back_through_noise_as_strong_as_the_signs(session):
    assert code.decode(noisy(session, 0.0)) == session
    assert code.decode(noisy(session, 1.0, session % 97)) == session


def test_seventy_wrong_signs_are_corrected_where_they_are_weak():
    readings = noisy(0xC0FFEE, 0.0)
    readings[RANDOM.permutation(code.LENGTH)[:70]] *= -0.3
    assert code.decode(readings) == 0xC0FFEE


def test_noise_is_no_id():
    noise = RANDOM.normal(0, 1, (20, code.LENGTH)).astype(np.float32)
    assert [code.decode(readings) for readings in noise] == [None] * 20


@pytest.mark.parametrize("session", [-1, 2**32])
def test_an_id_has_32_bits(session):
    with pytest.raises(UsageError, match="expected 0 to 4294967295"):
        code.encode(session)
