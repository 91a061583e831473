"""Clock drift: sound is resampled by some parts per million, never cut.

A sound card's crystal is off by 20 to 200 ppm: 200 ppm are 12 ms a minute, 360 ms in half an hour.
`DriftLoop` finds how much from the distance between where sound lies and where it belongs;
`FractionalResampler` makes as many samples of it as the other clock has counted.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from lipstream.engine.types import F32, SAMPLE_RATE_HZ, STEP_SAMPLES
from lipstream.streaming.session.audio_in import HALF_TAPS, FractionalResampler
from lipstream.streaming.session.clock import MediaClock
from lipstream.streaming.session.margin import MAX_MARGIN_S, JitterMargin
from lipstream.streaming.session.pauses import PauseDetector, shorten

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
_STALE_S: Final = 0.5  # sound that stays too late for so long takes a longer route

_LONG_PAUSE_S: Final = 0.1  # in a shorter one a word may go on
_DECODED_AHEAD_SAMPLES: Final = 80  # 5 ms
_GIVE_BACK_S: Final = 0.01  # a smaller part of the margin is not worth it


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
    source's clock, and the sound is resampled to follow it. A packet is judged by its first 20 ms:
    the rest of a longer one is early by nature.

    Sound lies behind its earliest arrival by a margin (`JitterMargin`). A packet that comes after
    its step was fed is placed on the next step, whole, and all that follows with it: the margin has
    grown, and a pause is heard in place of a gap. When packets need less of it, pauses are
    shortened until it has gone; no word is cut. Sound that is later than the margin can grow is
    stale: it keeps its place, which has passed. Sound that stays so late for half a second takes a
    longer route, and is placed anew.
    """

    def __init__(self, clock: MediaClock, max_wait_s: float) -> None:
        """`max_wait_s`: how long a step of 20 ms waits for its sound."""
        self._clock = clock
        self._margin = JitterMargin(max_wait_s)
        self._pauses = PauseDetector()
        self._loop = DriftLoop()
        self._resampler = FractionalResampler()
        self._earliest_s = [float("inf")] * _WINDOWS
        self._window = -_WINDOWS
        self._began_s: float | None = None
        self._stale_since_s: float | None = None
        self._shift_s = 0.0  # session time less source time, at the end of the last packet
        self._next_source = 0  # where the next packet begins if nothing is missing
        self._next_sample = 0  # of the session: the next output
        self.placed_anew = False  # by the last packet: steps should end where it does

    @property
    def ppm(self) -> float:
        """How much faster than ours the source's clock runs."""
        return self._loop.ppm

    @property
    def margin_s(self) -> float:
        """How far behind its earliest arrival the sound lies."""
        return self._margin.in_force_s

    def session_sample(self, source_sample: int) -> int:
        """Where a sample of the source's clock lies on the session's, as it is placed now."""
        return round(source_sample + self._shift_s * SAMPLE_RATE_HZ)

    def follow(
        self, samples: F32, first_sample: int, arrival_s: float, unfed_sample: int = 0
    ) -> tuple[F32, int]:
        """Place a packet on the session's clock.

        Args:
            samples: f32 [n], 16 kHz by the source's clock.
            first_sample: of samples[0] on the source's clock.
            arrival_s: monotonic, when its last sample was here.
            unfed_sample: of the session: what lies before has been fed.

        Returns:
            f32 [about n], and the session sample of the first of them. They end 1 ms before the
            packet does.
        """
        end, packet_s = first_sample + samples.size, samples.size / SAMPLE_RATE_HZ
        step = min(samples.size, STEP_SAMPLES)
        offset_s = arrival_s - (first_sample + step) / SAMPLE_RATE_HZ
        earliest_s = self._envelope(offset_s, arrival_s)
        due = self._loop.due(arrival_s)
        jumped = self._place_by(earliest_s, arrival_s)
        missing = first_sample - self._next_source if self._next_source >= 0 else -1
        if missing / SAMPLE_RATE_HZ > _LONG_PAUSE_S + self._margin.excess_s:
            self._shift_s -= self._margin.give_back(self._margin.excess_s)
        if jumped or missing:
            self._place(first_sample)
        late = unfed_sample - self._next_sample
        if late <= 0:
            self._stale_since_s = None
        elif self._is_placed_later(late, offset_s, arrival_s, packet_s):
            jumped = True
            self._place(first_sample)
        if self._stale_since_s is None:
            phase = max(0, self._next_sample - unfed_sample) % max(step, 1)
            self._margin.observe(arrival_s, max(0.0, offset_s - min(self._earliest_s)), phase)
        if due and not jumped:
            wrong_s = self._wrong_s(earliest_s)
            self._loop.update(-wrong_s if abs(wrong_s) < _SETTLED_JUMP_S else 0.0, arrival_s)
        samples, aligned = self._shorten_pause(samples, arrival_s)
        self.placed_anew = jumped or aligned
        self._next_source = end
        self._resampler.put(samples)
        count = self._resampler.available(self._loop.step)
        out, start = self._resampler.take(count, self._loop.step), self._next_sample
        self._next_sample += count
        # The last sample put lies `pending` after the place of the next output.
        ends_at = self._next_sample + self._resampler.pending / self._loop.step
        self._shift_s = (ends_at - end) / SAMPLE_RATE_HZ
        return out, start

    def note_late(self, first_sample: int, arrival_s: float, unfed_sample: int) -> None:
        """A packet that came too late to be used; those after it are placed as if it had been."""
        if self._began_s is None:
            return
        # Its step may wait still, for half of it: the decoder has gone on, in time for the rest.
        late = max(unfed_sample - self.session_sample(first_sample), _DECODED_AHEAD_SAMPLES)
        offset_s = arrival_s - (first_sample + STEP_SAMPLES) / SAMPLE_RATE_HZ
        packet_s = STEP_SAMPLES / SAMPLE_RATE_HZ
        if self._is_placed_later(late, offset_s, arrival_s, packet_s):
            # It is lost, unlike one that is merely late, and a later one would be as well.
            ahead_s = min(packet_s, MAX_MARGIN_S - self._margin.in_force_s)
            self._margin.in_force_s += ahead_s
            self._shift_s += ahead_s
            self._next_source = -1  # the next packet is placed anew

    def _wrong_s(self, earliest_s: float) -> float:
        """How much later than it is the sound should lie."""
        return earliest_s + self._margin.in_force_s - self._clock.origin_s - self._shift_s

    def _envelope(self, offset_s: float, arrival_s: float) -> float:
        """The earliest of the last seconds."""
        window = int(arrival_s / _UPDATE_S)
        passed = min(max(window - self._window, 0), _WINDOWS)
        self._earliest_s = self._earliest_s[passed:] + [float("inf")] * passed
        self._window = max(window, self._window)
        self._earliest_s[-1] = min(self._earliest_s[-1], offset_s)
        return min(self._earliest_s)

    def _place_by(self, earliest_s: float, arrival_s: float) -> bool:
        """Follow a route that has become longer or shorter; whether the sound was moved."""
        wrong_s = self._wrong_s(earliest_s)
        if self._began_s is None:
            self._began_s = arrival_s
            self._shift_s += wrong_s
            return True
        new = arrival_s - self._began_s < _SETTLING_S
        if wrong_s <= -(_NEW_JUMP_S if new else _SETTLED_JUMP_S):
            # Earlier than ever: the place is kept, and has more margin than was known.
            self._margin.in_force_s -= wrong_s
            if self._margin.in_force_s <= MAX_MARGIN_S:
                return False
            self._shift_s -= self._margin.give_back(self._margin.in_force_s)
            return True
        if wrong_s >= _SETTLED_JUMP_S:
            wrong_s -= self._margin.give_back(wrong_s)
            self._shift_s += wrong_s
            return wrong_s > 0
        return False

    def _is_placed_later(
        self, late: int, offset_s: float, arrival_s: float, packet_s: float
    ) -> bool:
        """What becomes of a packet that comes so many samples after its step was fed."""
        late_s = (late + HALF_TAPS) / SAMPLE_RATE_HZ  # it ends 1 ms short: on a step again
        if self._stale_since_s is None and self._margin.in_force_s + late_s <= MAX_MARGIN_S:
            if self._margin.may_lose(arrival_s, packet_s):
                return False
            self._margin.in_force_s += late_s
            self._shift_s += late_s
            return True
        if self._stale_since_s is None:
            self._stale_since_s = arrival_s
        if arrival_s - self._stale_since_s < _STALE_S:
            return False
        self._stale_since_s = None
        self._margin.in_force_s = 0.0
        self._earliest_s = [float("inf")] * (_WINDOWS - 1) + [offset_s]
        self._shift_s += self._wrong_s(offset_s)
        return True

    def _shorten_pause(self, samples: F32, arrival_s: float) -> tuple[F32, bool]:
        """The packet with less silence, and whether the last of the excess has gone."""
        silent_s = self._pauses.push(samples, arrival_s)
        excess_s = self._margin.excess_s
        if silent_s < _LONG_PAUSE_S or excess_s < _GIVE_BACK_S:
            return samples, False
        count = min(round(excess_s * SAMPLE_RATE_HZ), samples.size // 2)
        self._margin.give_back(count / SAMPLE_RATE_HZ)
        return shorten(samples, count), self._margin.excess_s < _GIVE_BACK_S

    def _place(self, first_sample: int) -> None:
        """The next output is the sound's sample `first_sample`, wherever the last one was."""
        self._resampler = FractionalResampler()
        self._next_sample = self.session_sample(first_sample)
