"""One conversation in a thread of its own: sound in, timed frames with their own sound out.

    push_audio() ─► SoundQueue ─► worker: 20 ms steps on the clock ─► Session.push ─► subscriptions

The worker feeds the engine on the session's clock: real sound when it is there, silence when it
is not, so the target goes on idling at the frame rate. Frame k may leave at

    wall time of (its own first sample + engine delay) + playout delay

and carries that moment along; picture and sound of one media time therefore leave together. Sound
is handed on when it is fed, not when its frame is rendered: a late frame makes no late sound.

What is dropped, and counted: queued sound over `sound_capacity_s` (oldest first), sound that
arrives after its time, and frames that a subscriber does not fetch (oldest first). A machine that
is too slow first loses pictures: late frames repeat the previous picture, at most four in a row,
and the sound goes on whole. Behind by `slip_ms`, it skips the sound of that time.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Final

from lipstream.engine import turns
from lipstream.engine.errors import UsageError
from lipstream.engine.time_source import MONOTONIC, TimeSource
from lipstream.engine.timebase import frame_sample, ms_to_samples
from lipstream.engine.types import F32, SAMPLE_RATE_HZ, STEP_SAMPLES, AudioChunk
from lipstream.streaming.marking.marker import FrameMarker, Marking
from lipstream.streaming.session import gc_policy
from lipstream.streaming.session.clock import MediaClock
from lipstream.streaming.session.counters import RunnerCounters
from lipstream.streaming.session.drift import SourceClockTracker
from lipstream.streaming.session.fed_sound import FedSound
from lipstream.streaming.session.live_engine import LiveEngine, compute_slots
from lipstream.streaming.session.sound_queue import SoundQueue
from lipstream.streaming.session.subscription import Subscription, TimedFrame, TimedSound
from lipstream.streaming.session.turn_spans import TurnSpans

logger = logging.getLogger(__name__)

_MOST_REPEATED: Final = 8  # steps in a row, four frames: the picture jerks, but it moves
_MOST_DELAY_MS: Final = 2000  # of the engine; nobody talks with an answer that is later
_ALIGNED_SAMPLES: Final = 80  # 5 ms: what is nearer is not worth a step in time


@dataclass(frozen=True, slots=True)
class RunnerOptions:
    """Times and sizes of one conversation."""

    playout_delay_ms: int = 40  # for jitter of the connection and of our own compute
    # How long a step waits for late sound: a packet of 20 ms, since a source whose clock drifts
    # ends its packets anywhere in our step, and the error of the drift loop.
    max_wait_ms: int = 24
    sound_capacity_s: int = 60  # speech synthesised faster than real time
    frames_capacity: int = 8  # per subscriber
    slip_ms: int = 400  # so far behind, time is skipped
    marking: Marking = field(default_factory=Marking)  # of the frames

    def __post_init__(self) -> None:
        if not 0 <= self.max_wait_ms <= self.playout_delay_ms <= self.slip_ms:
            raise UsageError(
                f"max_wait_ms {self.max_wait_ms}, playout_delay_ms {self.playout_delay_ms}, "
                f"slip_ms {self.slip_ms}: expected them in this order, from 0"
            )


class SessionRunner:
    """Owns one engine session and its thread. All methods may be called from any thread."""

    def __init__(
        self,
        engine: LiveEngine,
        options: RunnerOptions | None = None,
        time_source: TimeSource = MONOTONIC,
    ) -> None:
        """Raises: UsageError for an engine too late to talk with."""
        if engine.delay_ms > _MOST_DELAY_MS:
            raise UsageError(
                f"this engine is {engine.delay_ms:g} ms behind the voice, expected at most "
                f"{_MOST_DELAY_MS}: the profile file needs the whole sound; use low, live or studio"
            )
        self.options = options or RunnerOptions()
        self.counters = RunnerCounters()
        self.marker = FrameMarker(self.options.marking)
        self.clock = MediaClock(time_source)
        self.turn = 0
        self.error: str | None = None
        self.last_audio_s: float | None = None  # monotonic, when sound last arrived
        self._target = getattr(engine, "target", None)
        self._session = engine.session()
        # A session of `streaming.workers` takes turns in its own process.
        is_remote = getattr(self._session, "is_remote", False)
        self._compute_slot: Callable[[], AbstractContextManager[object]] = (
            nullcontext if is_remote else compute_slots
        )
        self._delay_samples = round(engine.delay_ms * SAMPLE_RATE_HZ / 1000)
        self._lock = time_source.condition()  # never held while the engine session is called
        self._sound = SoundQueue(self.options.sound_capacity_s * SAMPLE_RATE_HZ)
        self._source = SourceClockTracker(self.clock, self.options.max_wait_ms / 1000)
        self._subscriptions: tuple[Subscription, ...] = ()
        self._turn_spans = TurnSpans()
        self._sent_sample = 0  # where the sound of the frames that left ends
        self._fed = FedSound()
        self._repeated_steps = 0  # in a row
        self._interrupted = False
        self._closed = False
        context = contextvars.copy_context()  # for the trace id
        self._thread = threading.Thread(
            target=context.run, args=(self._run,), name="lipstream-session", daemon=True
        )

    @property
    def delay_samples(self) -> int:
        """From a sample's own time to the moment it leaves: engine delay + playout delay."""
        return self._delay_samples + ms_to_samples(self.options.playout_delay_ms)

    @property
    def closed(self) -> bool:
        """Whether no frame leaves any more."""
        return self._closed

    def start(self) -> None:
        """Begin to run."""
        self._thread.start()

    def subscribe(
        self,
        painted: Callable[[TimedFrame], None] | None = None,
        sound: Callable[[TimedSound], None] | None = None,
    ) -> Subscription:
        """A viewer on the running event loop; both functions are called in our own thread.

        Args:
            painted: called with each frame when it is rendered, ahead of its time.
            sound: called with each 20 ms of sound, silence too, when it is fed; for who does not
                take it from the frames.
        """
        subscription = Subscription(self, self.options.frames_capacity, painted, sound)
        with self._lock:
            self._subscriptions = (*self._subscriptions, subscription)
            if self._closed:
                subscription._offer(None)
        return subscription

    def push_audio(
        self, samples: F32, source_sample: int | None = None, arrival_s: float | None = None
    ) -> int:
        """Take sound in; never waits for the engine.

        Args:
            samples: f32 [n], mono 16 kHz.
            source_sample: of samples[0] on a live source's own clock. None for synthetic speech: it
                starts now, or after what is queued already.
            arrival_s: monotonic, when it came if that was before now.

        Returns:
            the session sample of its first.
        """
        self.last_audio_s = self.clock.now()
        if arrival_s is None:
            arrival_s = self.last_audio_s
        with self._lock:
            if source_sample is None:
                soon = self.clock.sample() + ms_to_samples(self.options.max_wait_ms)
                start = max(self._sound.end_sample, soon, self._fed.next_sample)
            else:
                samples, start = self._source.follow(
                    samples, source_sample, arrival_s, self._fed.next_sample
                )
                self.counters.source_ppm = self._source.ppm
                self.counters.source_margin_s = self._source.margin_s
                if self._source.placed_anew:
                    self._align(start + samples.size)
            end = start + samples.size
            kept = self._sound.put(samples, start)
            self._count_sound()
            if kept:
                self._turn_spans.add(end - kept, end)
            self._lock.notify()
            return start

    def needed_by_s(self, source_sample: int) -> float:
        """Monotonic: when the step of a live source's sample is fed, with it or without."""
        with self._lock:
            steps = (self._source.session_sample(source_sample) - self._fed.next_sample) // (
                STEP_SAMPLES
            )
            step_end = self._fed.next_sample + (steps + 1) * STEP_SAMPLES
        return self.clock.wall_s(step_end) + self.options.max_wait_ms / 1000

    def note_late(self, source_sample: int, arrival_s: float) -> None:
        """A live source's packet came too late to be decoded: the next ones should not."""
        with self._lock:
            self._source.note_late(source_sample, arrival_s, self._fed.next_sample)

    def interrupt(self) -> float:
        """Barge-in: the turn ends now, wherever its sound and frames are.

        Returns:
            ms of this turn's sound that have left.
        """
        with self._lock:
            played_ms = self._played_ms()
            self.turn += 1
            self._turn_spans.clear()
            self._sound.clear()
            self._interrupted = True
            self.counters.interruptions += 1
            self._lock.notify()
        return played_ms

    def begin_turn(self, first_sample: int | None = None) -> None:
        """Count what is played from here on; nothing is dropped.

        first_sample: of the session, where the turn begins among the sound that is queued already.
        """
        with self._lock:
            if first_sample is None:
                self._turn_spans.clear()
            else:
                self._turn_spans.begin(first_sample)

    @property
    def left_sample(self) -> int:
        """Session sample before which all sound has left; by the clock while nobody watches."""
        with self._lock:
            return self._delivered_until()

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
            end = self._turn_spans.end_sample
            return end is not None and end > self._delivered_until()

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
        played = self._turn_spans.played_samples(self._delivered_until())
        return played * 1000 / SAMPLE_RATE_HZ

    def _align(self, packet_end_sample: int) -> None:
        """Let our 20 ms steps end where the source's packets end: no step waits for the next."""
        phase = (packet_end_sample - self._fed.next_sample) % STEP_SAMPLES
        if phase > _ALIGNED_SAMPLES:
            self._fed.skip(phase)

    def _delivered_until(self) -> int:
        """Where the sound that has left ends; by the clock while nobody watches."""
        if self._subscriptions:
            return self._sent_sample
        return self.clock.sample() - self.delay_samples

    def _delivered(self, item: TimedFrame) -> None:
        """A frame has left for some viewer."""
        end = item.media_sample + item.frame.audio.samples.size
        self._sent_sample = max(self._sent_sample, end)

    def _unsubscribe(self, gone: Subscription) -> None:
        with self._lock:
            self._subscriptions = tuple(s for s in self._subscriptions if s is not gone)

    def _run(self) -> None:
        try:
            with gc_policy.conversation():
                if self._target is not None:
                    self.marker.prepare(self._target.width, self._target.height)
                while (step := self._next_step()) is not None:
                    self._render(step)
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"
            logger.exception("session ended by an error")
        finally:
            with self._lock:
                self._closed = True
                subscriptions, self._subscriptions = self._subscriptions, ()
            for subscription in subscriptions:
                subscription._deliver(None)
            try:
                self._session.close()
            except Exception:
                logger.exception("the engine's session could not be closed")

    def _next_step(self) -> _Step | None:
        """Wait for the next 20 ms of sound, or for the time when it is silence; None at the end."""
        max_wait_samples = ms_to_samples(self.options.max_wait_ms)
        with self._lock:
            while not self._closed:
                start = self._fed.next_sample
                end = start + STEP_SAMPLES
                behind = self.clock.sample() - end
                if behind > ms_to_samples(self.options.slip_ms):
                    whole = -(-behind // STEP_SAMPLES) * STEP_SAMPLES
                    self._fed.skip(whole)
                    self.counters.slipped_samples += whole
                    logger.warning("too slow for this call: skipped %d ms of it", whole // 16)
                    continue
                # Early sound (synthetic speech) waits for its time; late sound is waited for.
                due = behind >= (0 if self._sound.ready(end) else max_wait_samples)
                if due:
                    break
                wait = -behind if behind < 0 else max_wait_samples - behind
                self._lock.wait(max(wait, 1) / SAMPLE_RATE_HZ)
            if self._closed:
                return None
            chunk = AudioChunk(self._sound.take(start, STEP_SAMPLES), self._fed.end_sample)
            self._fed.feed(STEP_SAMPLES)
            self._count_sound()
            interrupted, self._interrupted = self._interrupted, False
            return _Step(chunk, start, self.turn, interrupted)

    def _count_sound(self) -> None:
        self.counters.queue_depth = self._sound.queued_samples
        self.counters.dropped_samples = self._sound.dropped_samples

    def _render(self, step: _Step) -> None:
        """Feed 20 ms to the engine, and hand the sound and its frames to the subscribers."""
        began_s = self.clock.now()
        sound = TimedSound(step.chunk.samples, step.media_sample, step.turn)
        for subscription in self._subscriptions:
            subscription._deliver_sound(sound)
        if step.interrupted:
            self._session.interrupt()
        late = self.clock.sample() - (step.media_sample + STEP_SAMPLES)
        repeat = (
            late > ms_to_samples(self.options.playout_delay_ms)
            and self._repeated_steps < _MOST_REPEATED
        )
        self._repeated_steps = self._repeated_steps + 1 if repeat else 0
        with turns.holding(self._compute_slot):
            pushed = self._session.push(step.chunk, not repeat)
            frames = [self.marker.mark(frame) for frame in pushed]
        # A session of `streaming.workers` computes in another process.
        remote_s: float = getattr(self._session, "remote_cpu_s", 0.0)
        self.counters.cpu_s = time.thread_time() + remote_s
        if repeat:
            self.counters.repeated_frames += len(frames)
        self.counters.compute_ms.append((self.clock.now() - began_s) * 1000)
        for frame in frames:
            with self._lock:
                media = self._fed.session_sample(frame_sample(frame.frame_index, frame.fps))
            item = TimedFrame(
                frame, media, self.clock.wall_s(media + self.delay_samples), step.turn
            )
            self.counters.frames += 1
            if self.clock.now() > item.release_s:
                self.counters.late_frames += 1
            if self._closed:
                self.counters.dropped_frames += 1
                continue
            for subscription in self._subscriptions:
                subscription._deliver(item)


@dataclass(frozen=True, slots=True)
class _Step:
    """20 ms of sound for the engine."""

    chunk: AudioChunk  # by the engine's count
    media_sample: int  # session clock, of its first sample
    turn: int
    interrupted: bool  # the engine drops what it holds before this
