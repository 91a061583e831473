"""What a conversation needs of an engine, whichever process it computes in."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Final, NamedTuple, Protocol

import numpy as np

from lipstream.engine.cores import usable_cores
from lipstream.engine.types import SAMPLE_RATE_HZ, STEP_SAMPLES, AudioChunk, VideoFrame

_WARM_UP_S: Final = 1.0
_TURN_S: Final = 0.0005


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


def short_turns() -> None:
    """Let the threads of this process pass the interpreter's lock on after 0.5 ms, not 5.

    A frame asks for the lock dozens of times. While another thread loads a target, it waits for a
    whole turn each time: 150 ms for 30 of them by default, 15 with this.
    """
    sys.setswitchinterval(_TURN_S)


class WarmUp(NamedTuple):
    """What a warm-up found."""

    seconds: float  # that it took
    cores: float  # that one conversation keeps busy, without encoding and transport


def warm_up(
    engine: LiveEngine, turn: Callable[[], AbstractContextManager[object]] = nullcontext
) -> WarmUp:
    """Run the engine once over noise, so that the first frame is as fast as the tenth.

    Args:
        engine: to be warmed.
        turn: entered for each step of 20 ms, for who shares the processor with conversations.
    """
    began_s = time.perf_counter()
    session = engine.session()
    noise = np.random.default_rng(0).standard_normal(int(_WARM_UP_S * SAMPLE_RATE_HZ))
    samples = (0.1 * noise).astype(np.float32)
    warm_s = 0.0  # CPU time of the second half
    for start in range(0, samples.size, STEP_SAMPLES):
        with turn():
            spent_s = time.thread_time()
            session.push(AudioChunk(samples[start : start + STEP_SAMPLES], start))
            if start >= samples.size // 2:
                warm_s += time.thread_time() - spent_s
    session.close()
    return WarmUp(time.perf_counter() - began_s, warm_s / (_WARM_UP_S / 2))


@cache
def compute_slots() -> threading.BoundedSemaphore:
    """As many conversations compute at a time as there are cores.

    More threads at work do not finish sooner: they take turns at the interpreter's lock, and each
    turn costs a wake-up. Five conversations on two cores repeat 4 pictures in 10 without this, and
    1 in 6 with it.
    """
    return threading.BoundedSemaphore(usable_cores())
