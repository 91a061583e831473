"""Sound between a card's callback, which must not wait, and the thread that reads it."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from lipstream.engine.types import F32


@dataclass(frozen=True, slots=True)
class CapturedPacket:
    """What one callback brought."""

    samples: F32  # f32 [n], at the card's rate
    first_sample: int  # of all that this stream brought
    overflowed: bool  # the card lost sound before it


class CapturedSound:
    """A bounded queue: when it is full the oldest packet goes, and is counted.

    A packet carries its place, so what is dropped leaves a gap and shifts nothing.
    """

    def __init__(self, capacity_samples: int) -> None:
        self.dropped_samples = 0
        self._capacity_samples = capacity_samples
        self._changed = threading.Condition()
        self._packets: deque[CapturedPacket] = deque()
        self._queued_samples = 0
        self._next_sample = 0
        self._closed = False

    def put(self, samples: F32, overflowed: bool) -> None:
        """From the callback; holds the lock for microseconds."""
        with self._changed:
            self._packets.append(CapturedPacket(samples, self._next_sample, overflowed))
            self._next_sample += samples.size
            self._queued_samples += samples.size
            while self._queued_samples > self._capacity_samples and len(self._packets) > 1:
                oldest = self._packets.popleft().samples.size
                self._queued_samples -= oldest
                self.dropped_samples += oldest
            self._changed.notify()

    def get(self, timeout_s: float) -> CapturedPacket | None:
        """The oldest packet; None when none came in time, or at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._packets or self._closed, timeout_s)
            if not self._packets or self._closed:
                return None
            packet = self._packets.popleft()
            self._queued_samples -= packet.samples.size
            return packet

    def close(self) -> None:
        """Wake who waits; nothing comes any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
