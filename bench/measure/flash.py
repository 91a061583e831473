"""A stand-in for the engine: its picture is white while the sound is loud, and numbered.

It has the delay of an engine and the time of its push, so a measurement with it is of the path
between microphone and screen. The frame counter is in the lower half: 16 black or white squares,
most significant bit first, so that a browser can read which frame it shows.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np

from lipstream.engine.timebase import frame_sample
from lipstream.engine.types import SAMPLE_RATE_HZ, AudioChunk, VideoFrame

BITS: Final = 16
LOUD: Final = 0.25
_BLACK, _WHITE, _GREY = 16, 235, 128


@dataclass(frozen=True, slots=True)
class FlashEngine:
    """Frames are white where the sound is loud at the middle of the frame: no bias in time."""

    delay_ms: float = 120.0
    side_px: int = 512
    compute_s: float = 0.004  # of a push, as measured with a target of 512 px
    fps: Fraction = Fraction(25)
    backend: str = "stand-in"

    def session(self) -> FlashSession:
        """A new session."""
        return FlashSession(self)


class FlashSession:
    """Buffers the sound whose frames are not out."""

    def __init__(self, engine: FlashEngine) -> None:
        """Use `FlashEngine.session`."""
        self._engine = engine
        self._sound = np.zeros(0, np.float32)
        self._start = 0  # session sample of _sound[0]
        self._next = 0

    def push(self, chunk: AudioChunk, paint: bool = True) -> list[VideoFrame]:
        """Frames whose first sample + delay has been pushed."""
        engine = self._engine
        time.sleep(engine.compute_s)
        self._sound = np.concatenate([self._sound, chunk.samples])
        delay = round(engine.delay_ms * SAMPLE_RATE_HZ / 1000)
        frames: list[VideoFrame] = []
        while frame_sample(self._next, engine.fps) + delay <= self._start + len(self._sound):
            end = frame_sample(self._next + 1, engine.fps) - self._start
            own, self._sound = self._sound[:end], self._sound[end:]
            audio = AudioChunk(own, self._start)
            self._start += len(own)
            frames.append(self._frame(audio))
            self._next += 1
        return frames

    def interrupt(self) -> None:
        """Replace the buffered sound by silence."""
        self._sound = np.zeros_like(self._sound)

    def close(self) -> None:
        """There is nothing to release."""

    def _frame(self, audio: AudioChunk) -> VideoFrame:
        engine, side = self._engine, self._engine.side_px
        middle = len(audio.samples) // 2
        loud = float(np.abs(audio.samples[middle : middle + 80]).max(initial=0.0)) > LOUD
        i420 = np.full((side * 3 // 2, side), _GREY, np.uint8)
        i420[: side // 2] = _WHITE if loud else _BLACK
        bits = [(self._next >> (BITS - 1 - k)) & 1 for k in range(BITS)]
        squares = np.where(np.array(bits) == 1, _WHITE, _BLACK).astype(np.uint8)
        i420[side // 2 : side] = np.repeat(squares, side // BITS)
        return VideoFrame(i420, self._next, engine.fps, audio, self._next, loud)
