"""Blinks of a photo: when, how often, and how a lid moves."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

F64 = NDArray[np.float64]

# Frames at 25 fps: a lid falls in 80 ms, stays shut for 20 to 60 ms and rises in 200 ms
# (Evinger, Manning and Sibony 1991, rounded).
_CLOSING: Final = 2.0
_SHUT: Final = (0.5, 1.5)
_OPENING: Final = 5.0
_SPREAD: Final = 0.35  # of the logarithm of the intervals
_LEAST: Final = 14.0  # frames from one blink to the next
_DOUBLE: Final = 0.12  # of blinks are followed by another at once
_DOUBLE_AFTER: Final = (9.0, 12.0)


def blinks(random: Generator, interval_frames: F64) -> tuple[F64, list[float]]:
    """Blinks on a circle of N frames, with a median interval f64 [N] around each frame.

    Returns: how far the lids are closed, f64 [N], 0 to 1; and when they begin to fall, frames.
    """
    frames = len(interval_frames)
    times = [float(random.uniform(0, interval_frames[0]))]
    while True:
        if random.uniform() < _DOUBLE:
            wait = float(random.uniform(*_DOUBLE_AFTER))
        else:
            local = interval_frames[int(times[-1]) % frames]
            wait = max(_LEAST, local * float(np.exp(_SPREAD * random.standard_normal())))
        if times[-1] + wait > frames + times[0] - _LEAST:
            break
        times.append(times[-1] + wait)
    closed = np.zeros(frames)
    for at in times:
        shut, depth = random.uniform(*_SHUT), random.uniform(0.93, 1.0)
        window = np.arange(int(at), int(at + _CLOSING + shut + _OPENING) + 2, dtype=np.int64)
        closed[window % frames] = np.maximum(
            closed[window % frames], depth * _lid(window.astype(np.float64) - at, shut)
        )
    return closed, times


def _lid(since: F64, shut: float) -> F64:
    """How far a lid is closed `since` frames after it began to fall: fast down, slower up."""
    falling = np.clip(since / _CLOSING, 0, 1)
    rising = np.clip((since - _CLOSING - shut) / _OPENING, 0, 1)
    lid: F64 = falling**2 * (3 - 2 * falling) * (1 - rising) ** 2
    return lid
