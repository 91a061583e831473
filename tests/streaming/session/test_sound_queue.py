"""Sound that waits for its place in session time."""

from __future__ import annotations

import numpy as np

from lipstream.streaming.session.sound_queue import SoundQueue, TurnSound


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


def test_sound_of_an_ended_turn_is_forgotten_and_refused() -> None:
    sound = TurnSound(1600, turn=0)
    sound.put(np.full(320, 0.1, np.float32), 0, turn=0)
    sound.put(np.full(320, 0.2, np.float32), 320, turn=1)
    sound.put(np.full(320, 0.1, np.float32), 640, turn=0)
    assert sound.ready(640) and not sound.ready(641)
    taken = sound.take(0, 960, turn=1)
    assert not taken[:320].any() and (taken[320:640] == np.float32(0.2)).all()
    assert not taken[640:].any()
