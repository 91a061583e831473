"""Warming an engine up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lipstream.streaming.session.live_engine import warm_up
from tests.streaming.live_engine import LiveFakeEngine, LiveFakeSession


class CountingEngine(LiveFakeEngine):
    """Keeps its sessions."""

    sessions: list[LiveFakeSession] = []

    def session(self) -> LiveFakeSession:
        self.sessions.append(super().session())
        return self.sessions[-1]


def test_a_warm_up_is_a_session_of_its_own_that_is_closed() -> None:
    CountingEngine.sessions.clear()
    took_s = warm_up(CountingEngine()).seconds
    (session,) = CountingEngine.sessions
    assert session.pushes == 50, "a second of sound"
    assert session.closed
    assert 0 < took_s < 5


def test_each_step_takes_a_turn() -> None:
    CountingEngine.sessions.clear()
    pushes_before: list[int] = []

    @contextmanager
    def turn() -> Iterator[None]:
        pushes_before.append(CountingEngine.sessions[0].pushes)
        yield

    warm_up(CountingEngine(), turn)
    assert pushes_before == list(range(50))
