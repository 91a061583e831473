"""One clock per session, for sound and picture alike.

Session time is a sample index at 16 kHz. `MediaClock` ties it to the monotonic clock through one
origin that is set once and never moves, so nothing can drift apart and nothing jumps between
turns. What a microphone sends has a clock of its own: see `drift`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from lipstream.engine.types import SAMPLE_RATE_HZ

Now = Callable[[], float]  # s, monotonic


class MediaClock:
    """Session time against wall time: sample n has been heard in full at origin + n / 16000."""

    def __init__(self, now: Now = time.monotonic) -> None:
        self.now = now
        self.origin_s = now()

    def wall_s(self, sample: int) -> float:
        """The monotonic time that belongs to a session sample; from the index, never summed."""
        return self.origin_s + sample / SAMPLE_RATE_HZ

    def sample(self) -> int:
        """Session samples whose time has come."""
        return int((self.now() - self.origin_s) * SAMPLE_RATE_HZ)
