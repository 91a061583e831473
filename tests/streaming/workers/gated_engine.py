"""An engine whose loading, in a worker process, waits until the test lets it go on."""

from __future__ import annotations

import sys
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

from tests.streaming.live_engine import LiveFakeEngine

_KEY = b"gate"


def gated_engine(address: Any) -> LiveFakeEngine:
    """Made in the worker."""
    with Client(address, authkey=_KEY) as gate:
        gate.recv()
    return LiveFakeEngine()


def engine_that_states_its_turns() -> LiveFakeEngine:
    """Its delay in ms is the worker's longest turn at the interpreter's lock."""
    return LiveFakeEngine(delay_ms=1000 * sys.getswitchinterval())


class Gate:
    """In the test."""

    def __init__(self) -> None:
        self._listener = Listener(authkey=_KEY)
        self.address = self._listener.address
        self._waiting: Connection | None = None

    def wait_until_loading(self) -> None:
        self._waiting = self._listener.accept()

    def open(self) -> None:
        assert self._waiting is not None
        self._waiting.send("go")
        self._waiting.close()

    def close(self) -> None:
        self._listener.close()
