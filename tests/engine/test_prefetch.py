"""What is made ahead comes in order, once, and fails in its turn."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from lipstream.engine.prefetch import prefetch


def test_the_next_is_made_while_this_one_is_used() -> None:
    begun = [threading.Event() for _ in range(3)]

    def items() -> Iterator[int]:
        for number, event in enumerate(begun):
            event.set()
            yield number

    made = prefetch(items())
    assert next(made) == 0
    assert begun[1].wait(5), "it waits to be asked"
    assert list(made) == [1, 2]


def test_an_error_comes_in_its_turn() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise ValueError("the second")

    made = prefetch(items())
    assert next(made) == 0
    with pytest.raises(ValueError, match="the second"):
        next(made)


def test_leaving_early_ends_its_thread() -> None:
    before = threading.active_count()
    made = prefetch(iter(range(100)))
    assert next(made) == 0
    made.close()
    assert threading.active_count() == before
