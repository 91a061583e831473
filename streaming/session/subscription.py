"""What a viewer of a conversation receives: frames and sound, each with its time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lipstream.engine.types import F32, AudioChunk, VideoFrame

if TYPE_CHECKING:
    from lipstream.streaming.session.runner import SessionRunner


@dataclass(frozen=True, slots=True)
class TimedFrame:
    """A frame, when it may leave, and the turn that it belongs to."""

    frame: VideoFrame
    media_sample: int  # session clock, of the frame's first sample
    release_s: float  # monotonic
    turn: int

    def silenced(self, turn: int) -> TimedFrame:
        """The same picture, without its sound, in another turn."""
        silence = AudioChunk(np.zeros_like(self.frame.audio.samples), self.frame.audio.start_sample)
        return replace(self, frame=replace(self.frame, audio=silence, speech=False), turn=turn)


@dataclass(frozen=True, slots=True)
class TimedSound:
    """Sound as it was fed to the engine, its time, and the turn that it belongs to.

    It may leave `SessionRunner.delay_samples` after its own time.
    """

    samples: F32
    media_sample: int  # session clock, of samples[0]
    turn: int


class Subscription:
    """Frames for one viewer, on one event loop: an asynchronous iterator with a bounded queue."""

    def __init__(
        self,
        runner: SessionRunner,
        capacity: int,
        painted: Callable[[TimedFrame], None] | None = None,
        sound: Callable[[TimedSound], None] | None = None,
    ) -> None:
        self._runner = runner
        self._painted = painted
        self._sound = sound
        self._loop = asyncio.get_running_loop()
        self._capacity = capacity
        self._frames: deque[TimedFrame] = deque()
        self._ready = asyncio.Event()
        self._closed = False

    def _offer(self, item: TimedFrame | None) -> None:
        """On the loop: queue a frame, or (None) the end."""
        if item is None:
            self._closed = True
        else:
            if len(self._frames) == self._capacity:
                self._frames.popleft()
                self._runner.counters.dropped_frames += 1
            self._frames.append(item)
        self._ready.set()

    async def next(self) -> TimedFrame | None:
        """The next frame, at its release time; None when the conversation is over.

        A frame of a turn that was interrupted while it waited is shown in silence: pictures keep
        their rate, and the mouth goes to rest from where it was seen.
        """
        while True:
            while not self._frames and not self._closed:
                self._ready.clear()
                await self._ready.wait()
            if self._closed:
                return None
            item = self._frames[0]
            wait_s = item.release_s - self._runner.clock.now()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            if not self._frames or self._frames[0] is not item:
                continue
            self._frames.popleft()
            if self._runner.closed:
                self._runner.counters.dropped_frames += 1
                continue
            self._runner._delivered(item)
            turn = self._runner.turn
            return item if item.turn == turn else item.silenced(turn)

    async def __aiter__(self) -> AsyncIterator[TimedFrame]:
        while (item := await self.next()) is not None:
            yield item

    def close(self) -> None:
        """Ask for no more."""
        self._closed = True
        self._ready.set()
        self._runner._unsubscribe(self)

    def _deliver_sound(self, item: TimedSound) -> None:
        """From the worker."""
        if self._sound is not None:
            self._sound(item)

    def _deliver(self, item: TimedFrame | None) -> None:
        """From the worker: a loop that is gone is a viewer that is gone."""
        if item is not None and self._painted is not None:
            self._painted(item)
        try:
            self._loop.call_soon_threadsafe(self._offer, item)
        except RuntimeError:
            self._runner._unsubscribe(self)
