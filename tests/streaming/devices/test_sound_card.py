"""The thread of a sound card, with a PortAudio in its place."""

from __future__ import annotations

import sys
import time
import types
from typing import Any

import numpy as np
import pytest

from lipstream.streaming.devices.sound_card import SoundCard
from tests.streaming.waiting import eventually_in_thread

RATE_HZ = 48_000


class Stream:
    """A microphone; the test speaks into it."""

    made: list[Stream] = []  # noqa: RUF012 - of all instances, as the devices are

    def __init__(self, *given: Any, callback: Any) -> None:
        self.callback, self.active = callback, False
        self.made.append(self)

    def start(self) -> None:
        self.active = True

    def abort(self) -> None:
        self.active = False

    def close(self) -> None:
        pass

    def hear(self, blocks: int = 10) -> None:
        for _ in range(blocks):
            data = np.full((RATE_HZ // 100, 1), 0.5, np.float32)
            self.callback(data, len(data), None, types.SimpleNamespace(input_overflow=False))


@pytest.fixture
def portaudio(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"name": "desk", "hostapi": 0, "max_input_channels": 1, "max_output_channels": 0,
             "default_samplerate": float(RATE_HZ)}  # fmt: skip
    fake = types.ModuleType("sounddevice")
    fake.__dict__.update(
        query_hostapis=lambda: [{"name": "fake"}],
        query_devices=lambda: [found],
        default=types.SimpleNamespace(device=(0, -1)),
        check_input_settings=lambda **given: None,
        InputStream=Stream,
        PortAudioError=type("PortAudioError", (Exception,), {}),
        _terminate=lambda: None,
        _initialize=lambda: None,
    )
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    monkeypatch.setattr("lipstream.streaming.devices.sound_card._RETRY_S", 0.01)
    Stream.made = []


class Runner:
    """Takes sound, but for what `fails` says."""

    def __init__(self) -> None:
        self.clock = types.SimpleNamespace(now=time.monotonic)
        self.heard_samples = 0
        self.fails = ""

    def push_audio(self, samples: np.ndarray, source_sample: int) -> None:
        if self.fails:
            raise ValueError(self.fails)
        self.heard_samples += samples.size


def test_an_error_costs_the_sound_of_its_moment_and_no_more(
    portaudio: None, caplog: pytest.LogCaptureFixture
) -> None:
    """A thread that ended would leave a picture without a voice, and nobody told."""
    runner, said = Runner(), list[str]()
    card = SoundCard(runner, notify=said.append)  # type: ignore[arg-type]
    try:
        Stream.made[0].hear()
        eventually_in_thread(lambda: runner.heard_samples > 1000)
        runner.fails = "a bad moment"
        Stream.made[0].hear()
        eventually_in_thread(lambda: len(Stream.made) > 1)
        runner.fails, before = "", runner.heard_samples
        Stream.made[-1].hear()
        eventually_in_thread(lambda: runner.heard_samples > before + 1000)
    finally:
        card.close()
    assert "a bad moment" in caplog.text
    assert said == ["sound lost (desk); waiting for it", "sound is back (desk)"]
    assert not any(stream.active for stream in Stream.made)
