"""Session time, and where a microphone's packets lie on it."""

from __future__ import annotations

import numpy as np
import pytest

from lipstream.streaming.clock import MediaClock, SourceAnchor
from lipstream.streaming.sound_queue import SoundQueue
from tests.streaming.live_engine import ScriptedClock


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


def test_a_start_burst_does_not_stay_in_the_delay() -> None:
    """Packets 0 to 14 arrive together, 300 ms late; the next ones are on time."""
    clock = MediaClock(ScriptedClock(0.0))
    anchor = SourceAnchor(clock)
    for k in range(15):
        anchor.place(320 * k, 320, 1.0 + 0.3)
    for k in range(15, 60):
        end_s = 0.02 * (k + 1)
        placed = anchor.place(320 * k, 320, 1.0 + end_s)
    assert placed + 320 == round(16_000 * (1.0 + 0.02 * 60))


def test_jitter_alone_does_not_move_a_source() -> None:
    anchor = SourceAnchor(MediaClock(ScriptedClock(0.0)))
    rng = np.random.default_rng(1)
    shifts = set()
    for k in range(3000):
        late_s = 0.0 if k % 50 == 0 else rng.uniform(0, 0.1)
        shifts.add(anchor.place(320 * k, 320, 0.02 * (k + 1) + late_s) - 320 * k)
    assert shifts == {0}


def test_a_slow_sound_card_is_followed_packet_by_packet() -> None:
    """200 ppm slow for 10 minutes is 120 ms; unfollowed, all of it would come too late."""
    clock = MediaClock(ScriptedClock(0.0))
    anchor = SourceAnchor(clock)
    steps = []
    for k in range(30_000):
        arrival_s = 0.02 * (k + 1) * 1.0002
        steps.append(anchor.place(320 * k, 320, arrival_s) + 320 - round(arrival_s * 16_000))
    assert min(steps) > -480 and max(steps) <= 1  # never over a packet and a window behind


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
