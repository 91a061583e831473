"""The queue between a card's callback and our thread: bounded, and what it drops leaves a gap."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lipstream.engine.types import F32
from lipstream.streaming.devices import sound_card
from lipstream.streaming.devices.captured_sound import CapturedSound
from lipstream.streaming.devices.sound_card import SoundCard
from lipstream.streaming.session.runner import SessionRunner
from tests.streaming.live_engine import LiveFakeEngine


def test_packets_come_out_in_order_with_their_places() -> None:
    captured = CapturedSound(1000)
    captured.put(np.full(300, 1, np.float32), False)
    captured.put(np.full(200, 2, np.float32), True)
    first, second = captured.get(0), captured.get(0)
    assert first is not None and second is not None
    assert (first.first_sample, first.samples[0], first.overflowed) == (0, 1, False)
    assert (second.first_sample, second.samples[0], second.overflowed) == (300, 2, True)
    assert captured.get(0) is None


def test_a_full_queue_drops_the_oldest_and_counts_it() -> None:
    captured = CapturedSound(1000)
    for k in range(8):
        captured.put(np.full(300, k, np.float32), False)
    assert captured.dropped_samples == 5 * 300
    packet = captured.get(0)
    assert packet is not None
    assert (packet.first_sample, packet.samples[0]) == (1500, 5)


def test_the_reader_is_woken_at_the_end() -> None:
    captured = CapturedSound(1000)
    got: list[Any] = []
    reading = threading.Thread(target=lambda: got.append(captured.get(60)))
    reading.start()
    captured.close()
    reading.join(5)
    assert got == [None]


class FakeStream:
    latency = 0.02
    active = True

    def __init__(self, *args: Any, callback: Any) -> None:
        self.callback = callback

    def start(self) -> None:
        pass

    abort = close = start

    def bring(self, samples: F32) -> None:
        self.callback(samples[:, None], samples.size, None, SimpleNamespace(input_overflow=False))


class FakePortAudio:
    """A machine with one microphone of 48 kHz."""

    PortAudioError = OSError
    default = SimpleNamespace(device=(0, -1))

    def __init__(self) -> None:
        self.streams: list[FakeStream] = []

    def query_hostapis(self) -> list[dict[str, str]]:
        return [{"name": "fake"}]

    def query_devices(self) -> list[dict[str, Any]]:
        return [
            {
                "name": "microphone", "hostapi": 0, "max_input_channels": 1,
                "max_output_channels": 0, "default_samplerate": 48_000.0,
            }
        ]  # fmt: skip

    def check_input_settings(self, **settings: Any) -> None:
        pass

    def InputStream(self, *args: Any, callback: Any) -> FakeStream:
        self.streams.append(FakeStream(*args, callback=callback))
        return self.streams[-1]


class SlowRunner(SessionRunner):
    """Takes the first packet only when the test lets it."""

    def __init__(self) -> None:
        super().__init__(LiveFakeEngine())
        self.entered, self.leave = threading.Event(), threading.Event()
        self.got: list[tuple[int | None, int]] = []
        self.complete = threading.Event()

    def push_audio(self, samples: F32, source_sample: int | None = None) -> int:
        self.entered.set()
        assert self.leave.wait(30)
        self.got.append((source_sample, samples.size))
        if source_sample is not None and source_sample + samples.size >= 5 * 16_000 - 64:
            self.complete.set()
        return 0


def test_a_thread_that_is_held_up_loses_the_oldest_sound_and_keeps_the_place_of_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    audio = FakePortAudio()
    monkeypatch.setattr(sound_card, "_portaudio", lambda: audio)
    runner = SlowRunner()
    card = SoundCard(runner)
    try:
        (stream,) = audio.streams
        packet = np.full(480, 0.5, np.float32)
        stream.bring(packet)
        assert runner.entered.wait(5)
        for _ in range(499):  # 5 s in all, while the thread stands still
            stream.bring(packet)
        assert card.dropped_ms == pytest.approx(2990, abs=0.1), "2 s are kept"
        runner.leave.set()
        assert runner.complete.wait(10)
    finally:
        runner.leave.set()
        card.close()
    gaps = [
        after[0] - (before[0] + before[1])  # type: ignore[operator]
        for before, after in zip(runner.got, runner.got[1:], strict=False)
    ]
    assert [gap for gap in gaps if gap] == [round(2.99 * 16_000)]
    assert card.lost == 0
