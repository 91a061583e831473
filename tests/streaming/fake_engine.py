"""An engine of the real one's shape that needs no target: its picture shows the sound's level."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from lipstream.engine.timebase import frame_sample, frames_covering
from lipstream.engine.types import SAMPLE_RATE_HZ, AudioChunk, VideoFrame


@dataclass(frozen=True)
class FakeEngine:
    """Frames are white while their own stretch of sound is loud, and black otherwise."""

    width: int = 64
    height: int = 48
    fps: Fraction = Fraction(25)
    delay_ms: float = 120.0
    backend: str = "fake"

    def session(self) -> FakeSession:
        return FakeSession(self)


class FakeSession:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.sound = np.zeros(0, np.float32)
        self.shown = 0
        self.longest_chunk = 0

    def push(self, chunk: AudioChunk, paint: bool = True) -> list[VideoFrame]:
        assert chunk.start_sample == self.sound.size
        assert chunk.samples.dtype == np.float32
        self.longest_chunk = max(self.longest_chunk, chunk.samples.size)
        self.sound = np.concatenate([self.sound, chunk.samples])
        delay_samples = int(self.engine.delay_ms * SAMPLE_RATE_HZ / 1000)
        return self._upto(self.sound.size - delay_samples)

    def flush(self) -> list[VideoFrame]:
        return self._upto(
            self.sound.size + SAMPLE_RATE_HZ, frames_covering(self.sound.size, self.engine.fps)
        )

    def frames(self, chunk: AudioChunk | None) -> Iterator[VideoFrame]:
        yield from self.flush() if chunk is None else self.push(chunk)

    def _upto(self, ready_sample: int, limit: int | None = None) -> list[VideoFrame]:
        frames = []
        while limit is None or self.shown < limit:
            begin = frame_sample(self.shown, self.engine.fps)
            end = frame_sample(self.shown + 1, self.engine.fps)
            if end > ready_sample:
                break
            stretch = self.sound[begin:end]
            loud = stretch.size > 0 and float(np.abs(stretch).max()) > 0.25
            i420 = np.full((self.engine.height * 3 // 2, self.engine.width), 128, np.uint8)
            i420[: self.engine.height] = 235 if loud else 16
            audio = AudioChunk(stretch, begin)
            frames.append(VideoFrame(i420, self.shown, self.engine.fps, audio, self.shown, loud))
            self.shown += 1
        return frames
