"""Rows of several conversations into one batch.

    thread of a conversation ─► Seat.refine ─┐
    thread of a conversation ─► Seat.refine ─┼─► one thread ─► StageExecutor.run ─► back to each
    thread of a conversation ─► Seat.refine ─┘

A batch begins with its first row and takes what comes within 2 ms, at most 64 rows. It is run
earlier where every conversation is in it: one alone waits for nobody. Rows that come later, or
while a batch runs, are in the next one.

A row that is refused costs nobody else's. When a batch fails as a whole its rows are run one by
one, so that the fault is known; a conversation that loses more than a few frames in a row is told
that the device fails.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections import deque
from typing import Final
from weakref import WeakSet

import numpy as np

from lipstream.engine import turns
from lipstream.engine.errors import BackendUnavailable, FrameLost, LipstreamError
from lipstream.engine.networks.stage import MOST_ROWS, Refined, StageExecutor, StageRow
from lipstream.engine.time_source import MONOTONIC, TimeSource

log = logging.getLogger(__name__)

WINDOW_S: Final = 0.002
_MOST_LOST: Final = 4  # frames in a row: a viewer sees a still picture, and not yet a fault


class Batcher:
    """One executor and the thread that runs it, shared by the conversations of a process."""

    def __init__(self, executor: StageExecutor, time_source: TimeSource = MONOTONIC) -> None:
        """The thread starts with the first row, and ends with the last user of this object."""
        self.executor = executor
        self._queue = _Queue(time_source)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._end = weakref.finalize(self, self._queue.close)

    def seat(self) -> Seat:
        """For one conversation, which holds it as long as it goes on."""
        seat = Seat(self)
        self._queue.seats.add(seat)
        return seat

    def try_out(self) -> None:
        """Two rows alone: what cannot run fails now, and a device captures its first graph.

        Raises: BackendUnavailable.
        """
        picture = np.zeros((*self.executor.crop_shape, 3), np.uint8)
        try:
            for _ in range(2):
                self.run(StageRow(picture, picture, picture, None, (0.0, 0.0, 1.0)))
        except FrameLost as error:
            raise BackendUnavailable(f"{self.executor.name} cannot refine: {error}") from error

    def run(self, row: StageRow) -> Refined:
        """What becomes of a row; blocks, and gives the caller's turn to others meanwhile.

        Raises: FrameLost when the row is refused, or its batch and it alone fail.
        """
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=_serve, args=(self.executor, self._queue), name="lipstream-stage",
                    daemon=True,
                )  # fmt: skip
                self._thread.start()
        with turns.given_up():
            found = self._queue.put(row).wait()
        if isinstance(found, Refined):
            return found
        raise FrameLost(f"a frame was not refined: {found}") from found


class Seat:
    """One conversation's place. Not for use from two threads at once."""

    def __init__(self, batcher: Batcher) -> None:
        """Use `Batcher.seat`."""
        self._batcher, self._lost = batcher, 0

    def refine(self, row: StageRow) -> Refined:
        """As `Batcher.run`.

        Raises:
            FrameLost: this frame has no picture; the next may have one.
            BackendUnavailable: for more than `_MOST_LOST` in a row.
        """
        try:
            refined = self._batcher.run(row)
        except FrameLost as error:
            self._lost += 1
            if self._lost > _MOST_LOST:
                raise BackendUnavailable(
                    f"{self._lost} frames in a row are lost; {error}"
                ) from error
            raise
        self._lost = 0
        return refined


class _Ticket:
    """A row that waits for its batch."""

    def __init__(self, row: StageRow, arrived_s: float, condition: threading.Condition) -> None:
        self.row, self.arrived_s = row, arrived_s
        self._condition = condition
        self._found: Refined | Exception | None = None

    def wait(self) -> Refined | Exception:
        with self._condition:
            while self._found is None:
                self._condition.wait()
            return self._found

    def answer(self, found: Refined | Exception) -> None:
        with self._condition:
            self._found = found
            self._condition.notify()


class _Queue:
    """Tickets in the order of their arrival; it knows nothing of the batcher, which may go."""

    def __init__(self, time_source: TimeSource) -> None:
        self.seats: WeakSet[Seat] = WeakSet()
        self._time, self._changed = time_source, time_source.condition()
        self._tickets: deque[_Ticket] = deque()
        self._closed = False

    def put(self, row: StageRow) -> _Ticket:
        ticket = _Ticket(row, self._time.now(), self._time.condition())
        with self._changed:
            self._tickets.append(ticket)
            self._changed.notify()
        return ticket

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def batch(self) -> list[_Ticket]:
        """The next one; empty when there will be none."""
        with self._changed:
            while not self._tickets and not self._closed:
                self._changed.wait()
            while self._tickets and len(self._tickets) < min(MOST_ROWS, len(self.seats)):
                left_s = self._tickets[0].arrived_s + WINDOW_S - self._time.now()
                if left_s <= 0 or self._closed:
                    break
                self._changed.wait(left_s)
            size = min(MOST_ROWS, len(self._tickets))
            return [self._tickets.popleft() for _ in range(size)]


def _serve(executor: StageExecutor, queue: _Queue) -> None:
    while batch := queue.batch():
        for ticket, found in zip(batch, _run(executor, batch), strict=True):
            ticket.answer(found)
        del batch


def _run(executor: StageExecutor, batch: list[_Ticket]) -> list[Refined | Exception]:
    rows = [ticket.row for ticket in batch]
    try:
        found: list[Refined | Exception] = [*executor.run(rows)]
        if len(found) != len(rows):
            raise RuntimeError(f"{len(found)} results for {len(rows)} rows")
        return found
    except Exception as error:
        if not isinstance(error, LipstreamError):
            log.exception("the renderer's stage failed")
        if len(batch) == 1:
            return [error]
        log.warning("a batch of %d failed and is run row by row: %s", len(batch), error)
        return [found for ticket in batch for found in _run(executor, [ticket])]
