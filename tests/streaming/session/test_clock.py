"""Session time, and the sound that waits for its place in it."""

from __future__ import annotations

import numpy as np
import pytest

from lipstream.streaming.session.clock import MediaClock
from lipstream.streaming.session.sound_queue import SoundQueue
from tests.clock import ScriptedClock


def test_wall_time_is_exact_after_a_day() -> None:
    clock = MediaClock(ScriptedClock(5.0))
    day = 24 * 3600 * 16_000
    assert clock.wall_s(day) == 5.0 + 86_400
    assert clock.wall_s(day + 320) - clock.wall_s(day) == pytest.approx(0.02, abs=1e-9)


def test_the_origin_never_moves() -> None:
    now = ScriptedClock(5.0)
    clock = MediaClock(now)
    now.time_s = 7.5
    assert (clock.sample(), clock.origin_s) == (40_000, 5.0)


def test_the_queue_returns_what_was_put_and_silence_between() -> None:
    queue = SoundQueue(1000)
    queue.put(np.full(10, 1, np.float32), 5)
    queue.put(np.full(10, 2, np.float32), 20)
    out = np.concatenate([queue.take(0, 12), queue.take(12, 20)])
    assert out.tolist() == [0] * 5 + [1] * 10 + [0] * 5 + [2] * 10 + [0] * 2
    assert queue.queued_samples == 0


def test_sound_that_comes_too_late_is_dropped_and_counted() -> None:
    queue = SoundQueue(1000)
    queue.take(0, 320)
    assert queue.put(np.ones(320, np.float32), 160) == 160
    assert queue.put(np.ones(100, np.float32), 100) == 0
    assert queue.dropped_samples == 260
    assert queue.take(320, 320).tolist() == [1] * 160 + [0] * 160


def test_a_full_queue_drops_the_oldest() -> None:
    queue = SoundQueue(640)
    for k in range(3):
        queue.put(np.full(320, k, np.float32), 320 * k)
    assert (queue.queued_samples, queue.dropped_samples) == (640, 320)
    assert set(queue.take(0, 320)) == {0.0} and set(queue.take(320, 320)) == {1.0}
