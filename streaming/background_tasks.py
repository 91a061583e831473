"""Background tasks that are observed: none is lost to the garbage collector, none fails unseen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

logger = logging.getLogger(__name__)


class BackgroundTasks:
    """The tasks of one owner, on one event loop.

    Each is referenced until it ends. An exception that ends one is logged with its traceback, and
    `failed` is called with a one-line reason.
    """

    def __init__(self, failed: Callable[[str], object] | None = None) -> None:
        self._failed = failed
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run `work` on the running loop; `name` stands in the log."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        logger.error("background task %s failed", task.get_name(), exc_info=error)
        if self._failed is not None:
            self._failed(f"{task.get_name()} failed: {type(error).__name__}: {error}")

    async def cancel(self) -> None:
        """End all of them, and wait until they have ended."""
        tasks = self._others()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def finish(self) -> None:
        """Wait until all of them have ended by themselves."""
        await asyncio.gather(*self._others(), return_exceptions=True)

    def _others(self) -> list[asyncio.Task[Any]]:
        current = asyncio.current_task()
        return [task for task in self._tasks if task is not current]
