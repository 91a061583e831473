"""One conversation in a thread of its own: sound in, timed frames with their own sound out.

    hear() ─► SoundQueue ─► worker: 20 ms steps on the clock ─► Session.push ─► subscriptions

The worker feeds the engine on the session's clock: real sound when it is there, silence when it
is not, so the target's idle life goes on at the frame rate. Frame k may leave at

    wall time of (its own first sample + engine delay) + lead

and carries that moment along; picture and sound of one media time therefore leave together. Sound
is handed on when it is heard, not when its picture is painted: a late picture makes no late sound.

What is dropped, and counted: queued sound over `sound_capacity_s` (oldest first), sound that
arrives after its time, and frames that a subscriber does not fetch (oldest first). A machine that
is too slow first loses pictures: those that would be late anyway show the one before, all but
every fifth, and the sound goes on unhurt. Behind by `slip_ms`, it loses the sound of that time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from lipstream.engine.cores import usable_cores
from lipstream.engine.errors import UsageError
from lipstream.engine.timebase import frame_sample, ms_to_samples
from lipstream.engine.types import F32, SAMPLE_RATE_HZ, STEP_SAMPLES, AudioChunk, VideoFrame
from lipstream.streaming.session.clock import MediaClock, Now
from lipstream.streaming.session.drift import SourceClockTracker
from lipstream.streaming.session.gc_policy import collect_and_freeze
from lipstream.streaming.session.sound_queue import SoundQueue
from lipstream.streaming.session.subscription import Subscription, TimedFrame, TimedSound

logger = logging.getLogger(__name__)

_WARM_UP_S: Final = 1.0
_MOST_REPEATED: Final = (
    8  # steps in a row at most, four pictures: a face that lives, even if it jerks
)
# More threads at work than there are cores do not work sooner; they take turns at the interpreter's
# lock, and each turn costs a wake-up. Five conversations on two cores lost 4 pictures in 10 without
# this, and 1 in 6 with it.
_COMPUTING: Final = threading.BoundedSemaphore(usable_cores())
_ALIGNED_SAMPLES: Final = 80  # 5 ms: what is nearer is not worth a step in time


class LiveSession(Protocol):
    """The part of `engine.pipeline.Session` that a conversation needs."""

    def push(self, chunk: AudioChunk, paint: bool = True) -> list[VideoFrame]:
        """Frames that this sound completes; without `paint` they show the picture before."""
        ...

    def interrupt(self) -> None:
        """Drop what was heard and not shown."""
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


@dataclass(frozen=True, slots=True)
class RunnerOptions:
    """Times and sizes of one conversation."""

    playout_delay_ms: int = (
        40  # for the network's jitter and our own compute, between engine and exit
    )
    # How long a step waits for sound that is late: a packet of 20 ms, since a source whose clock
    # drifts ends its packets anywhere in our step, and what the drift loop is off by.
    max_wait_ms: int = 24
    sound_capacity_s: int = 60  # speech that is made faster than it is spoken
    frames_capacity: int = 8  # per subscriber
    slip_ms: int = 400  # so far behind, time is skipped

    def __post_init__(self) -> None:
        if not 0 <= self.max_wait_ms <= self.playout_delay_ms <= self.slip_ms:
            raise UsageError(
                f"max_wait_ms {self.max_wait_ms}, playout_delay_ms {self.playout_delay_ms}, "
                f"slip_ms {self.slip_ms}: expected them in this order, from 0"
            )


@dataclass(slots=True)
class RunnerCounters:
    """For metrics; written by the worker, read by anybody."""

    frames: int = 0
    late_frames: int = 0  # finished after their release time
    dropped_frames: int = 0  # by subscribers that did not fetch them, or by an interruption
    repeated_frames: int = 0  # showed the picture before: there was no time
    slipped_samples: int = 0
    interruptions: int = 0
    queue_depth: int = 0  # samples of sound waiting
    dropped_samples: int = 0
    source_ppm: float = 0.0  # how much faster than ours a live source's clock runs
    compute_ms: deque[float] = field(default_factory=lambda: deque(maxlen=250))  # per push


class SessionRunner:
    """Owns one engine session and its thread. All methods may be called from any thread."""

    def __init__(
        self, engine: LiveEngine, options: RunnerOptions | None = None, now: Now = time.monotonic
    ) -> None:
        self.options = options or RunnerOptions()
        self.counters = RunnerCounters()
        self.clock = MediaClock(now)
        self.turn = 0
        self.error: str | None = None
        self.heard_s: float | None = None  # monotonic, when sound last came
        self._session = engine.session()
        # Who computes elsewhere (`streaming.workers.pool`) takes turns there.
        is_remote = getattr(self._session, "elsewhere", False)
        self._turn_to_compute = nullcontext() if is_remote else _COMPUTING
        self._delay_samples = round(engine.delay_ms * SAMPLE_RATE_HZ / 1000)
        self._lock = threading.Condition()
        self._sound = SoundQueue(self.options.sound_capacity_s * SAMPLE_RATE_HZ)
        self._source = SourceClockTracker(self.clock, self.options.max_wait_ms / 1000)
        self._subscriptions: tuple[Subscription, ...] = ()
        self._spoken: list[tuple[int, int]] = []  # (start, end) on the clock, of this turn
        self._shown_sample = 0
        self._fed_sample = 0  # of the session, which knows nothing of slips
        self._slip_samples = 0
        self._repeated = 0  # steps in a row
        self._interrupted = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="lipstream-session", daemon=True)

    @property
    def delay_samples(self) -> int:
        """From a sample's own time to the moment it leaves: engine delay + lead."""
        return self._delay_samples + ms_to_samples(self.options.playout_delay_ms)

    def start(self) -> None:
        """Begin to live."""
        self._thread.start()

    def subscribe(
        self,
        painted: Callable[[TimedFrame], None] | None = None,
        sound: Callable[[TimedSound], None] | None = None,
    ) -> Subscription:
        """A viewer on the running event loop; both functions are called in our own thread.

        Args:
            painted: called with each frame when it is painted, before its time.
            sound: called with each 20 ms of sound, silence too, when it is heard; for who does
                not take it from the frames.
        """
        subscription = Subscription(self, self.options.frames_capacity, painted, sound)
        with self._lock:
            self._subscriptions = (*self._subscriptions, subscription)
            if self._closed:
                subscription._offer(None)
        return subscription

    def push_audio(self, samples: F32, source_sample: int | None = None) -> int:
        """Take sound in: f32 [n], mono 16 kHz.

        Args:
            samples: the sound.
            source_sample: of samples[0] on a live source's own clock. None for speech that is
                made, not recorded: it is said from now on, after what is queued already.

        Returns:
            the session sample of its first.
        """
        arrival_s = self.heard_s = self.clock.now()
        with self._lock:
            if source_sample is None:
                soon = self.clock.sample() + ms_to_samples(self.options.max_wait_ms)
                start = max(self._sound.end_sample, soon, self._fed_sample + self._slip_samples)
            else:
                samples, start = self._source.follow(samples, source_sample, arrival_s)
                self.counters.source_ppm = self._source.ppm
                if self._source.placed_anew:
                    self._align(start + samples.size)
            end = start + samples.size
            kept = self._sound.put(samples, start)
            self._count_sound()
            if kept:
                if self._spoken and self._spoken[-1][1] >= end - kept:
                    self._spoken[-1] = (self._spoken[-1][0], end)
                else:
                    self._spoken = [*self._spoken[-63:], (end - kept, end)]
            self._lock.notify()
            return start

    def interrupt(self) -> float:
        """Barge-in: the turn ends now, wherever its sound and frames are.

        Returns:
            ms of this turn's sound that have left.
        """
        with self._lock:
            played_ms = self._played_ms()
            self.turn += 1
            self._spoken = []
            self._sound.clear()
            self._interrupted = True
            self.counters.interruptions += 1
            self._lock.notify()
        return played_ms

    def begin_turn(self) -> None:
        """Count what is played from here on; nothing is dropped."""
        with self._lock:
            self._spoken = []

    def played_ms(self) -> float:
        """ms of this turn's sound that have left."""
        with self._lock:
            return self._played_ms()

    @property
    def waiting_s(self) -> float:
        """Sound that waits for its time."""
        with self._lock:
            return self._sound.queued_samples / SAMPLE_RATE_HZ

    @property
    def speaking(self) -> bool:
        """Whether sound of this turn has still to leave."""
        with self._lock:
            return bool(self._spoken) and self._spoken[-1][1] > self._left_sample()

    def close(self, timeout_s: float = 2.0) -> None:
        """End: no frame leaves any more, and the thread is gone."""
        with self._lock:
            self._closed = True
            self.turn += 1
            self._lock.notify()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                logger.error("session thread did not end within %.1f s", timeout_s)

    def _played_ms(self) -> float:
        left = self._left_sample()
        played = sum(max(0, min(end, left) - start) for start, end in self._spoken)
        return played * 1000 / SAMPLE_RATE_HZ

    def _align(self, packet_end_sample: int) -> None:
        """Let our 20 ms steps end where the source's packets end: no step waits for the next."""
        phase = (packet_end_sample - self._slip_samples) % STEP_SAMPLES
        if phase > _ALIGNED_SAMPLES:
            self._slip_samples += phase

    def _left_sample(self) -> int:
        """Where the sound that has left ends; by the clock while nobody watches."""
        if self._subscriptions:
            return self._shown_sample
        return self.clock.sample() - self.delay_samples

    def _left(self, item: TimedFrame) -> None:
        """A frame has left for some viewer."""
        self._shown_sample = max(
            self._shown_sample, item.media_sample + item.frame.audio.samples.size
        )

    def _unsubscribe(self, gone: Subscription) -> None:
        with self._lock:
            self._subscriptions = tuple(s for s in self._subscriptions if s is not gone)

    def _run(self) -> None:
        try:
            while (step := self._next_step()) is not None:
                self._speak(*step)
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"
            logger.exception("session ended by an error")
        finally:
            self._session.close()
            with self._lock:
                self._closed = True
                subscriptions, self._subscriptions = self._subscriptions, ()
            for subscription in subscriptions:
                subscription._hand_over(None)

    def _next_step(self) -> tuple[AudioChunk, int] | None:
        """Wait for the next 20 ms of sound, or for the time when it is silence; None at the end.

        Returns:
            the sound, in session samples, and the turn it belongs to.
        """
        patience_samples = ms_to_samples(self.options.max_wait_ms)
        with self._lock:
            while not self._closed:
                start = self._fed_sample + self._slip_samples
                end = start + STEP_SAMPLES
                behind = self.clock.sample() - end
                slip = behind - ms_to_samples(self.options.slip_ms)
                if slip > 0:
                    whole = -(-behind // STEP_SAMPLES) * STEP_SAMPLES
                    self._slip_samples += whole
                    self.counters.slipped_samples += whole
                    logger.warning("behind by %d ms, which were skipped", whole // 16)
                    continue
                # Early sound (speech that is made) waits for its time; late sound is waited for.
                due = behind >= (0 if self._sound.ready(end) else patience_samples)
                if due:
                    break
                wait = -behind if behind < 0 else patience_samples - behind
                self._lock.wait(max(wait, 1) / SAMPLE_RATE_HZ)
            if self._closed:
                return None
            if self._interrupted:
                self._interrupted = False
                self._session.interrupt()
            chunk = AudioChunk(self._sound.take(start, STEP_SAMPLES), self._fed_sample)
            self._fed_sample += STEP_SAMPLES
            self._count_sound()
            return chunk, self.turn

    def _count_sound(self) -> None:
        self.counters.queue_depth = self._sound.queued_samples
        self.counters.dropped_samples = self._sound.dropped_samples

    def _speak(self, chunk: AudioChunk, turn: int) -> None:
        began_s = time.perf_counter()
        media = chunk.start_sample + self._slip_samples
        late = self.clock.sample() - (media + STEP_SAMPLES)
        for subscription in self._subscriptions:
            subscription._hear(TimedSound(chunk.samples, media, turn))
        hurried = (
            late > ms_to_samples(self.options.playout_delay_ms) and self._repeated < _MOST_REPEATED
        )
        self._repeated = self._repeated + 1 if hurried else 0
        with self._turn_to_compute:
            frames = self._session.push(chunk, not hurried)
        if hurried:
            self.counters.repeated_frames += len(frames)
        self.counters.compute_ms.append((time.perf_counter() - began_s) * 1000)
        for frame in frames:
            media = frame_sample(frame.frame_index, frame.fps) + self._slip_samples
            item = TimedFrame(frame, media, self.clock.wall_s(media + self.delay_samples), turn)
            self.counters.frames += 1
            if self.clock.now() > item.release_s:
                self.counters.late_frames += 1
            if turn != self.turn:
                self.counters.dropped_frames += 1
                continue
            for subscription in self._subscriptions:
                subscription._hand_over(item)


def warm_up(engine: LiveEngine) -> float:
    """Run the engine once over noise, so that the first frame is as fast as the tenth, and settle.

    Returns:
        seconds it took.
    """
    began_s = time.perf_counter()
    session = engine.session()
    noise = np.random.default_rng(0).standard_normal(int(_WARM_UP_S * SAMPLE_RATE_HZ))
    samples = (0.1 * noise).astype(np.float32)
    for start in range(0, samples.size, STEP_SAMPLES):
        session.push(AudioChunk(samples[start : start + STEP_SAMPLES], start))
    session.close()
    # Else a collection in a call's midst goes through all that was loaded: 80 ms.
    collect_and_freeze()
    return time.perf_counter() - began_s
