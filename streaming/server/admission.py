"""Whether one more conversation can be computed in time, by what the others are measured to cost.

A number of conversations says little: one takes 0.2 cores or 1.1, by target, models and machine.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
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
class Cost:
    """What a conversation takes of a machine."""

    cores: float  # that it keeps busy
    busy_share: float = 0.0  # of its last 5 s that it took to compute; 0 while it is new


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
        costs = [cost(room, self.cores) for room in rooms]
        check_costs(self.budget_cores, expected_cores(self.cores(engine)), costs)


def usable(cores: float) -> float:
    """Of so many cores, those that conversations may use."""
    return _USABLE * cores


def check_costs(budget_cores: float, needed_cores: float, costs: Sequence[Cost]) -> None:
    """Whether one more conversation has its time beside others.

    Raises:
        ServerBusy: the others keep the machine busy. The first is never refused.
    """
    if not costs:
        return
    used_cores = sum(one.cores for one in costs)
    if used_cores + needed_cores > budget_cores:
        raise ServerBusy(
            f"one more conversation needs about {needed_cores:.2f} cores, and {len(costs)} use "
            f"{used_cores:.2f} of {budget_cores:.2f}; try again later"
        )
    busy = max(one.busy_share for one in costs)
    if busy > _MOST_BUSY:
        raise ServerBusy(
            f"the machine is busy: a conversation takes {100 * busy:.0f} % of its time to "
            "compute; try again later"
        )


def expected_cores(warm_up_cores: float) -> float:
    """Of a conversation that is not measured yet, encoding included; 0: unknown."""
    return warm_up_cores + _ENCODING_CORES if warm_up_cores else 0.0


def cost(room: Room, cores: Callable[[LiveEngine], float]) -> Cost:
    """What a conversation takes: by its own measurement, or by the warm-up while it is new."""
    if room.age_s < _MEASURED_S:
        return Cost(expected_cores(cores(room.engine)))
    compute_ms = tuple(room.runner.counters.compute_ms)
    busy = sum(compute_ms) / len(compute_ms) / _STEP_MS if compute_ms else 0.0
    return Cost(room.runner.counters.cpu_s / room.age_s, busy)
