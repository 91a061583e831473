"""What a conversation needs of an engine, whichever process it computes in."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol

import numpy as np

from lipstream.engine.types import SAMPLE_RATE_HZ, STEP_SAMPLES, AudioChunk, VideoFrame

_WARM_UP_S: Final = 1.0


class LiveSession(Protocol):
    """The part of `engine.pipeline.Session` that a conversation needs."""

    def push(self, chunk: AudioChunk, paint: bool = True) -> list[VideoFrame]:
        """Frames that this sound completes; without `paint` they repeat the previous picture."""
        ...

    def interrupt(self) -> None:
        """Drop the sound that no frame has shown yet."""
        ...

    def close(self) -> None:
        """Free what it holds; it is not used any more."""
        ...


class LiveEngine(Protocol):
    """The part of `engine.pipeline.Engine` that a conversation needs."""

    @property
    def delay_ms(self) -> float:
        """Stated delay between sound in and picture out."""
        ...

    def session(self) -> LiveSession:
        """A fresh session."""
        ...


def warm_up(
    engine: LiveEngine, turn: Callable[[], AbstractContextManager[object]] = nullcontext
) -> float:
    """Run the engine once over noise, so that the first frame is as fast as the tenth.

    Args:
        engine: to be warmed.
        turn: entered for each step of 20 ms, for who shares the processor with conversations.

    Returns:
        seconds it took.
    """
    began_s = time.perf_counter()
    session = engine.session()
    noise = np.random.default_rng(0).standard_normal(int(_WARM_UP_S * SAMPLE_RATE_HZ))
    samples = (0.1 * noise).astype(np.float32)
    for start in range(0, samples.size, STEP_SAMPLES):
        with turn():
            session.push(AudioChunk(samples[start : start + STEP_SAMPLES], start))
    session.close()
    return time.perf_counter() - began_s
