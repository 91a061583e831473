"""Ten thousand cases, and that the command finds what it is for."""

from __future__ import annotations

import os
import random

import pytest

from tests.fuzz.kinds import cases_of
from tests.fuzz.mutation import mutated, mutated_text
from tests.fuzz.run import fuzz
from tests.fuzz.worker import Failure, Job

CASES = 10_000
SEED = 20_261_129


def test_nothing_crashes_hangs_or_takes_all_memory() -> None:
    failures: list[Failure] = []
    jobs = [Job(kind, SEED, 0, count) for kind, count in cases_of(CASES).items() if count]
    outcomes = fuzz(jobs, len(os.sched_getaffinity(0)), failures.append)
    assert not failures, "\n".join(map(str, failures))
    assert sum(one.done + one.refused for one in outcomes.values()) == CASES
    for kind, outcome in outcomes.items():  # neither all refused nor all taken
        assert outcome.done > 0, kind
        assert outcome.refused > 0 or kind == "socket", kind


@pytest.mark.parametrize("total", [1, 10_000, 123_456, 1_000_000])
def test_the_kinds_share_all_cases(total: int) -> None:
    assert sum(cases_of(total).values()) == total


def test_a_change_is_a_function_of_its_seed() -> None:
    data, text = bytes(range(256)) * 4, "a=b\r\nm=audio 9\r\n" * 5

    def changed(seed: int) -> tuple[bytes, str]:
        return mutated(data, random.Random(seed)), mutated_text(text, random.Random(seed))

    assert changed(1) == changed(1)
    assert len({changed(seed) for seed in range(50)}) == 50


def test_each_way_to_go_wrong_is_found() -> None:
    found: list[Failure] = []
    outcome = fuzz([Job("planted", 7, 0, 7)], 1, found.append)["planted"]
    assert [failure.case for failure in found] == [2, 3, 4, 5, 6]
    words = ["KeyError", "s of CPU time", "MiB, expected", "several lines", "ended the process"]
    for failure, expected in zip(found, words, strict=True):
        assert expected in str(failure), failure
        assert f"--kind planted --seed 7 --case {failure.case}" in str(failure)
    assert outcome.failures == found and outcome.done == 3 and outcome.refused == 2


def test_a_kind_that_cannot_be_prepared_is_said() -> None:
    with pytest.raises(RuntimeError, match="nonesuch cannot be prepared"):
        fuzz([Job("nonesuch", 7, 0, 9)], 1, print)
