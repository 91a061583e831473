"""`/metrics`, in Prometheus' text format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from lipstream.engine.types import SAMPLE_RATE_HZ
from lipstream.streaming.server.rooms import Rooms


class _SessionCollector(Collector):
    """Reads the sessions that go on when it is scraped; keeps nothing."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    def collect(self) -> list[GaugeMetricFamily | CounterMetricFamily]:
        """Values of the server, and of each session, labelled by target and slot."""
        # A slot in place of the session's name: clients choose names, and there is no end of them.
        labels = ["target", "slot"]

        def gauge(name: str, description: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"lipstream_{name}", description, labels=labels)

        frames = gauge("frames", "Rendered frames.")
        late = gauge("late_frames", "Frames that were ready after their release time.")
        dropped = gauge("dropped_frames", "Frames that no viewer received.")
        repeated = gauge("repeated_frames", "Frames that show the previous picture: no time.")
        queued = gauge("queued_sound_seconds", "Sound that waits for its time.")
        compute = gauge("compute_seconds", "Median time to process 20 ms of sound.")
        drift = gauge("source_drift_ppm", "Rate of the source's clock against the server's.")
        margin = gauge(
            "source_margin_seconds", "Delay of the voice beyond its earliest arrival, for jitter."
        )
        members = gauge("members", "Connections.")
        for slot, room in enumerate(self._rooms):
            counters, values = room.runner.counters, [room.target, str(slot)]
            times_ms = sorted(counters.compute_ms)
            frames.add_metric(values, counters.frames)
            late.add_metric(values, counters.late_frames)
            dropped.add_metric(values, counters.dropped_frames)
            repeated.add_metric(values, counters.repeated_frames)
            queued.add_metric(values, counters.queue_depth / SAMPLE_RATE_HZ)
            compute.add_metric(values, times_ms[len(times_ms) // 2] / 1000 if times_ms else 0)
            drift.add_metric(values, counters.source_ppm)
            margin.add_metric(values, counters.source_margin_s)
            members.add_metric(values, len(room.members))
        opened = CounterMetricFamily("lipstream_sessions_opened", "Sessions begun.")
        opened.add_metric([], self._rooms.opened)
        going_on = GaugeMetricFamily("lipstream_sessions", "Sessions going on.")
        going_on.add_metric([], len(self._rooms))
        timing = [queued, compute, drift, margin]
        return [opened, going_on, members, frames, late, dropped, repeated, *timing]


def exposition(rooms: Rooms) -> bytes:
    """The answer to a scrape."""
    registry = CollectorRegistry()
    registry.register(_SessionCollector(rooms))
    return generate_latest(registry)
