"""Where time comes from, and how a thread waits for it."""

from __future__ import annotations

import threading
import time
from typing import Final, Protocol


class TimeSource(Protocol):
    """A clock that threads wait on; the system's, or a scripted one."""

    def now(self) -> float:
        """s, monotonic; the same origin as the event loop's `time()`."""
        ...

    def condition(self) -> threading.Condition:
        """A condition whose `wait(timeout)` counts this source's seconds."""
        ...


class MonotonicTime:
    """The system's monotonic clock."""

    def now(self) -> float:
        """s, as `time.monotonic`."""
        return time.monotonic()

    def condition(self) -> threading.Condition:
        """A plain condition."""
        return threading.Condition()


MONOTONIC: Final = MonotonicTime()
