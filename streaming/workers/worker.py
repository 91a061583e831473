"""One worker process, seen from the process that started it."""

from __future__ import annotations

import logging
import multiprocessing
import threading
from concurrent.futures import Future
from multiprocessing.connection import Client, Connection
from typing import Final

from lipstream.engine.errors import LipstreamError, WorkerLost
from lipstream.streaming.workers.process import run_worker
from lipstream.streaming.workers.protocol import EngineDetails, Forget, Load, Make, ask

logger = logging.getLogger(__name__)

_READY_S: Final = 60.0
_LEAVE_S: Final = 3.0


class Worker:
    """One process. Methods may be called from any thread; they block."""

    def __init__(self) -> None:
        """Start it; it is ready some time later."""
        context = multiprocessing.get_context("spawn")  # threads do not survive a fork
        self._ready, ready = context.Pipe(duplex=False)
        self.conversations = 0
        self._process = context.Process(
            target=run_worker, args=(ready,), name="lipstream-worker", daemon=True
        )
        self._process.start()
        ready.close()
        self._lock = threading.Lock()  # of the next two
        self._address: str | None = None
        self._loaded: dict[int, Future[EngineDetails]] = {}

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.is_alive()

    def connect(self) -> Connection:
        """A connection of its own for a conversation, or for one question. Raises: WorkerLost."""
        address = self._wait_until_ready()
        try:
            # The key is the one that multiprocessing gives to a process and its children.
            return Client(address, authkey=multiprocessing.current_process().authkey)
        except (OSError, EOFError) as error:
            raise WorkerLost(f"a worker process cannot be reached ({error})") from error

    def _wait_until_ready(self) -> str:
        with self._lock:
            if self._address is None:
                try:
                    if not self._ready.poll(_READY_S):
                        raise WorkerLost(f"a worker process was not ready within {_READY_S:.0f} s")
                    self._address = self._ready.recv()
                except EOFError as error:
                    raise WorkerLost("a worker process did not start") from error
            assert self._address is not None
            return self._address

    def has(self, number: int) -> bool:
        """Whether an engine is loaded."""
        loaded = self._loaded.get(number)  # without the lock, under which a start is waited for
        return loaded is not None and loaded.done()

    def load(self, number: int, make: Make) -> EngineDetails:
        """Once, whoever asks; the others wait for the first."""
        with self._lock:
            loaded = self._loaded.get(number)
            first = loaded is None
            if loaded is None:
                loaded = self._loaded[number] = Future()
        if first:
            try:
                with self.connect() as connection:
                    loaded.set_result(ask(connection, Load(number, make)))
            except BaseException as error:
                with self._lock:
                    self._loaded.pop(number, None)  # the next who asks may try again
                loaded.set_exception(error)
        return loaded.result()

    def forget(self, number: int) -> None:
        """Let an engine go, where it is loaded."""
        with self._lock:
            loaded = self._loaded.pop(number, None)
        if loaded is None or not self.alive:
            return
        try:
            loaded.result()
            with self.connect() as connection:
                ask(connection, Forget(number))
        except LipstreamError as error:
            logger.info("an engine was let go with its worker: %s", error)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.join(_LEAVE_S)
        if self.alive:
            self._process.kill()
        self._ready.close()
