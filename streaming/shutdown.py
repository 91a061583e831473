"""SIGTERM while an event loop runs.

An exception raised by a signal's handler would end whichever task happens to run, and the loop
would swallow it. Ctrl-C needs nothing: asyncio cancels the main task.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager


@contextmanager
def on_sigterm(stop: Callable[[], object]) -> Iterator[None]:
    """Call `stop` on the running loop instead; only where signals come, in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop, previous = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)
    try:
        loop.add_signal_handler(signal.SIGTERM, stop)
    except NotImplementedError:  # Windows
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, previous)


def cancelled_by_sigterm() -> AbstractContextManager[None]:
    """`on_sigterm` for the task that asks: it ends as by Ctrl-C."""
    task = asyncio.current_task()
    assert task is not None
    return on_sigterm(task.cancel)
