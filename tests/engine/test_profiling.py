"""Spans are timed where they run, and cost nothing without a recorder."""

from __future__ import annotations

import threading
import time

import pytest

from lipstream.engine import profiling
from lipstream.engine.profiling import Recorder, recording, span


class Clock:
    """A clock that `sleep` moves, and each reading by 1 µs."""

    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        self.ns += 1000
        return self.ns

    def sleep(self, seconds: float) -> None:
        self.ns += round(seconds * 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(profiling, "_now_ns", clock)
    monkeypatch.setattr(time, "sleep", clock.sleep)
    return clock


@span("outer")
def outer(inner_s: float, outer_s: float) -> str:
    time.sleep(outer_s)
    with span("inner"):
        time.sleep(inner_s)
    return "done"


def test_the_own_time_of_a_span_excludes_those_within_it(clock: Clock) -> None:
    recorder = Recorder()
    with recording(recorder):
        assert outer(0.03, 0.01) == "done"
    inner, whole = recorder.take()
    assert (inner.name, inner.depth) == ("inner", 1)
    assert (whole.name, whole.depth) == ("outer", 0)
    assert whole.own_ns == whole.end_ns - whole.begin_ns - (inner.end_ns - inner.begin_ns)
    assert inner.own_ns == pytest.approx(30e6, abs=10e3)
    assert whole.own_ns == pytest.approx(10e6, abs=10e3)
    assert recorder.take() == []


def test_nothing_is_recorded_without_a_recording() -> None:
    recorder = Recorder()
    outer(0, 0)
    with recording(recorder):
        pass
    outer(0, 0)
    assert recorder.take() == []


def test_an_error_ends_its_span() -> None:
    @span("wrong")
    def wrong() -> None:
        raise ValueError

    recorder = Recorder()
    with recording(recorder):
        with pytest.raises(ValueError):
            wrong()
        outer(0, 0)
    assert [(s.name, s.depth) for s in recorder.take()] == [
        ("wrong", 0), ("inner", 1), ("outer", 0)
    ]  # fmt: skip


def test_threads_do_not_mix() -> None:
    recorder = Recorder()
    with recording(recorder):
        threads = [threading.Thread(target=outer, args=(0.01, 0.01)) for _ in range(4)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    spans = recorder.take()
    assert len(spans) == 8
    for name, depth in (("inner", 1), ("outer", 0)):
        assert len({s.thread for s in spans if (s.name, s.depth) == (name, depth)}) == 4


def test_one_recording_at_a_time() -> None:
    with recording(Recorder()), pytest.raises(RuntimeError), recording(Recorder()):
        pass


def test_a_slowed_span_takes_that_much_longer(clock: Clock) -> None:
    recorder = Recorder({"inner": 5.0})
    with recording(recorder):
        outer(0.002, 0.001)
    inner, whole = recorder.take()
    assert inner.own_ns == pytest.approx(7e6, abs=10e3)
    assert whole.own_ns == pytest.approx(1e6, abs=10e3)


@pytest.mark.parametrize("slowed_ms", [0.0, 5.0])
def test_spans_of_one_call_of_compiled_code_are_separate(clock: Clock, slowed_ms: float) -> None:
    recorder = Recorder({"color": slowed_ms} if slowed_ms else None)
    with recording(recorder), span("warp"):
        time.sleep(0.010)  # one call, of which 2 and 3 ms belong to other spans
        recorder.add({"color": 2_000_000, "composite": 3_000_000})
    own_ns = {span.name: span.own_ns for span in recorder.take()}
    assert own_ns["color"] == pytest.approx(2e6 + slowed_ms * 1e6, abs=10e3)
    assert own_ns["composite"] == pytest.approx(3e6, abs=10e3)
    assert own_ns["warp"] == pytest.approx(5e6, abs=10e3)
