"""The fake engine, fit for a conversation; and a clock that is told the time."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import numpy as np

from lipstream.engine.types import AudioChunk, VideoFrame
from tests.streaming.fake_engine import FakeEngine, FakeSession


class ScriptedClock:
    def __init__(self, start_s: float = 1000.0) -> None:
        self.time_s = start_s

    def __call__(self) -> float:
        return self.time_s


@dataclass(frozen=True)
class LiveFakeEngine(FakeEngine):
    compute_s: float = 0.0
    fail_after: int = 10**9

    def session(self) -> LiveFakeSession:
        return LiveFakeSession(self)


class LiveFakeSession(FakeSession):
    """Remembers nothing older than it needs, so that it can live for long."""

    engine: LiveFakeEngine

    def __init__(self, engine: LiveFakeEngine) -> None:
        super().__init__(engine)
        self.pushes = 0
        self.closed = False
        self.thread: int | None = None

    def push(self, chunk: AudioChunk, paint: bool = True) -> list[VideoFrame]:
        self.thread = self.thread or threading.get_ident()
        assert self.thread == threading.get_ident(), "two threads use one session"
        self.pushes += 1
        if self.pushes > self.engine.fail_after:
            raise ValueError("scripted failure")
        if self.engine.compute_s and paint:
            time.sleep(self.engine.compute_s)
        assert chunk.start_sample == self.sound.size
        self.sound = np.concatenate([self.sound, chunk.samples])
        # As the real one: a frame is out when the sound up to its beginning + delay is in.
        return self.pending(640)

    def pending(self, frame_samples: int) -> list[VideoFrame]:
        delay_samples = int(self.engine.delay_ms * 16)
        return self._upto(self.sound.size - delay_samples + frame_samples)

    def interrupt(self) -> None:
        assert self.thread in (None, threading.get_ident()), "two threads use one session"
        begin = self.shown * 640
        self.sound[begin:] = np.float32(0)

    def close(self) -> None:
        self.closed = True
