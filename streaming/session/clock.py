"""One clock per session, for sound and picture alike.

Session time is a sample index at 16 kHz. `MediaClock` ties it to a time source through one origin
that is set once and never moves, so nothing drifts apart and nothing jumps between turns. A
microphone has a clock of its own: see `drift`.
"""

from __future__ import annotations

from lipstream.engine.time_source import MONOTONIC, TimeSource
from lipstream.engine.types import SAMPLE_RATE_HZ


class MediaClock:
    """Session time against wall time: sample n is complete at origin + n / 16000."""

    def __init__(self, time_source: TimeSource = MONOTONIC) -> None:
        self.time_source = time_source
        self.now = time_source.now
        self.origin_s = time_source.now()

    def wall_s(self, sample: int) -> float:
        """The monotonic time of a session sample; from the index, never summed."""
        return self.origin_s + sample / SAMPLE_RATE_HZ

    def sample(self) -> int:
        """Session samples whose time has come."""
        return int((self.now() - self.origin_s) * SAMPLE_RATE_HZ)
