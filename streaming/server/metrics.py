"""`/metrics`, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from lipstream.engine.types import SAMPLE_RATE_HZ
from lipstream.streaming.server.rooms import Room, Rooms

_GAUGES: Final = {
    "queued_sound_seconds": "Sound that waits for its time.",
    "compute_seconds": "Median time to process 20 ms of sound.",
    "source_drift_ppm": "Rate of the source's clock against the server's.",
    "source_margin_seconds": "Delay of the voice beyond its earliest arrival, for jitter.",
    "members": "Connections.",
    "frames": "Rendered frames.",
    "late_frames": "Frames that were ready after their release time.",
    "dropped_frames": "Frames that no viewer received.",
    "repeated_frames": "Frames that show the previous picture: no time.",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """A conversation when it was looked at."""

    target: str
    values: dict[str, float]  # by the names of `_GAUGES`


@dataclass(frozen=True, slots=True)
class Scrape:
    """What one process, or one node of a cluster, has to show."""

    opened: int
    samples: tuple[Sample, ...]
    node: str | None = None  # None: there is only one, and no such label
    actors: int | None = None  # of the node that are ready, those without a call included


def scrape(rooms: Rooms) -> Scrape:
    """The conversations that go on in this process."""
    return Scrape(rooms.opened, tuple(map(_sample, rooms)))


def _sample(room: Room) -> Sample:
    counters = room.runner.counters
    times_ms = sorted(counters.compute_ms)
    return Sample(
        room.target,
        {
            "queued_sound_seconds": counters.queue_depth / SAMPLE_RATE_HZ,
            "compute_seconds": times_ms[len(times_ms) // 2] / 1000 if times_ms else 0,
            "source_drift_ppm": counters.source_ppm,
            "source_margin_seconds": counters.source_margin_s,
            "members": len(room.members),
            "frames": counters.frames,
            "late_frames": counters.late_frames,
            "dropped_frames": counters.dropped_frames,
            "repeated_frames": counters.repeated_frames,
        },
    )


class _Scraped(Collector):
    """Shows what was scraped; keeps nothing."""

    def __init__(self, scrapes: Sequence[Scrape]) -> None:
        self._scrapes = scrapes

    def collect(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        """Values of the server, and of each session, labelled by target and slot."""
        of_nodes = ["node"] if any(one.node is not None for one in self._scrapes) else []
        opened = CounterMetricFamily(
            "lipstream_sessions_opened", "Sessions begun.", labels=of_nodes
        )
        going_on = GaugeMetricFamily("lipstream_sessions", "Sessions going on.", labels=of_nodes)
        actors = GaugeMetricFamily(
            "lipstream_call_actors", "Processes for one call each, in use or not.", labels=of_nodes
        )
        # A slot in place of the session's name: clients choose names, and there is no end of them.
        labels = ["target", "slot", *of_nodes]
        gauges = {
            name: GaugeMetricFamily(f"lipstream_{name}", text, labels=labels)
            for name, text in _GAUGES.items()
        }
        for one in self._scrapes:
            node = [one.node or ""] if of_nodes else []
            opened.add_metric(node, one.opened)
            going_on.add_metric(node, len(one.samples))
            if one.actors is not None:
                actors.add_metric(node, one.actors)
            for slot, sample in enumerate(one.samples):
                for name, value in sample.values.items():
                    gauges[name].add_metric([sample.target, str(slot), *node], value)
        return [opened, going_on, *([actors] if of_nodes else []), *gauges.values()]


def exposition(scrapes: Sequence[Scrape]) -> bytes:
    """The answer to a scrape."""
    registry = CollectorRegistry()
    registry.register(_Scraped(scrapes))
    return generate_latest(registry)
