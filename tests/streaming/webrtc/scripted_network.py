"""A network in memory on a scripted clock: jitter, stalls, loss and outages, without a sleep."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Packet = TypeVar("Packet")


@dataclass(frozen=True, slots=True)
class NetworkScript:
    """What happens to packets; each is delayed by itself, so they overtake one another."""

    jitter_s: float = 0.0  # mean of an exponential distribution
    loss: float = 0.0  # share of packets
    stall_s: float = 0.0  # nothing gets through for so long, then all of it at once
    stall_every_s: float = 0.5
    stall_until_s: float = float("inf")
    outages_s: tuple[tuple[float, float], ...] = ()  # (begin, end): what is sent then is lost
    delivers_after_outage_s: float = 0.0  # so much of its end was queued, and comes at once
    keeps_order: bool = False  # a queue: no packet overtakes another


class ScriptedNetwork(Generic[Packet]):
    """Delivers what is sent, by the script. Used on the running loop."""

    def __init__(
        self, script: NetworkScript, deliver: Callable[[Packet], None], seed: int = 1
    ) -> None:
        self.lost: list[Packet] = []
        self._script, self._deliver = script, deliver
        self._chance = random.Random(seed)
        self._loop = asyncio.get_running_loop()
        self._began_s = self._loop.time()
        self._last_s = 0.0

    def send(self, packet: Packet) -> None:
        """Send, now."""
        script, now_s = self._script, self._loop.time() - self._began_s
        at_s = now_s
        for begin_s, end_s in script.outages_s:
            if begin_s <= now_s < end_s:
                at_s = end_s
        out = at_s - now_s > script.delivers_after_outage_s
        if out or self._chance.random() < script.loss:
            self.lost.append(packet)
            return
        if script.jitter_s:
            at_s += self._chance.expovariate(1 / script.jitter_s)
        if script.stall_s and at_s < script.stall_until_s:
            since_s = at_s % script.stall_every_s
            at_s += max(0.0, script.stall_s - since_s)
        if script.keeps_order:
            at_s = self._last_s = max(self._last_s, at_s)
        self._loop.call_at(self._began_s + at_s, self._deliver, packet)
