"""Turns at the processor: who waits for a device gives its turn to somebody else meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager

Turn = Callable[[], AbstractContextManager[object]]


class _Own(threading.local):
    """Of this thread."""

    turn: Turn | None = None
    held: AbstractContextManager[object] | None = None


_own = _Own()


@contextmanager
def holding(turn: Turn) -> Generator[None]:
    """Hold a turn while the block runs, but for `given_up`. `turn`: makes what is entered for it.

    Not within another `holding`.
    """
    _take(turn)
    _own.turn = turn
    try:
        yield
    finally:
        _own.turn = None
        _give_up()


@contextmanager
def given_up() -> Generator[None]:
    """Let others compute while the block waits; then hold the turn again, when it is free."""
    turn = _own.turn
    if turn is None:
        yield
        return
    _give_up()
    try:
        yield
    finally:
        _take(turn)


def _take(turn: Turn) -> None:
    held = turn()
    held.__enter__()
    _own.held = held


def _give_up() -> None:
    held, _own.held = _own.held, None
    if held is not None:
        held.__exit__(None, None, None)
