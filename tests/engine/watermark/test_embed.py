"""Frames with a mark."""

import threading

import numpy as np
import pytest

from lipstream.engine.errors import UsageError
from lipstream.engine.watermark.embed import Watermark
from tests.engine.watermark.pictures import clip, scene


def psnr_db(one, other):
    return 10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2))


@pytest.mark.parametrize(("h", "w"), [(2, 2), (14, 6), (90, 162), (288, 360), (360, 640)])
def test_any_even_size_is_marked_below_the_eye(h, w):
    (frame,) = clip(max(h, 8), max(w, 8), 1)  # rough all over: the least PSNR there is
    frame = np.ascontiguousarray(np.resize(frame, (h * 3 // 2, w)))
    marked = Watermark(5).marked(frame)
    assert marked.shape == frame.shape and (marked[h:] == frame[h:]).all()
    if h * w > 1000:  # of a few pixels the mean is what it happens to be
        assert psnr_db(marked[:h], frame[:h]) >= 42
        assert (marked[:h] != frame[:h]).mean() > 0.2


def test_a_copy_is_marked_and_the_frame_stays():
    (frame,) = clip(96, 128, 1)
    before, mark = frame.copy(), Watermark(6)
    marked = mark.marked(frame)
    np.testing.assert_array_equal(frame, before)
    mark.apply(frame)
    np.testing.assert_array_equal(frame, marked)


def test_the_same_in_every_thread_and_another_in_every_session():
    (frame,) = clip(96, 128, 1)
    mark, barrier, made = Watermark(7), threading.Barrier(4), []

    def work():
        barrier.wait()
        made.append(mark.marked(frame))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 4 and all((one == made[0]).all() for one in made)
    assert (Watermark(7).marked(frame) == made[0]).all()
    assert (Watermark(8).marked(frame) != made[0]).any()


def test_a_still_picture_does_not_flicker():
    """The pattern stands, and grain of one level changes next to nothing of it."""
    random, still, mark = np.random.default_rng(1), scene(128, 128), Watermark(9)
    frames = []
    for _ in range(8):
        frame = np.full((192, 128), 128, np.uint8)
        frame[:128] = np.clip(still + random.integers(0, 2, still.shape), 16, 235)
        frames.append((frame, mark.marked(frame)))
    changes = np.array([m[:128].astype(float) - f[:128] for f, m in frames])
    assert changes.std(0).mean() < 0.2 * changes.mean(0).std()


def test_what_is_no_frame_is_refused():
    with pytest.raises(UsageError, match="session id"):
        Watermark(2**32)
    with pytest.raises(UsageError, match="even h and w"):
        Watermark(1).apply(np.zeros((9, 7), np.uint8))
