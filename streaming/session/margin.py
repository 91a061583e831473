"""How much later than at best a live source is placed, so that its late packets are in time."""

from __future__ import annotations

from collections import deque
from typing import Final

from lipstream.engine.types import SAMPLE_RATE_HZ

MAX_MARGIN_S: Final = 0.2  # a longer answer is worse than a lost word

_WATCHED_S: Final = 20.0
_FEWEST_PACKETS: Final = 50  # a second of them; with fewer nothing is given back
_MAY_BE_LOST_S: Final = 0.06  # in 20 s: a single late packet is not a network that jitters
_SPARE_S: Final = 0.005  # beyond what was needed


class JitterMargin:
    """The margin in force, and the one that the packets of the last 20 s have needed."""

    def __init__(self, max_wait_s: float) -> None:
        self.in_force_s = 0.0
        self._max_wait_s = max_wait_s
        self._lateness: deque[tuple[float, float]] = deque()  # (arrival, lateness), s
        self._lost_s: deque[float] = deque()  # arrivals of packets that came too late
        self._judged_s = float("-inf")
        self._needed_s = float("inf")

    @property
    def excess_s(self) -> float:
        """How much of it nobody has needed for 20 s."""
        return max(0.0, self.in_force_s - self._needed_s)

    def give_back(self, at_most_s: float) -> float:
        """Shrink by at most so much; returns by how much it was."""
        given_s = min(at_most_s, self.in_force_s)
        self.in_force_s -= given_s
        return given_s

    def observe(self, arrival_s: float, lateness_s: float, phase: int) -> None:
        """A packet that is not stale.

        Args:
            arrival_s: monotonic.
            lateness_s: after the earliest of the last seconds.
            phase: samples by which its first step began before it does.
        """
        self._lateness.append((arrival_s, lateness_s))
        while self._lateness[0][0] < arrival_s - _WATCHED_S:
            self._lateness.popleft()
        if arrival_s - self._judged_s < 1.0 or len(self._lateness) < _FEWEST_PACKETS:
            return
        self._judged_s = arrival_s
        latest = sorted(lateness for _, lateness in self._lateness)
        lost = int(len(latest) * _MAY_BE_LOST_S / _WATCHED_S)
        needed_s = latest[-1 - lost] - self._max_wait_s + _SPARE_S
        self._needed_s = max(0.0, needed_s + phase / SAMPLE_RATE_HZ)

    def may_lose(self, arrival_s: float, packet_s: float) -> bool:
        """Whether a late packet is one of the few that are lost; if so it is counted."""
        while self._lost_s and self._lost_s[0] < arrival_s - _WATCHED_S:
            self._lost_s.popleft()
        if (len(self._lost_s) + 1) * packet_s > _MAY_BE_LOST_S:
            return False
        self._lost_s.append(arrival_s)
        return True
