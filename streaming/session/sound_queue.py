"""Sound that waits for its time, placed on the session's clock."""

from __future__ import annotations

import threading
from collections import deque

import numpy as np

from lipstream.engine.types import F32, AudioChunk


class SoundQueue:
    """Bounded; when it is full the oldest sound goes, and is counted. Not locked: the owner is.

    Sound that comes after its time has passed is dropped as well, and a stretch that nobody
    filled is silence.
    """

    def __init__(self, capacity_samples: int) -> None:
        self._capacity_samples = capacity_samples
        self._chunks: deque[AudioChunk] = deque()  # in order, without overlap
        self._taken_sample = 0  # what lies before has been taken
        self.queued_samples = 0
        self.dropped_samples = 0  # too old, or too much

    @property
    def end_sample(self) -> int:
        """Where the sound that is queued ends."""
        return self._chunks[-1].start_sample + self._chunks[-1].samples.size if self._chunks else 0

    def put(self, samples: F32, start_sample: int) -> int:
        """Queue f32 [n] at its place; returns the samples kept, 0 when all of it came too late."""
        late = max(self._taken_sample, self.end_sample) - start_sample
        if late > 0:
            cut = min(late, samples.size)
            self.dropped_samples += cut
            samples, start_sample = samples[cut:], start_sample + cut
        if not samples.size:
            return 0
        self._chunks.append(AudioChunk(samples, start_sample))
        self.queued_samples += samples.size
        while self.queued_samples > self._capacity_samples and len(self._chunks) > 1:
            oldest = self._chunks.popleft()
            self.queued_samples -= oldest.samples.size
            self.dropped_samples += oldest.samples.size
        return samples.size

    def ready(self, until_sample: int) -> bool:
        """Whether sound reaches up to `until_sample`: there is nothing to wait for."""
        return self.end_sample >= until_sample

    def take(self, start_sample: int, length_samples: int) -> F32:
        """f32 [length_samples] from `start_sample` on; what lies before it is dropped."""
        out = np.zeros(length_samples, np.float32)
        end = start_sample + length_samples
        while self._chunks and self._chunks[0].start_sample < end:
            chunk = self._chunks.popleft()
            self.queued_samples -= chunk.samples.size
            skip = max(0, start_sample - chunk.start_sample)
            self.dropped_samples += min(skip, chunk.samples.size)
            part = chunk.samples[skip : max(skip, end - chunk.start_sample)]
            at = chunk.start_sample + skip - start_sample
            out[at : at + part.size] = part
            rest = chunk.samples[skip + part.size :]
            if rest.size:
                self._chunks.appendleft(AudioChunk(rest, chunk.start_sample + skip + part.size))
                self.queued_samples += rest.size
                break
        self._taken_sample = max(self._taken_sample, end)
        return out

    def clear(self) -> None:
        """Forget what is queued (an interruption, not a loss: not counted)."""
        self._chunks.clear()
        self.queued_samples = 0


class TurnSound:
    """A `SoundQueue` between threads, which forgets the sound of a turn that is over."""

    def __init__(self, capacity_samples: int, turn: int) -> None:
        self._lock = threading.Lock()
        self._queue = SoundQueue(capacity_samples)
        self._turn = turn

    def put(self, samples: F32, start_sample: int, turn: int) -> None:
        """Queue f32 [n] at its place, with the turn that it belongs to."""
        with self._lock:
            self._forget_before(turn)
            if turn == self._turn:
                self._queue.put(samples, start_sample)

    def ready(self, until_sample: int) -> bool:
        """Whether sound reaches up to `until_sample`."""
        with self._lock:
            return self._queue.ready(until_sample)

    def take(self, start_sample: int, length_samples: int, turn: int) -> F32:
        """f32 [length_samples] from `start_sample` on, of the turn that is now."""
        with self._lock:
            self._forget_before(turn)
            return self._queue.take(start_sample, length_samples)

    def _forget_before(self, turn: int) -> None:
        if turn > self._turn:
            self._turn = turn
            self._queue.clear()
