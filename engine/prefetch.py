"""The next one being made while this one is used."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def prefetch(items: Iterator[T]) -> Generator[T, None, None]:
    """The same items in the same order, each begun in a thread when the one before is handed out.

    What `items` raises is raised in its turn. `items` runs in one thread, never twice at once.
    """
    end = object()

    def begin() -> Future[object]:
        return thread.submit(next, items, end)

    with ThreadPoolExecutor(1) as thread:
        coming = begin()
        while (made := coming.result()) is not end:
            coming = begin()
            yield made  # type: ignore[misc]
