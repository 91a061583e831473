"""One scripted clock, in place of sleeps: time stands still until everything waits for it.

    clock = ScriptedClock()
    runner = SessionRunner(engine, time_source=clock)   # its thread waits on the clock

    async def test() -> None:
        runner.start()
        await clock.sleep_async(0.8)                     # 0.8 s of the clock, about 10 ms of ours

    clock.run(test())

`run` drives an event loop whose `time()` is the clock, so `asyncio.sleep` and timeouts count its
seconds. When the loop has nothing to do and every conversation's thread waits, the clock moves to
the next moment that anybody waits for. Compute takes no time but what a fake asks for by `sleep`.

Sockets work, but their bytes take no time of this clock. What paces itself by `time.monotonic` (a
sound server, a browser, a framework's own loop) cannot be scripted.
"""

from __future__ import annotations

import asyncio
import math
import selectors
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

_STUCK_S: Final = 10.0  # of real time without progress: the test fails
_POLL_S: Final = 0.0002
_BLOCKED_JOB_S: Final = 0.05  # an executor's job that waits for a thread which waits for the clock


@dataclass(eq=False)
class _Waiter:
    thread: threading.Thread
    condition: _ScriptedCondition
    deadline_s: float


class _ScriptedCondition(threading.Condition):
    """Waits for seconds of the clock; a thread that was notified counts as running at once."""

    def __init__(self, clock: ScriptedClock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        clock = self._clock
        deadline_s = float("inf") if timeout is None else clock.now() + timeout
        if timeout is not None and timeout > 0:
            # At least a step of floating point: who waits for less would wait for ever.
            deadline_s = max(deadline_s, math.nextafter(clock.now(), math.inf))
        waiter = _Waiter(threading.current_thread(), self, deadline_s)
        with clock._lock:
            clock._waiters.append(waiter)
        super().wait()  # until `notify`, by another thread or by the clock
        return clock.now() < deadline_s

    def notify(self, n: int = 1) -> None:
        with self._clock._lock:
            self._clock._waiters = [w for w in self._clock._waiters if w.condition is not self]
        super().notify(len(self._waiters))  # type: ignore[attr-defined]


class ScriptedClock:
    """A `TimeSource` that a test moves by hand, or that `run` moves."""

    def __init__(self, start_s: float = 1000.0, threads: str = "lipstream-session") -> None:
        """`threads`: how the names of the threads begin that must wait before time moves."""
        self.time_s = start_s
        self._threads = threads
        self._lock = threading.Lock()
        self._waiters: list[_Waiter] = []
        self._jobs = 0  # of the loop's executor

    def now(self) -> float:
        """s."""
        return self.time_s

    def condition(self) -> threading.Condition:
        """See `TimeSource`."""
        return _ScriptedCondition(self)

    def sleep(self, seconds: float) -> None:
        """In a thread: so many seconds of the clock pass."""
        condition, end_s = self.condition(), self.time_s + seconds
        with condition:
            while self.time_s < end_s:
                condition.wait(end_s - self.time_s)

    async def sleep_async(self, seconds: float) -> None:
        """On the loop of `run`: so many seconds of the clock pass."""
        await asyncio.sleep(seconds)

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        """Run to the end on a loop of this clock."""
        with asyncio.Runner(loop_factory=lambda: _ScriptedLoop(self)) as runner:
            runner.run(test)

    def _busy(self) -> tuple[bool, bool]:
        """Whether any conversation's thread runs; whether any job of the executor does."""
        with self._lock:
            waiting = {waiter.thread for waiter in self._waiters}
        ours = {t for t in threading.enumerate() if t.name.startswith(self._threads)}
        return not ours <= waiting, self._jobs > len(waiting - ours)

    def _next_s(self) -> float:
        with self._lock:
            return min((waiter.deadline_s for waiter in self._waiters), default=float("inf"))

    def _wake(self) -> None:
        """Whoever waits for no later than now."""
        with self._lock:
            due = {w.condition for w in self._waiters if w.deadline_s <= self.time_s}
        for condition in due:
            with condition:
                condition.notify_all()


class _ScriptedSelector(selectors.DefaultSelector):
    """Where a loop would block, the clock moves."""

    def __init__(self, clock: ScriptedClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        clock = self._clock
        if timeout is not None and timeout <= 0:
            return super().select(0)
        until_s = float("inf") if timeout is None else clock.time_s + timeout
        began_s = moved_s = time.monotonic()
        while True:
            threads, jobs = clock._busy()
            if events := super().select(_POLL_S if threads or jobs else 0):
                return events
            now_s = time.monotonic()
            if threads or (jobs and now_s - moved_s < _BLOCKED_JOB_S):
                if now_s - moved_s > _STUCK_S:
                    raise RuntimeError("a thread neither waits for the scripted clock nor ends")
                continue
            moved_s = now_s
            next_s = clock._next_s()
            if next_s <= until_s and next_s < float("inf"):
                clock.time_s = max(clock.time_s, next_s)
                clock._wake()
            elif until_s < float("inf"):
                clock.time_s = until_s
                return []
            elif now_s - began_s > _STUCK_S:
                raise RuntimeError("nothing will ever happen: no timer, no thread, no socket")
            else:
                time.sleep(_POLL_S)


class _ScriptedLoop(asyncio.SelectorEventLoop):
    def __init__(self, clock: ScriptedClock) -> None:
        self._scripted = clock
        super().__init__(_ScriptedSelector(clock))

    def time(self) -> float:
        return self._scripted.time_s

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        self._scripted._jobs += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._job_done)
        return future

    def _job_done(self, _: object) -> None:
        self._scripted._jobs -= 1
