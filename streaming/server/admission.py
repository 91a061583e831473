"""Whether one more conversation can be computed in time, by what the others are measured to cost.

A number of conversations says little: one takes 0.2 cores or 1.1, by target, models and machine.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lipstream.engine.cores import usable_cores
from lipstream.engine.errors import ServerBusy
from lipstream.engine.types import SAMPLE_RATE_HZ, STEP_SAMPLES
from lipstream.streaming.session.live_engine import LiveEngine

if TYPE_CHECKING:
    from lipstream.streaming.server.rooms import Room

# Of the cores; what is left is for peaks and for the event loop.
_USABLE: Final = 0.85
# What one process uses at most: a frame needs the interpreter's lock for a third to a half of it.
_PROCESS_CORES: Final = 1.4
_ENCODING_CORES: Final = 0.08  # of a conversation whose own cost is not measured yet
_MEASURED_S: Final = 2.0  # a conversation this old states its cost itself
_STEP_MS: Final = 1000 * STEP_SAMPLES / SAMPLE_RATE_HZ
_MOST_BUSY: Final = 0.8  # of a conversation's time; waiting for cores and locks is in it


@dataclass(frozen=True, slots=True)
class Admission:
    """Refuses conversations that the machine has no time for. Used on the event loop."""

    budget_cores: float
    cores: Callable[[LiveEngine], float]  # by the warm-up of an engine; 0: unknown

    @classmethod
    def for_processes(cls, processes: int, cores: Callable[[LiveEngine], float]) -> Admission:
        """For so many workers; 0: the server's own process."""
        return cls(_USABLE * min(usable_cores(), processes or _PROCESS_CORES), cores)

    def check(self, engine: LiveEngine, rooms: Collection[Room]) -> None:
        """Whether there is time for a conversation of this engine.

        Raises:
            ServerBusy: the others keep the machine busy. The first is never refused.
        """
        if not rooms:
            return
        used, needed = sum(map(self._cores_of, rooms)), self._expected(engine)
        if used + needed > self.budget_cores:
            raise ServerBusy(
                f"one more conversation needs about {needed:.2f} cores, and {len(rooms)} use "
                f"{used:.2f} of {self.budget_cores:.2f}; try again later"
            )
        busy = max(map(busy_share, rooms))
        if busy > _MOST_BUSY:
            raise ServerBusy(
                f"the machine is busy: a conversation takes {100 * busy:.0f} % of its time to "
                "compute; try again later"
            )

    def _expected(self, engine: LiveEngine) -> float:
        cores = self.cores(engine)
        return cores + _ENCODING_CORES if cores else 0.0

    def _cores_of(self, room: Room) -> float:
        if room.age_s < _MEASURED_S:
            return self._expected(room.engine)
        return room.runner.counters.cpu_s / room.age_s


def busy_share(room: Room) -> float:
    """The part of its last 5 s that a conversation took to compute; 0 while it is new."""
    compute_ms = tuple(room.runner.counters.compute_ms)
    if room.age_s < _MEASURED_S or not compute_ms:
        return 0.0
    return sum(compute_ms) / len(compute_ms) / _STEP_MS
