"""Items made ahead come in order, once, and fail in their turn, all from one thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from lipstream.engine.prefetch import Prefetcher


@pytest.fixture
def prefetcher() -> Iterator[Prefetcher]:
    made = Prefetcher()
    yield made
    made.close()


def test_the_next_is_made_while_this_one_is_used(prefetcher: Prefetcher) -> None:
    begun = [threading.Event() for _ in range(3)]

    def items() -> Iterator[int]:
        for number, event in enumerate(begun):
            event.set()
            yield number

    with prefetcher.ahead(items()) as made:
        assert next(made) == 0
        assert begun[1].wait(5), "it waits to be asked"
        assert list(made) == [1, 2]


def test_an_error_comes_in_its_turn(prefetcher: Prefetcher) -> None:
    def items() -> Iterator[int]:
        yield 0
        raise ValueError("the second")

    with prefetcher.ahead(items()) as made:
        assert next(made) == 0
        with pytest.raises(ValueError, match="the second"):
            next(made)


def test_every_use_runs_in_the_same_thread(prefetcher: Prefetcher) -> None:
    """So the scratch that compiled code keeps a thread is allocated once a session."""
    threads = set()
    for _ in range(3):
        with prefetcher.ahead(threading.get_ident() for _ in range(2)) as made:
            threads.update(made)
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


def test_an_exception_in_the_block_waits_for_the_item_that_is_being_made(
    prefetcher: Prefetcher,
) -> None:
    """Or the thread would go on with the caller's decoder beside the caller's next push."""
    working = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        working.set()
        time.sleep(0.05)
        working.clear()
        yield 1

    with pytest.raises(RuntimeError, match="painting"), prefetcher.ahead(items()) as made:
        assert next(made) == 0
        assert working.wait(5)
        raise RuntimeError("painting failed")
    assert not working.is_set()


def test_its_thread_ends_with_it() -> None:
    before = threading.active_count()
    made = Prefetcher()
    with made.ahead(iter(range(100))) as items:
        assert next(items) == 0
    assert threading.active_count() == before + 1
    made.close()
    assert threading.active_count() == before
