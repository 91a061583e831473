"""Speech, ends of segments and interruptions in any order: the next turn is heard at once."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lipstream.engine.types import STEP_SAMPLES, AudioChunk, VideoFrame
from lipstream.streaming.integrations.voice import (
    AGENT_OPTIONS,
    OriginalSpeech,
    SpeechEnd,
    Voice,
)
from lipstream.streaming.session.runner import SessionRunner
from lipstream.streaming.session.subscription import TimedFrame
from tests.clock import ScriptedClock
from tests.streaming.live_engine import LiveFakeEngine

FRAME_S = 0.04
FRAME_SAMPLES = 640
FIRST_SOUND_S = 0.3
# What waits is in step with the clock, but for the resampler's 1 ms and a frame's own length.
LATE_S = 0.1
HELD_SAMPLES = 60


class AnyOrder(RuleBasedStateMachine):
    """A conversation without its thread: the test takes the sound as the thread would.

    The model: what was pushed and has neither left nor been interrupted, each sample with the
    number of its turn.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = ScriptedClock(0.0)
        self.runner = SessionRunner(LiveFakeEngine(), AGENT_OPTIONS, time_source=self.clock)
        self.voice = Voice(self.runner)
        self.turn = 1
        self.waiting: list[np.ndarray] = []  # pushed, and not left
        self.ends = 0  # of segments that have not been reported
        self.since_s: float | None = None  # when the first of what waits was pushed
        self.frame = 0

    @rule(seconds=st.sampled_from([0.0, 0.0005, 0.02, 0.3, 1.5, 8.0]))
    def push(self, seconds: float) -> None:
        samples = np.full(round(24_000 * seconds), self.turn, np.int16)
        self.voice.push_audio(samples, 24_000)
        if samples.size:
            if self._held():
                self.since_s = self.clock.now()
            self.waiting.append(samples)

    def _held(self) -> bool:
        """Whether the resampler may hold back all that waits."""
        return sum(part.size for part in self.waiting) < HELD_SAMPLES

    @rule()
    def end(self) -> None:
        self.voice.end_segment()
        self.ends += 1

    @rule()
    def interrupt(self) -> None:
        self.voice.interrupt()
        self.turn += 1
        self.waiting, self.ends, self.since_s = [], 0, None

    @rule(frames=st.sampled_from([1, 3, 10, 60]))
    def wait(self, frames: int) -> None:
        for _ in range(frames):
            self._one_frame()

    def _one_frame(self) -> None:
        """Its sound is taken by the clock, and the frame leaves when its delay has passed."""
        self.clock.time_s += FRAME_S
        with self.runner._lock:
            while self.runner._fed.next_sample + STEP_SAMPLES <= self.runner.clock.sample():
                self.runner._sound.take(self.runner._fed.next_sample, STEP_SAMPLES)
                self.runner._fed.feed(STEP_SAMPLES)
        media = FRAME_SAMPLES * self.frame - self.runner.delay_samples
        self.frame += 1
        sound = AudioChunk(np.zeros(FRAME_SAMPLES, np.float32), media)
        picture = VideoFrame(
            np.zeros((6, 4), np.uint8), self.frame, LiveFakeEngine().fps, sound, 0, False
        )
        for part in self.voice.leaving(TimedFrame(picture, media, 0.0, self.runner.turn)):
            if isinstance(part, SpeechEnd):
                self.ends -= 1
            else:
                self._left(part)

    def _left(self, part: OriginalSpeech) -> None:
        assert set(part.samples) == {self.turn}, "of this turn"
        assert self.waiting, "pushed"
        expected = np.concatenate(self.waiting)
        assert part.samples.size <= expected.size, "once"
        rest = expected[part.samples.size :]
        self.waiting = [rest] if rest.size else []
        self.since_s = self.clock.now() if rest.size else None

    @invariant()
    def nothing_waits_for_long(self) -> None:
        assert self.ends >= 0
        if self.since_s is None:
            return
        assert self._held() or self.clock.now() - self.since_s <= FIRST_SOUND_S

    def teardown(self) -> None:
        """All that was pushed leaves, in real time, and every end is reported."""
        self.voice.end_segment()
        self.ends += 1
        seconds = sum(part.size for part in self.waiting) / 24_000
        for _ in range(round((seconds + FIRST_SOUND_S + LATE_S) / FRAME_S)):
            self._one_frame()
        assert not self.waiting and self.ends == 0


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=30, stateful_step_count=12, deadline=None)
