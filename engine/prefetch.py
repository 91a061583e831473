"""A worker thread that makes the next item while the caller uses this one."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Prefetcher:
    """One thread, started by the first use and kept until `close` or until this is collected.

    The thread is the same for every use, so scratch that compiled code keeps a thread is reused.
    """

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None

    @contextmanager
    def ahead(self, items: Iterator[T]) -> Generator[Iterator[T], None, None]:
        """The same items in the same order, each begun when the one before it is handed out.

        `items` runs in the worker thread, never twice at once. What it raises is raised in its
        turn. The block ends, also by an exception, when the item in progress is done.
        """
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="lipstream-prefetch")
        thread, end = self._thread, object()
        coming: Future[object] = thread.submit(next, items, end)

        def handed_out() -> Iterator[T]:
            nonlocal coming
            while (item := coming.result()) is not end:
                coming = thread.submit(next, items, end)
                yield item  # type: ignore[misc]

        try:
            yield handed_out()
        finally:
            wait([coming])

    def close(self) -> None:
        """End the thread; a later use starts another."""
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
