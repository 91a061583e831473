"""What a worker process shares among its connections."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any
from unittest.mock import ANY

import pytest

from lipstream.engine.errors import UsageError
from lipstream.streaming.session import gc_policy
from lipstream.streaming.workers.process import ComputeTurn, WorkerState
from lipstream.streaming.workers.protocol import EngineDetails, Forget, Load
from tests.streaming.live_engine import LiveFakeEngine


def load(number: int) -> Load:
    make: Any = LiveFakeEngine
    return Load(number, make)


def test_a_load_is_described_to_the_server() -> None:
    engine = LiveFakeEngine()
    assert WorkerState().load(load(0)) == EngineDetails(120.0, "fake", engine.fps, (72, 64), ANY)


def test_a_load_during_a_conversation_neither_collects_nor_freezes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(gc_policy, "_PROCESS", gc_policy._Process())
    monkeypatch.setattr(gc, "collect", lambda *_: calls.append("collect"))
    monkeypatch.setattr(gc, "freeze", lambda: calls.append("freeze"))
    state = WorkerState()
    state.load(load(0))
    assert calls == ["collect", "freeze"], "the first engine of the process"
    with gc_policy.conversation():
        state.load(load(1))
        state.forget(Forget(0))
    assert calls == ["collect", "freeze"]


def test_an_engine_that_is_let_go_is_freed() -> None:
    state = WorkerState()
    state.load(load(3))
    engine = weakref.ref(state.engine(3))
    state.forget(Forget(3))
    state.forget(Forget(3))  # twice does no harm
    gc.collect()
    assert engine() is None
    with pytest.raises(UsageError, match="let go"):
        state.engine(3)


def test_a_conversation_goes_before_the_next_step_of_a_warm_up() -> None:
    """A plain lock gives a thread that asks again at once its next turn before those that wait."""
    turn, order = ComputeTurn(), []
    asked = threading.Event()

    def converse() -> None:
        with turn.conversation():
            order.append("conversation")

    talking = threading.Thread(target=converse)
    with turn.background():
        order.append("first step")
        talking.start()
        while not turn._conversations_waiting:
            asked.wait(0.001)
    with turn.background():
        order.append("second step")
    talking.join(5)
    assert order == ["first step", "conversation", "second step"]
