"""How a photo moves: head, breath, brows, eyelids and gaze of a loop, all from one seed.

The loop has a listening and a speaking part. Nothing in it is periodic but the loop itself: events
come at random intervals, and what drifts between them is noise of low frequency. All is computed on
a circle, so the last frame leads to the first.
Source: ours. Blinks are as frequent as people's (17 a minute at rest, 26 in conversation:
Bentivoglio et al. 1997). Heads turn less than those of four people who talk
(docs/experiments/035), because a photo does not show their sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lipstream.calibration.photo.blinking import blinks
from lipstream.engine.face.mesh import smoothstep
from lipstream.engine.types import F32, Conduct

F64 = NDArray[np.float64]

FPS: Final = Fraction(25)
LOOP_FRAMES: Final = 600  # 24 s
_LISTENING_FRAMES: Final = 270  # of them; in the others the person speaks
_PASSAGE_FRAMES: Final = 14  # from one to the other
_EYEBALL: Final = 0.19  # radius, inter-ocular distances: 12 of 63 mm
# Of pitch, yaw, roll: drift (degrees, root mean square), and turns from one posture to the next.
_DRIFT_DEG: Final = (0.45, 0.7, 0.4)
_POSTURE_DEG: Final = (1.3, 2.2, 1.2)
_SWAY: Final = (0.016, 0.008)  # to the right and down, inter-ocular distances
_BREATH: Final = 0.012  # inter-ocular distances
_BREATHS: Final = 6  # of unequal length: 15 a minute
_BROW: Final = (0.018, 0.042)  # inter-ocular distances that brows rise
_NOD_AHEAD: Final = 5  # frames in which a nod is about to begin, and a blink
_BLINK_AHEAD: Final = 15


@dataclass(frozen=True, slots=True)
class Motion:
    """What moves in each frame of the loop; frame 0 is the photo itself."""

    turns: F32  # f32 [N, 3], pitch, yaw, roll, radians
    shifts: F32  # f32 [N, 2], of the head to the right and down, inter-ocular distances
    brows: F32  # f32 [N], up, inter-ocular distances
    closed: F32  # f32 [N], of the eyelids: 0 as in the photo, 1 shut
    gaze: F32  # f32 [N, 2], of the irises to the right and down, inter-ocular distances
    conduct: Conduct

    def __len__(self) -> int:
        """N, the number of frames."""
        return len(self.turns)


def still_motion() -> Motion:
    """No motion: a loop of one frame, the photo."""
    none, no = np.zeros((1, 3), np.float32), np.zeros(1, bool)
    return Motion(none, none[:, :2], none[:, 0], none[:, 0], none[:, :2], Conduct(no, no, no))


def idle_motion(seed: int) -> Motion:
    """The motion of a loop; the same seed gives the same."""
    random = np.random.default_rng(seed)
    frames = np.arange(LOOP_FRAMES)
    speaking = frames >= _LISTENING_FRAMES
    # 0 in the middle of listening, 1 in that of speaking; a circle, so the seam is a passage too
    inside = np.minimum(frames - _LISTENING_FRAMES, LOOP_FRAMES - 1 - frames)
    lively = smoothstep(inside / _PASSAGE_FRAMES).astype(np.float64)

    drift = np.stack([_noise(random, 0.2) * size for size in _DRIFT_DEG], 1)
    turns = drift + _postures(random, speaking, _POSTURE_DEG, lively)
    sway = np.stack([_noise(random, 0.12) * size for size in _SWAY], 1)
    breath = _breathing(random)
    nods, brows, begun = _gestures(random, speaking)
    turns[:, 0] += nods - 20 * breath  # the chin rises with the chest
    turns = np.radians(turns)
    sway[:, 1] -= breath

    closed, blinked = blinks(random, np.where(speaking, 3.0, 2.6) * float(FPS))
    gaze = _gaze(random, speaking)
    # What is looked at stays where it is while the head turns (the vestibulo-ocular reflex).
    gaze += _EYEBALL * np.stack([np.sin(turns[:, 1]), -np.sin(turns[:, 0])], 1)

    flags = speaking, _leading(begun, _NOD_AHEAD), _leading(blinked, _BLINK_AHEAD)
    first = _calmest(turns, gaze, closed + 20 * brows, speaking)
    order = (frames + first) % LOOP_FRAMES
    turns, sway, brows, gaze = ((m - m[first])[order] for m in (turns, sway, brows, gaze))
    closed = closed[order]
    conduct = Conduct(*(flag[order] for flag in flags))
    return Motion(_f32(turns), _f32(sway), _f32(brows), _f32(closed), _f32(gaze), conduct)


def _f32(values: F64) -> F32:
    return values.astype(np.float32)


def _noise(random: Generator, corner_hz: float) -> F64:
    """Noise on a circle, f64 [N], root mean square 1, that falls by 12 dB an octave."""
    frequency = np.fft.rfftfreq(LOOP_FRAMES, 1 / float(FPS))
    spectrum = random.standard_normal((len(frequency), 2)) @ (1, 1j)
    spectrum /= 1 + (frequency / corner_hz) ** 2
    spectrum[0] = 0
    noise: F64 = np.fft.irfft(spectrum, LOOP_FRAMES)
    return noise / noise.std()


def _times(random: Generator, interval_frames: F64, spread: float, least: float) -> list[float]:
    """Times of events on the circle, frames: log-normal intervals around their local median."""
    times = [float(random.uniform(0, interval_frames[0]))]
    while True:
        local = interval_frames[int(times[-1]) % LOOP_FRAMES]
        after = times[-1] + max(least, local * float(np.exp(spread * random.standard_normal())))
        if after > LOOP_FRAMES + times[0] - least:
            return times
        times.append(after)


def _step(frames: F64, at: float, lasting: float) -> F64:
    """From 0 to 1 with the least jerk (Flash and Hogan 1985), f64 [n]."""
    x = np.clip((frames - at) / lasting, 0, 1)
    step: F64 = x**3 * (10 - 15 * x + 6 * x**2)
    return step


def _circular(pulses: F64) -> F64:
    """Pulses f64 [3 N, ...], of events in the middle third, summed onto the circle of N frames."""
    folded: F64 = pulses.reshape(3, LOOP_FRAMES, *pulses.shape[1:]).sum(0)
    return folded


def _postures(
    random: Generator, speaking: NDArray[np.bool_], sizes: tuple[float, ...], lively: F64
) -> F64:
    """Turns from one posture to the next, f64 [N, 3], degrees; small ones while listening."""
    times = _times(random, np.where(speaking, 1.2, 3.2) * float(FPS), 0.5, 0.6 * float(FPS))
    shares = 0.3 + 0.7 * lively[[int(t) % LOOP_FRAMES for t in times]]
    poses = random.standard_normal((len(times), 3)).clip(-1.8, 1.8) * sizes * shares[:, None]
    frames = np.arange(2 * LOOP_FRAMES, dtype=np.float64)
    turns = np.zeros((2 * LOOP_FRAMES, 3))
    for k, at in enumerate(times):
        change = poses[k] - poses[k - 1]
        lasting = (0.35 + 0.12 * float(np.linalg.norm(change))) * float(FPS)
        for start in (at, at + LOOP_FRAMES):  # the second round begins as the first one ended
            turns += _step(frames, start, lasting)[:, None] * change
    return turns[LOOP_FRAMES:] + poses[-1]


def _breathing(random: Generator) -> F64:
    """Rise of the chest f64 [N], inter-ocular distances: breaths of unequal length and depth."""
    lengths = random.uniform(0.75, 1.3, _BREATHS)
    ends = np.cumsum(lengths / lengths.sum()) * LOOP_FRAMES
    frames = np.arange(LOOP_FRAMES, dtype=np.float64)
    rise = np.zeros(LOOP_FRAMES)
    for begin, end in zip(np.concatenate([[0], ends[:-1]]), ends, strict=True):
        into = 0.4 * (end - begin)
        breath = _step(frames, begin, into) - _step(frames, begin + into, end - begin - into)
        rise += breath * _BREATH * random.uniform(0.6, 1.1)
    return rise


def _gestures(random: Generator, speaking: NDArray[np.bool_]) -> tuple[F64, F64, list[float]]:
    """Nods f64 [N], degrees down; rise of the brows f64 [N]; and when they begin, frames."""
    frames = np.arange(-LOOP_FRAMES, 2 * LOOP_FRAMES, dtype=np.float64)
    nods, brows = np.zeros(3 * LOOP_FRAMES), np.zeros(3 * LOOP_FRAMES)
    every = _times(random, np.full(LOOP_FRAMES, 1.0 * float(FPS)), 0.4, 0.5 * float(FPS))
    begun = [t for t in every if speaking[int(t) % LOOP_FRAMES]]
    for at in begun:
        kind, size = random.uniform(), random.uniform(0.4, 1)
        if kind < 0.75:
            down, up = random.uniform(4, 6), random.uniform(7, 11)
            nods += 2.6 * size * (_step(frames, at, down) - _step(frames, at + down, up))
        if kind > 0.4:
            low, high = _BROW
            rise, fall = random.uniform(3, 5), random.uniform(7, 12)
            hold = at + rise + random.uniform(0, 8)
            raised = _step(frames, at - 1, rise) - _step(frames, hold, fall)
            brows += (low + size * (high - low)) * raised
    return _circular(nods), _circular(brows), begun


def _gaze(random: Generator, speaking: NDArray[np.bool_]) -> F64:
    """Where the eyes look f64 [N, 2]: at the camera, and away for a moment, in saccades."""
    times = _times(random, np.where(speaking, 0.8, 1.1) * float(FPS), 0.6, 5)
    gaze, away = np.zeros((LOOP_FRAMES, 2)), False
    for k, at in enumerate(times):
        away = not away and random.uniform() < 0.35
        target = random.standard_normal(2) * (0.003, 0.002)
        if away:
            side = random.choice((-1, 1))
            target += (side * random.uniform(0.012, 0.034), random.uniform(-0.012, 0.010))
        following = times[k + 1] if k + 1 < len(times) else times[0] + LOOP_FRAMES
        held = np.arange(int(at), int(following)) % LOOP_FRAMES
        gaze[held] = target
    # A saccade of this size takes 20 to 40 ms: one frame lies on the way.
    starts = np.flatnonzero(np.abs(np.diff(gaze, axis=0, prepend=gaze[-1:])).max(1) > 0)
    way = random.uniform(0.3, 0.9, (len(starts), 1))
    gaze[starts] = gaze[starts - 1] + way * (gaze[starts] - gaze[starts - 1])
    return gaze


def _leading(times: list[float], ahead: int) -> NDArray[np.bool_]:
    """bool [N]: an event begins within the next frames."""
    leading = np.zeros(LOOP_FRAMES, bool)
    for at in times:
        leading[(int(at) - np.arange(ahead)) % LOOP_FRAMES] = True
    return leading


def _calmest(turns: F64, gaze: F64, events: F64, speaking: NDArray[np.bool_]) -> int:
    """The frame of the listening part that is most like a photo: nothing moves, eyes ahead."""
    around = [np.roll(events, k) for k in range(-8, 9)]
    speed = np.linalg.norm(np.diff(turns, axis=0, prepend=turns[-1:]), axis=1)
    unlike = np.linalg.norm(turns - turns.mean(0), axis=1) + 20 * speed
    unlike += 3 * np.linalg.norm(gaze, axis=1) + np.max(around, axis=0)
    return int(np.where(speaking, np.inf, unlike).argmin())
