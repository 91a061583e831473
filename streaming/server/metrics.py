"""What `/metrics` tells, in Prometheus' text format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from lipstream.streaming.server.rooms import Rooms


class _Sessions(Collector):
    """Reads the conversations that go on when it is asked; keeps nothing."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    def collect(self) -> list[GaugeMetricFamily | CounterMetricFamily]:
        """One value for the server, and one per conversation, labelled by target and place."""
        label = ["target", "place"]
        frames = GaugeMetricFamily("lipstream_frames", "Frames painted.", labels=label)
        late = GaugeMetricFamily("lipstream_late_frames", "Painted after their time.", labels=label)
        lost = GaugeMetricFamily("lipstream_dropped_frames", "Never shown.", labels=label)
        repeated_frames = GaugeMetricFamily(
            "lipstream_unpainted_frames", "Showed the picture before: no time.", labels=label
        )
        queued = GaugeMetricFamily("lipstream_queued_sound_seconds", "Waiting.", labels=label)
        compute = GaugeMetricFamily(
            "lipstream_compute_seconds", "Median of the last pushes of 20 ms.", labels=label
        )
        drift = GaugeMetricFamily(
            "lipstream_source_drift_ppm", "Microphone's clock less ours.", labels=label
        )
        members = GaugeMetricFamily("lipstream_members", "Connections.", labels=label)
        # A place, not the name: names are chosen by clients, and there is no end of them.
        for place, room in enumerate(self._rooms):
            values, labels = room.runner.counters, [room.target, str(place)]
            times = sorted(values.compute_ms)
            frames.add_metric(labels, values.frames)
            late.add_metric(labels, values.late_frames)
            lost.add_metric(labels, values.dropped_frames)
            repeated_frames.add_metric(labels, values.repeated_frames)
            queued.add_metric(labels, values.queue_depth / 16_000)
            compute.add_metric(labels, times[len(times) // 2] / 1000 if times else 0)
            drift.add_metric(labels, values.source_ppm)
            members.add_metric(labels, len(room.members))
        opened = CounterMetricFamily("lipstream_sessions_opened", "Conversations begun.")
        opened.add_metric([], self._rooms.opened)
        going = GaugeMetricFamily("lipstream_sessions", "Conversations going on.")
        going.add_metric([], len(self._rooms))
        return [opened, going, members, frames, late, lost, repeated_frames, queued, compute, drift]


def exposition(rooms: Rooms) -> bytes:
    """The answer to a scrape."""
    registry = CollectorRegistry()
    registry.register(_Sessions(rooms))
    return generate_latest(registry)
