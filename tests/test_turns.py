"""Tests share the machine with those of their kind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.streaming.waiting import eventually_in_thread
from tests.turns import ALONE, Turns


class Runs:
    """Tests under way; `finish` ends them."""

    def __init__(self, folder: Path) -> None:
        gate, computes, calls = (folder / name for name in ("gate", "computes", "calls"))
        for path in (gate, computes, calls):
            path.touch()
        self.turns = Turns(gate, {"computes": computes, "calls": calls})
        self._threads: list[tuple[threading.Thread, threading.Event]] = []

    def begin(self, kind: str) -> threading.Event:
        """In a thread of its own; returns what is set once it has its turn."""
        going, ends = threading.Event(), threading.Event()

        def run() -> None:
            with self.turns.take(kind):
                going.set()
                ends.wait()

        thread = threading.Thread(target=run)
        self._threads.append((thread, ends))
        thread.start()
        return going

    def finish(self, number: int) -> None:
        thread, ends = self._threads[number]
        ends.set()
        thread.join(10)
        assert not thread.is_alive()

    @contextmanager
    def to_the_end(self) -> Iterator[Runs]:
        try:
            yield self
        finally:
            for _, ends in self._threads:
                ends.set()
            for thread, _ in self._threads:
                thread.join(10)


def waits(going: threading.Event) -> bool:
    time.sleep(0.02)
    return not going.is_set()


@pytest.mark.parametrize(("first", "second"), [("computes", "calls"), ("calls", "computes")])
def test_another_kind_waits_for_all_of_one_and_nobody_overtakes_it(
    tmp_path: Path, first: str, second: str
) -> None:
    with Runs(tmp_path).to_the_end() as runs:
        assert runs.begin(first).wait(10) and runs.begin(first).wait(10)
        other = runs.begin(second)
        assert waits(other)
        runs.finish(0)
        late = runs.begin(first)
        assert waits(other) and waits(late)
        runs.finish(1)
        assert other.wait(10) and waits(late)
        runs.finish(2)
        assert late.wait(10)


def test_many_of_a_kind_run_at_a_time_and_what_is_alone_is_alone(tmp_path: Path) -> None:
    with Runs(tmp_path).to_the_end() as runs:
        assert all(runs.begin("calls").wait(10) for _ in range(4))
        alone = runs.begin(ALONE)
        assert waits(alone)
        for number in range(4):
            runs.finish(number)
        assert alone.wait(10)
        others = [runs.begin(kind) for kind in ("calls", "computes", ALONE)]
        assert all(waits(other) for other in others)
        runs.finish(4)
        eventually_in_thread(lambda: sum(other.is_set() for other in others) == 1)
