"""The fake engine, fit for a conversation."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lipstream.engine.types import AudioChunk, VideoFrame
from tests.streaming.fake_engine import FakeEngine, FakeSession


@dataclass(frozen=True)
class LiveFakeEngine(FakeEngine):
    compute_s: float = 0.0
    sleep: Callable[[float], None] = time.sleep  # how compute passes; a ScriptedClock's own
    fail_after: int = 10**9

    @property
    def target(self) -> LiveFakeEngine:
        """Its size and rate, where a real engine has them."""
        return self

    def session(self) -> LiveFakeSession:
        return LiveFakeSession(self)


class LiveFakeSession(FakeSession):
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
            self.engine.sleep(self.engine.compute_s)
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
