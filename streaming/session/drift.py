"""Clock drift: sound is resampled by some parts per million, never cut.

A sound card's crystal is off by 20 to 200 ppm: 200 ppm are 12 ms a minute, 360 ms in half an hour.
`DriftLoop` finds how much from the distance between where sound lies and where it belongs;
`FractionalResampler` makes as many samples of it as the other clock has counted.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np

from lipstream.engine.types import F32, SAMPLE_RATE_HZ
from lipstream.streaming.session.audio_in import FractionalResampler
from lipstream.streaming.session.clock import MediaClock

# A loop with both poles at 0.025 rad/s: 200 ppm cost 3 ms for a minute, and a pitch that moves by
# less than 100 ppm a second is inaudible.
_PROPORTIONAL_PER_S: Final = 0.05
_INTEGRAL_PER_S2: Final = 0.000625
_DEADBAND_S: Final = 0.001  # a smaller error is jitter of the connection, not of the clock
_MAX_RATIO: Final = 0.005
_MAX_CHANGE: Final = 1.0e-4  # of the ratio, an update
_UPDATE_S: Final = 1.0

_WINDOWS: Final = 5  # of an update each: how far back the earliest packet counts
_SETTLING_S: Final = 10.0  # while a source is new, it is placed anew by anything earlier
_SETTLED_JUMP_S: Final = 0.02  # afterwards, only by more than drift can explain
_NEW_JUMP_S: Final = 0.001

_WATCHED_PACKETS: Final = 1000  # 20 s
_MAY_BE_LATE: Final = 3  # of them
_MAX_MARGIN_S: Final = 0.06
_SPARE_S: Final = 0.005  # beyond what was needed
_MARGIN_DECAY_S: Final = 0.0001  # a second: an unneeded margin shrinks by so much


class DriftLoop:
    """How many samples of the one clock pass per sample of the other: a PI loop, once a second."""

    def __init__(self) -> None:
        self._updated_s: float | None = None
        self._integral = 0.0
        self._ratio = 0.0

    @property
    def step(self) -> float:
        """Input samples per output sample."""
        return 1.0 + self._ratio

    @property
    def ppm(self) -> float:
        """How much more than one input sample passes per output sample."""
        return 1e6 * self._ratio

    def due(self, now_s: float) -> bool:
        """Whether a second has passed since the last update."""
        if self._updated_s is None:
            self._updated_s = now_s
        return now_s - self._updated_s >= _UPDATE_S

    def skip(self, now_s: float) -> None:
        """The measurement does not concern the clocks; ask again in a second."""
        self._updated_s = now_s

    def update(self, behind_s: float, now_s: float) -> None:
        """Correct by the error: how far the output lags behind its place; positive speeds it up."""
        assert self._updated_s is not None, "due() comes first"
        passed_s = min(now_s - self._updated_s, 2 * _UPDATE_S)
        self._updated_s = now_s
        error_s = np.sign(behind_s) * max(0.0, abs(behind_s) - _DEADBAND_S)
        self._integral += _INTEGRAL_PER_S2 * passed_s * error_s
        self._integral = float(np.clip(self._integral, -_MAX_RATIO, _MAX_RATIO))
        wanted = np.clip(_PROPORTIONAL_PER_S * error_s + self._integral, -_MAX_RATIO, _MAX_RATIO)
        change = np.clip(wanted - self._ratio, -_MAX_CHANGE, _MAX_CHANGE)
        self._ratio = float(self._ratio + change)


class SourceClockTracker:
    """Places a live source on the session's clock by its earliest (arrival - media time).

    A microphone's first packets come late and in a burst: anchored on the first of them, the
    200 to 600 ms would stay in the delay for good. The earliest packet of the last 5 s shows when
    a sample can arrive at best; the lateness of the others is jitter. That moment drifts with the
    source's clock, and the sound is resampled to follow it. Only a jump that no clock makes (20 ms
    at once: another route, a pause of the sender's) places the source anew.

    A step waits `max_wait_s` for a packet; one that is later is lost. When more than 3 packets in
    1000 are later, all sound is placed later, by up to 60 ms: delay is the lesser evil. When they
    come in time again, that margin shrinks by 6 ms a minute.
    """

    def __init__(self, clock: MediaClock, max_wait_s: float) -> None:
        self._clock, self._max_wait_s = clock, max_wait_s
        self._offsets_s: deque[float] = deque(maxlen=_WATCHED_PACKETS)
        self._margin_s = 0.0
        self._too_early = False  # the margin has grown
        self._loop = DriftLoop()
        self._resampler = FractionalResampler()
        self._earliest_s = [float("inf")] * _WINDOWS
        self._window = -_WINDOWS
        self._began_s: float | None = None
        self._shift_s = 0.0  # session time less source time, at the end of the last packet
        self._next_source = 0  # where the next packet begins if nothing is missing
        self._next_sample = 0  # of the session: the next output
        self.placed_anew = False  # by the last packet

    @property
    def ppm(self) -> float:
        """How much faster than ours the source's clock runs."""
        return self._loop.ppm

    def follow(self, samples: F32, first_sample: int, arrival_s: float) -> tuple[F32, int]:
        """Place a packet on the session's clock.

        Args:
            samples: f32 [n], 16 kHz by the source's clock.
            first_sample: of samples[0] on the source's clock.
            arrival_s: monotonic, when its last sample was here.

        Returns:
            f32 [about n], and the session sample of the first of them. They end 1 ms before the
            packet does.
        """
        end = first_sample + samples.size
        offset_s = arrival_s - end / SAMPLE_RATE_HZ
        earliest_s = self._envelope(offset_s, arrival_s)
        self._offsets_s.append(offset_s)
        due = self._loop.due(arrival_s)
        if due:
            self._keep_margin(earliest_s)
        wrong_s = earliest_s + self._margin_s - self._clock.origin_s - self._shift_s
        self.placed_anew = self._must_jump(wrong_s, arrival_s)
        if self.placed_anew:
            self._shift_s += wrong_s
        if self.placed_anew or first_sample != self._next_source:
            self._place(first_sample)
        elif due:
            self._loop.update(-wrong_s, arrival_s)
        self._next_source = end
        self._resampler.put(samples)
        count = self._resampler.available(self._loop.step)
        out, start = self._resampler.take(count, self._loop.step), self._next_sample
        self._next_sample += count
        # The last sample put lies `pending` after the place of the next output.
        ends_at = self._next_sample + self._resampler.pending / self._loop.step
        self._shift_s = (ends_at - end) / SAMPLE_RATE_HZ
        return out, start

    def _envelope(self, offset_s: float, arrival_s: float) -> float:
        """The earliest of the last seconds."""
        window = int(arrival_s / _UPDATE_S)
        passed = min(max(window - self._window, 0), _WINDOWS)
        self._earliest_s = self._earliest_s[passed:] + [float("inf")] * passed
        self._window = max(window, self._window)
        self._earliest_s[-1] = min(self._earliest_s[-1], offset_s)
        return min(self._earliest_s)

    def _keep_margin(self, earliest_s: float) -> None:
        """Once a second: as much as all but the latest few need."""
        if len(self._offsets_s) < _WATCHED_PACKETS:
            return  # the first packets of a source come in a burst
        latest_s = sorted(self._offsets_s)[-1 - _MAY_BE_LATE] - earliest_s
        needed_s = latest_s - self._max_wait_s
        if needed_s > self._margin_s and self._margin_s < _MAX_MARGIN_S:
            self._margin_s = min(needed_s + _SPARE_S, _MAX_MARGIN_S)
            self._too_early = True
        elif needed_s < self._margin_s - _SPARE_S:
            self._margin_s = max(self._margin_s - _MARGIN_DECAY_S, 0.0)

    def _must_jump(self, wrong_s: float, arrival_s: float) -> bool:
        if self._began_s is None:
            self._began_s = arrival_s
            return True
        if self._too_early:
            self._too_early = False
            return True
        new = arrival_s - self._began_s < _SETTLING_S
        return wrong_s <= -(_NEW_JUMP_S if new else _SETTLED_JUMP_S) or wrong_s >= _SETTLED_JUMP_S

    def _place(self, first_sample: int) -> None:
        """The next output is the sound's sample `first_sample`, wherever the last one was."""
        self._resampler = FractionalResampler()
        self._next_sample = round(first_sample + self._shift_s * SAMPLE_RATE_HZ)
