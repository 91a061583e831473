"""The avatar's voice for a sound card that asks for samples by its own clock."""

from __future__ import annotations

from typing import Final

import numpy as np

from lipstream.engine.types import F32, SAMPLE_RATE_HZ
from lipstream.streaming.session.audio_in import TAPS, FractionalResampler
from lipstream.streaming.session.drift import DriftLoop
from lipstream.streaming.session.runner import SessionRunner
from lipstream.streaming.session.sound_queue import TurnSound
from lipstream.streaming.session.subscription import TimedSound

_CAPACITY_S: Final = 4
_MISPLACED_S: Final = 0.05  # so far off, the place is taken anew
_SETTLING_S: Final = 0.002  # the same until it was right once: one callback is a poor measurement


class Playback:
    """Sound in, ahead of its time; samples at a card's rate out, in the card's thread.

    A frame's sound is due `hold_s` after the frame's release time, which leaves the card's own
    buffer the time it needs; whoever shows the frame waits as long. The card's clock is followed
    by resampling: nothing is cut or doubled.
    """

    def __init__(self, runner: SessionRunner, rate_hz: float, hold_s: float) -> None:
        self.hold_s = hold_s
        self._runner = runner
        self._session_step = SAMPLE_RATE_HZ / rate_hz
        self._sound = TurnSound(_CAPACITY_S * SAMPLE_RATE_HZ, runner.turn)
        self._loop = DriftLoop()
        self._resampler = FractionalResampler()
        self._next_sample: int | None = None  # of the session: the next to go into the resampler
        self._settled = False
        self._wrong_s: list[float] = []  # since the loop's last update

    @property
    def ppm(self) -> float:
        """How much slower than ours the card's clock runs."""
        return self._loop.ppm

    @property
    def behind_s(self) -> float:
        """How far the sound lags behind its place, the median of the last second."""
        return float(np.median(self._wrong_s)) if self._wrong_s else 0.0

    def push_audio(self, item: TimedSound) -> None:
        """Sound, before its time; from any thread."""
        self._sound.put(item.samples, item.media_sample, item.turn)

    def fill(self, count: int, played_s: float) -> F32:
        """f32 [count] at the card's rate, silence where there is none.

        Args:
            count: samples.
            played_s: monotonic, when the first of them will be played.
        """
        clock = self._runner.clock
        due = (played_s - self.hold_s - clock.origin_s) * SAMPLE_RATE_HZ
        due -= self._runner.delay_samples
        self._follow_card(due, played_s)
        step = self._session_step * self._loop.step
        while (missing := count - self._resampler.available(step)) > 0:
            assert self._next_sample is not None
            length = int(np.ceil(missing * step)) + TAPS
            sound = self._sound.take(self._next_sample, length, self._runner.turn)
            self._resampler.put(sound)
            self._next_sample += length
        return self._resampler.take(count, step)

    def _follow_card(self, due_sample: float, now_s: float) -> None:
        if self._next_sample is not None:
            place = self._next_sample - self._resampler.pending
            self._wrong_s.append((due_sample - place) / SAMPLE_RATE_HZ)
            if not self._loop.due(now_s):
                return
            # A callback may be late by any time; their median shows where the sound lies.
            wrong_s = self.behind_s
            self._wrong_s = []
            if abs(wrong_s) < (_MISPLACED_S if self._settled else _SETTLING_S):
                self._settled = True
                self._loop.update(wrong_s, now_s)
                return
            self._loop.skip(now_s)  # no clock is off by so much: not a measurement of drift
        self._resampler = FractionalResampler()
        self._next_sample = round(due_sample)
