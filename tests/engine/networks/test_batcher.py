"""Rows of several conversations into one batch, on a scripted clock."""

from __future__ import annotations

import gc
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from lipstream.engine import turns
from lipstream.engine.errors import BackendUnavailable, FrameLost, UsageError
from lipstream.engine.networks.batcher import WINDOW_S, Batcher, Seat
from lipstream.engine.networks.stage import Refined, StageRow
from tests.clock import ScriptedClock

MS = 0.001
CROP = np.zeros((2, 2, 3), np.uint8)


def row(level: int) -> StageRow:
    picture = np.full((2, 4, 3), level, np.uint8)
    return StageRow(picture, picture, None, None, (0.0, 0.0, 1.0))


def level_of(one: StageRow) -> int:
    return int(one.painted[0, 0, 0])


class Executor:
    """Inverts pictures; notes who came together and when; takes as long as it is told.

    Levels of `refused` are refused, and those of `breaks` break a whole batch.
    """

    name, device, precision, crop_shape = "fake", "cpu", "f32", (2, 2)

    def __init__(self, clock: ScriptedClock, takes_s: float = 0.0) -> None:
        self.clock, self.takes_s, self.began_s = clock, takes_s, clock.now()
        self.batches: list[tuple[float, list[int]]] = []
        self.refused: set[int] = set()
        self.breaks: set[int] = set()

    def run(self, rows: Sequence[StageRow]) -> list[Refined | UsageError]:
        levels = [level_of(one) for one in rows]
        at_ms = round((self.clock.now() - self.began_s) / MS, 3)
        self.batches.append((at_ms, sorted(levels)))
        if self.takes_s:
            self.clock.sleep(self.takes_s)
        if self.breaks & set(levels):
            raise ZeroDivisionError("in the middle of a batch")
        return [
            UsageError("not a number")
            if level in self.refused
            else Refined(255 - one.painted, CROP)
            for level, one in zip(levels, rows, strict=True)
        ]


class Calls:
    """Conversations, each a thread that refines rows at moments of the clock."""

    def __init__(self, takes_s: float = 0.0) -> None:
        self.clock = ScriptedClock(threads="lipstream-")
        self.executor = Executor(self.clock, takes_s)
        self.batcher = Batcher(self.executor, self.clock)
        self.answers: dict[int, Refined | Exception] = {}
        self.answered_ms: dict[int, float] = {}
        self._threads: list[threading.Thread] = []
        self._seats: list[Seat] = []  # of conversations that go on, whether or not they paint

    def at(self, times_ms: dict[int, float]) -> None:
        """One conversation that sends rows of these levels at these times."""
        own = self.batcher.seat()
        self._seats.append(own)

        def run() -> None:
            for level, time_ms in times_ms.items():
                self.clock.sleep(self.executor.began_s + time_ms * MS - self.clock.now())
                try:
                    self.answers[level] = own.refine(row(level))
                except Exception as error:
                    self.answers[level] = error
                now_ms = (self.clock.now() - self.executor.began_s) / MS
                self.answered_ms[level] = round(now_ms, 3)

        self._threads.append(threading.Thread(target=run, name="lipstream-call", daemon=True))

    def run(self, for_s: float = 1.0) -> list[tuple[float, list[int]]]:
        async def all_of_them() -> None:
            for thread in self._threads:
                thread.start()
            await self.clock.sleep_async(for_s)

        try:
            self.clock.run(all_of_them())
        finally:
            # The next test's clock would wait for this thread.
            self.batcher._end()
            if self.batcher._thread is not None:
                self.batcher._thread.join(10)
        assert not any(thread.is_alive() for thread in self._threads)
        return self.executor.batches

    def is_right(self, level: int) -> bool:
        found = self.answers[level]
        return isinstance(found, Refined) and bool((found.pixels == 255 - level).all())


def test_what_falls_due_within_2_ms_goes_together() -> None:
    calls = Calls()
    for level, time_ms in ((1, 0.0), (2, 1.0), (3, 1.9), (4, 2.5), (5, 4.4), (6, 50.0)):
        calls.at({level: time_ms})
    assert calls.run() == [(2.0, [1, 2, 3]), (4.5, [4, 5]), (52.0, [6])]
    assert all(calls.is_right(level) for level in range(1, 7))


def test_a_late_one_delays_nobody() -> None:
    calls = Calls()
    for level in range(1, 7):
        calls.at({level: 0.0, 10 + level: 40.0})
    calls.at({7: 2.1, 17: 45.0})
    calls.run()
    waited_ms = [calls.answered_ms[level] for level in range(1, 7)]
    waited_ms += [calls.answered_ms[10 + level] - 40 for level in range(1, 7)]
    assert max(waited_ms) <= WINDOW_S / MS
    assert calls.answered_ms[7] == 4.1 and calls.answered_ms[17] == 47.0


def test_one_alone_waits_for_nobody_and_all_of_them_for_no_more() -> None:
    calls = Calls()
    calls.at({1: 0.0, 2: 40.0})
    calls.run()
    assert calls.answered_ms == {1: 0.0, 2: 40.0}
    calls = Calls()
    for level in (1, 2, 3):
        calls.at({level: level * 0.5})
    assert calls.run() == [(1.5, [1, 2, 3])]


def test_who_has_left_is_not_waited_for() -> None:
    calls = Calls()
    gone = calls.batcher.seat()
    calls.at({1: 0.0})
    del gone
    gc.collect()
    assert calls.run() == [(0.0, [1])]


def test_a_batch_has_64_rows_at_most() -> None:
    calls = Calls()
    for level in range(150):
        calls.at({level: 0.0})
    batches = calls.run()
    assert sorted(len(levels) for _, levels in batches) == [22, 64, 64]
    assert [time_ms for time_ms, _ in batches] == [0.0, 0.0, 2.0]
    assert all(calls.is_right(level) for level in range(150))


def test_what_comes_while_a_batch_runs_is_in_the_next() -> None:
    calls = Calls(takes_s=0.010)
    calls.at({1: 0.0})
    for level, time_ms in ((2, 3.0), (3, 5.0), (4, 11.9)):
        calls.at({level: time_ms})
    assert calls.run() == [(2.0, [1]), (12.0, [2, 3, 4])]


def test_a_row_that_is_refused_costs_its_own_frame() -> None:
    calls = Calls()
    calls.executor.refused = {2}
    for level in range(5):
        calls.at({level: 0.0, 100 + level: 40.0})
    assert [len(levels) for _, levels in calls.run()] == [5, 5]
    assert isinstance(calls.answers[2], FrameLost) and "not a number" in str(calls.answers[2])
    assert all(calls.is_right(level) for level in calls.answers if level != 2)


def test_a_batch_that_breaks_is_run_row_by_row(caplog: pytest.LogCaptureFixture) -> None:
    calls = Calls()
    calls.executor.breaks = {3}
    for level in range(5):
        calls.at({level: 0.0, 100 + level: 40.0})
    sizes = [len(levels) for _, levels in calls.run()]
    assert sizes == [5, 1, 1, 1, 1, 1, 5]
    assert isinstance(calls.answers[3], FrameLost) and "in the middle" in str(calls.answers[3])
    assert all(calls.is_right(level) for level in calls.answers if level != 3)
    assert "is run row by row" in caplog.text


def test_an_answer_of_the_wrong_length_ends_no_thread() -> None:
    calls = Calls()
    whole = calls.executor.run
    calls.executor.run = lambda rows: whole(rows)[:-1] if len(rows) > 1 else whole(rows)
    for level in range(3):
        calls.at({level: 0.0})
    assert [len(levels) for _, levels in calls.run()] == [3, 1, 1, 1]
    assert all(calls.is_right(level) for level in range(3))


def test_a_device_that_goes_on_failing_ends_the_conversation() -> None:
    calls = Calls()
    calls.executor.refused = {1, 2, 3, 4, 6, 7, 8, 9, 10}
    calls.at({level: 40.0 * level for level in range(1, 11)})
    calls.run()
    lost = [level for level, found in calls.answers.items() if isinstance(found, FrameLost)]
    assert lost == [1, 2, 3, 4, 6, 7, 8, 9] and calls.is_right(5)
    assert isinstance(calls.answers[10], BackendUnavailable)
    assert "5 frames in a row" in str(calls.answers[10])


@pytest.mark.parametrize("count", [1, 7, 64])
def test_conversations_that_start_stop_and_fail_at_random(count: int) -> None:
    random = np.random.default_rng(count)
    calls = Calls(takes_s=0.001)
    sent: dict[int, float] = {}
    for _ in range(count):
        begins_ms, frames = float(random.uniform(0, 200)), int(random.integers(1, 4))
        levels = [len(sent) + k for k in range(frames)]
        times = {level: begins_ms + 40.0 * k for k, level in enumerate(levels)}
        sent |= times
        calls.at(times)
    kinds = random.random(len(sent))
    calls.executor.refused = {level for level in sent if kinds[level] < 0.1}
    calls.executor.breaks = {level for level in sent if kinds[level] > 0.95}
    wrong = calls.executor.refused | calls.executor.breaks
    calls.run()
    for level, time_ms in sent.items():
        if level in wrong:
            assert isinstance(calls.answers[level], FrameLost)
        else:
            assert calls.is_right(level)
        if not calls.executor.breaks:
            # Its own window, the batch before it, and its own.
            assert calls.answered_ms[level] - time_ms <= 2 + 1 + 1 + 0.001


def test_who_waits_gives_the_turn_to_others() -> None:
    """One computes at a time, and still all are in one batch."""
    calls = Calls()
    lock, computing, most = threading.Lock(), 0, 0

    def conversation(level: int, seat: Seat) -> None:
        nonlocal computing, most
        with turns.holding(lambda: lock):
            computing += 1
            most = max(most, computing)
            computing -= 1
            calls.answers[level] = seat.refine(row(level))
            assert lock.locked()

    seats = [calls.batcher.seat() for _ in range(7)]
    calls._threads = [
        threading.Thread(target=conversation, args=(k, seat), name="lipstream-call", daemon=True)
        for k, seat in enumerate(seats)
    ]
    assert [levels for _, levels in calls.run()] == [list(range(7))]
    assert most == 1 and not lock.locked() and all(calls.is_right(k) for k in range(7))


def test_what_cannot_run_fails_before_anybody_speaks() -> None:
    calls = Calls()
    calls.batcher.try_out()
    assert [levels for _, levels in calls.run()] == [[0], [0]]
    calls = Calls()
    calls.executor.breaks = {0}
    with pytest.raises(BackendUnavailable, match="fake cannot refine: .*in the middle of a batch"):
        calls.batcher.try_out()
    calls.run()


def test_the_thread_ends_with_the_last_user() -> None:
    calls = Calls()
    batcher: Any = Batcher(Executor(calls.clock))
    seat = batcher.seat()
    assert int(seat.refine(row(9)).pixels[0, 0, 0]) == 246
    thread = batcher._thread
    del batcher
    gc.collect()
    assert thread.is_alive(), "the seat uses it"
    del seat
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


def test_an_error_inside_a_turn_gives_it_back() -> None:
    lock = threading.Lock()
    entered: list[str] = []

    def fails() -> None:
        with turns.given_up():
            entered.append("free" if not lock.locked() else "held")
            raise UsageError("while it waits")

    for act, expected in ((fails, "free"), (_fail, "held")):
        with pytest.raises(UsageError), turns.holding(lambda: lock):
            entered.append("held" if lock.locked() else "free")
            act()
        assert not lock.locked() and expected in entered
    with turns.given_up():  # nobody's turn: nothing to give
        pass


def _fail() -> None:
    raise UsageError("at work")
