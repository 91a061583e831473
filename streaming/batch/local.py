"""Jobs on this machine: worker processes that are reused, each for one job at a time."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from concurrent import futures
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lipstream.streaming.batch.jobs import Failed, Job, Outcome, Perform

if TYPE_CHECKING:
    from types import FrameType

_STOP_S: Final = 10.0  # for removing what is incomplete; then a worker is killed


class Stopped(BaseException):
    """Raised in a worker that is to stop, so that context managers remove incomplete files."""


@dataclass(slots=True)
class _Slot:
    """A pool of one process: one that is killed takes no other job along. `pid`: once it runs."""

    pool: ProcessPoolExecutor
    pid: Future[int]
    job: Job | None = None
    future: Future[Outcome] | None = None


class LocalExecutor:
    """`jobs` processes, started when they are first needed."""

    def __init__(self, perform: Perform, jobs: int) -> None:
        self._perform, self._jobs = perform, jobs
        self._slots: list[_Slot] = []

    @property
    def room(self) -> int:
        """Processes without a job."""
        return self._jobs - sum(slot.job is not None for slot in self._slots)

    def submit(self, job: Job) -> None:
        """To an idle process, or to a new one; one that cannot start is told by `wait`."""
        for slot in [slot for slot in self._slots if slot.job is None]:
            try:
                slot.future = slot.pool.submit(self._perform, job)
            except BrokenProcessPool:  # killed while it was idle
                self._let_go(slot)
            else:
                slot.job = job
                return
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(1, context, initializer=_begin)
        slot = _Slot(pool, pool.submit(os.getpid), job)
        self._slots.append(slot)
        try:
            slot.future = pool.submit(self._perform, job)
        except BrokenProcessPool as error:
            slot.future = Future()
            slot.future.set_exception(error)

    def _let_go(self, slot: _Slot) -> None:
        self._slots.remove(slot)
        slot.pool.shutdown(wait=False)

    def wait(self, timeout_s: float) -> list[tuple[Job, Outcome]]:
        """What has ended."""
        running = [slot.future for slot in self._slots if slot.future is not None]
        futures.wait(running, timeout_s, futures.FIRST_COMPLETED)
        ended: list[tuple[Job, Outcome]] = []
        for slot in list(self._slots):
            if slot.future is None or not slot.future.done():
                continue
            assert slot.job is not None
            ended.append((slot.job, self._outcome(slot)))
            slot.job = slot.future = None
        return ended

    def _outcome(self, slot: _Slot) -> Outcome:
        assert slot.future is not None
        try:
            return slot.future.result()
        except BrokenProcessPool:
            self._let_go(slot)
            return Failed("its worker process was killed, perhaps for want of memory", again=True)
        except Stopped:  # somebody else sent SIGTERM
            return Failed("its worker process was told to stop", again=True)

    def close(self) -> None:
        """Stop what still runs and let the processes go."""
        running = [slot for slot in self._slots if slot.future is not None]
        for number, wait_s in ((signal.SIGTERM, _STOP_S), (_KILL, None)):
            left = [slot for slot in running if slot.future is not None and not slot.future.done()]
            for slot in left:
                with contextlib.suppress(BrokenProcessPool, ProcessLookupError):
                    os.kill(slot.pid.result(), number)  # once it has started
            futures.wait([slot.future for slot in left if slot.future is not None], wait_s)
        for slot in self._slots:
            slot.pool.shutdown(cancel_futures=True)
        self._slots.clear()


_KILL: Final = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows has but the one


def _begin() -> None:
    """In a worker, before its first job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command to handle
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os.kill(os.getpid(), signal.SIGTERM)  # what is incomplete is removed
    time.sleep(_STOP_S)
    os._exit(1)
