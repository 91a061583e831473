"""One clock per session, for sound and picture alike.

Session time is a sample index at 16 kHz. `MediaClock` ties it to the monotonic clock through one
origin that is set once and never moves, so nothing can drift apart and nothing jumps between
turns. What a microphone sends has a clock of its own; `SourceAnchor` says which session sample
each of its samples is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from lipstream.engine.types import SAMPLE_RATE_HZ, STEP_SAMPLES

Now = Callable[[], float]  # s, monotonic

_WINDOW_S: Final = 5.0  # the anchor is the earliest of the last one to two windows


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


class SourceAnchor:
    """Places a live source on the session's clock by its earliest (arrival − media time).

    A microphone's first packets come late and in a burst: anchored on the first of them, the
    200 to 600 ms would stay in the delay for good. The earliest packet seen shows when a sample
    can be here at best; the others are then late by what the network does to them. The earliest
    is taken over the last 5 to 10 s, so a sound card that runs slow or fast is followed in
    steps of one packet instead of drifting.
    """

    def __init__(self, clock: MediaClock) -> None:
        self._clock = clock
        self._window_start_s: float | None = None
        self._earliest_s = (float("inf"), float("inf"))  # this window, the one before
        self._shift_samples: int | None = None

    def place(self, first_sample: int, length_samples: int, arrival_s: float) -> int:
        """Session sample of a packet's first sample.

        Args:
            first_sample: on the source's own clock, at 16 kHz.
            length_samples: of the packet.
            arrival_s: monotonic.
        """
        end_sample = first_sample + length_samples
        offset_s = arrival_s - end_sample / SAMPLE_RATE_HZ
        this, before = self._earliest_s
        if self._window_start_s is None:
            self._window_start_s = arrival_s
        elif arrival_s - self._window_start_s >= _WINDOW_S:
            self._window_start_s = arrival_s
            this, before = float("inf"), this
        self._earliest_s = (min(this, offset_s), before)
        earliest_s = min(self._earliest_s)
        shift = round((earliest_s - self._clock.origin_s) * SAMPLE_RATE_HZ)
        # Earlier by anything is followed at once, later only by a whole packet: a source that
        # keeps time must not be cut and stretched by a network that breathes.
        if (
            self._shift_samples is None
            or shift < self._shift_samples
            or shift - self._shift_samples >= STEP_SAMPLES
        ):
            self._shift_samples = shift
        return first_sample + self._shift_samples
