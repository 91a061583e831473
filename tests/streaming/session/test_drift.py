"""A source with a clock of its own, followed by resampling: nothing cut, late or detuned."""

from __future__ import annotations

import numpy as np
import pytest

from lipstream.engine.types import F32
from lipstream.streaming.session.audio_in import HALF_TAPS
from lipstream.streaming.session.clock import MediaClock
from lipstream.streaming.session.drift import SourceClockTracker
from tests.clock import ScriptedClock

PACKET = 320


def tracker(max_wait_s: float = 0.3) -> SourceClockTracker:
    """By default no packet is too late."""
    return SourceClockTracker(MediaClock(ScriptedClock(0.0)), max_wait_s)


def sine(hz: float, count: int, rate_hz: float = 16_000) -> F32:
    return np.sin(2 * np.pi * hz * np.arange(count) / rate_hz).astype(np.float32)


def test_a_start_burst_does_not_stay_in_the_delay() -> None:
    """Packets 0 to 14 arrive together, 300 ms late; the next ones are on time."""
    source = tracker()
    silence = np.zeros(PACKET, np.float32)
    for k in range(15):
        source.follow(silence, PACKET * k, 1.0 + 0.3)
    for k in range(15, 60):
        out, start = source.follow(silence, PACKET * k, 1.0 + 0.02 * (k + 1))
    assert start + out.size + HALF_TAPS == round(16_000 * (1.0 + 0.02 * 60))


def test_jitter_alone_does_not_move_a_source() -> None:
    source = tracker()
    random = np.random.default_rng(1)
    sound = random.standard_normal(3000 * PACKET).astype(np.float32)
    placed = np.zeros(sound.size, np.float32)
    for k in range(3000):
        late_s = 0.0 if k % 50 == 0 else random.uniform(0, 0.1)
        out, start = source.follow(
            sound[PACKET * k : PACKET * (k + 1)], PACKET * k, 0.02 * (k + 1) + late_s
        )
        placed[start : start + out.size] = out
    assert np.array_equal(placed[:-HALF_TAPS], sound[:-HALF_TAPS])
    assert source.ppm == 0


@pytest.mark.parametrize(
    ("late_share", "late_s", "least_s", "most_s"),
    [(0.002, 0.06, 0.0, 0.03), (0.05, 0.04, 0.01, 0.06), (0.02, 0.1, 0.03, 0.1)],
)
def test_where_many_packets_come_late_the_sound_is_placed_later(
    late_share: float, late_s: float, least_s: float, most_s: float
) -> None:
    """A step is fed 24 ms after its time without what has not come; loud, so nothing shrinks."""
    max_wait_s = 0.024
    source, random = tracker(max_wait_s), np.random.default_rng(3)
    loud = np.full(PACKET, 0.5, np.float32)
    lost, moved, unfed = 0, 0, 0
    for k in range(3000):
        late = random.exponential(0.001) + (random.random() < late_share) * random.uniform(
            0, late_s
        )
        arrival_s = 0.02 * (k + 1) + late
        while (unfed + PACKET) / 16_000 + max_wait_s <= arrival_s:
            unfed += PACKET
        out, start = source.follow(loud, PACKET * k, arrival_s, unfed)
        moved += source.placed_anew
        lost += min(max(0, unfed - start), out.size)
    assert lost / 16_000 <= 3 * 0.06, "in 60 s"
    assert least_s <= source.margin_s <= most_s
    assert moved < 8, "seldom, since each time is heard as a pause"


def test_a_margin_goes_in_the_pauses_of_20_calm_seconds_and_a_route_that_grows_is_taken() -> None:
    source = tracker(0.024)
    loud, silence = np.full(PACKET, 0.5, np.float32), np.zeros(PACKET, np.float32)
    unfed = 0
    margins = []
    for k in range(3000):
        in_pause = k % 100 >= 90
        late = 0.07 if k < 500 and k % 25 == 7 else 0.3 if k >= 2000 else 0.0
        arrival_s = 0.02 * (k + 1) + late
        while (unfed + PACKET) / 16_000 + 0.024 <= arrival_s:
            unfed += PACKET
        out, start = source.follow(silence if in_pause else loud, PACKET * k, arrival_s, unfed)
        margins.append(source.margin_s)
        if k > 2030:
            assert start + out.size > unfed, "half a second later it is heard again"
    assert 0.04 < max(margins[:500]) < 0.1
    assert margins[1990] < 0.01
    assert margins[-1] < 0.2


@pytest.mark.parametrize("ppm", [-200.0, 200.0, 50.0])
def test_a_drifting_source_is_followed_without_a_cut(ppm: float) -> None:
    """Ten minutes with jitter and bursts; unfollowed, 200 ppm would be 120 ms."""
    source = tracker()
    random = np.random.default_rng(2)
    pace = 1 + ppm * 1e-6  # source samples per sample of ours
    packets = 30_000
    sound = sine(440, PACKET * 250)  # whole periods: it repeats without a seam
    behind_s, tail, expected_start = [], [], 0
    for k in range(packets):
        arrival_s = 0.02 * (k + 1) / pace
        if k % 25:
            arrival_s += random.uniform(0, 0.02)
        if k % 500 > 490:  # a burst: ten packets, all as late as the first of them
            arrival_s += 0.02 * (500 - k % 500) / pace
        at = PACKET * (k % 250)
        out, start = source.follow(sound[at : at + PACKET], PACKET * k, arrival_s)
        if k:
            assert start == expected_start, "no gap, no overlap"
        expected_start = start + out.size
        behind_s.append(0.02 * (k + 1) / pace - (start + out.size + HALF_TAPS) / 16_000)
        if k > packets - 3000:
            tail.append(out)
    assert np.abs(behind_s).max() < 0.006
    assert np.abs(behind_s[packets // 2 :]).max() < 0.003
    assert source.ppm == pytest.approx(ppm, abs=20)
    # The tone is as high for us as its card's pace makes it, without a click.
    tone = np.concatenate(tail).astype(np.float64)
    spectrum = np.abs(np.fft.rfft(tone * np.blackman(tone.size)))
    peak_hz = spectrum.argmax() * 16_000 / tone.size
    assert peak_hz == pytest.approx(440 * pace, abs=0.05)
    far = np.abs(np.fft.rfftfreq(tone.size, 1 / 16_000) - 440) > 20
    assert 20 * np.log10(spectrum[far].max() / spectrum.max()) < -70


def test_a_longer_route_places_the_source_anew_once() -> None:
    source = tracker()
    silence = np.zeros(PACKET, np.float32)
    jumps = []
    for k in range(3000):
        longer_s = 0.08 if k >= 1500 else 0.0
        out, start = source.follow(silence, PACKET * k, 0.02 * (k + 1) + longer_s)
        if source.placed_anew:
            jumps.append(k)
    assert jumps[0] == 0 and len(jumps) == 2
    assert 1500 < jumps[1] <= 1500 + 5 * 50 + 1, "once the earliest of 5 s shows it"
    assert start + out.size + HALF_TAPS == round(16_000 * (0.02 * 3000 + 0.08))


def test_lost_packets_leave_their_time_empty() -> None:
    """Lost packets and a long pause leave their time empty, and what follows keeps its place."""
    source = tracker()
    loud = np.ones(PACKET, np.float32)
    ends = {}
    for k in [*range(50), *range(53, 100), *range(1000, 1050)]:
        out, start = source.follow(loud, PACKET * k, 0.02 * (k + 1))
        ends[k] = (start, start + out.size)
    assert ends[53][0] == 53 * PACKET and ends[49][1] == 50 * PACKET - HALF_TAPS
    assert ends[1000][0] == 1000 * PACKET and ends[1049][1] == 1050 * PACKET - HALF_TAPS
