"""How late the footage's own sound is against its picture.

Lip opening is compared with two things heard in the sound, at every shift from half a second
early to half a second late: how far a trained encoder thinks the mouth opens, and how loud the
voice is. The first is sharp and knows closed lips from silence; the second needs no training and
breaks ties. Ours; figures in docs/calibration.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfiltfilt

from lipstream.engine.types import F32, SAMPLE_RATE_HZ, STEP_SAMPLES, Expression

_RATE_HZ: Final = 100  # of the curves that are compared
_REACH_MS: Final = 500
_VOICE_HZ: Final = (300.0, 3000.0)
_SYLLABLE_HZ: Final = (0.4, 8.0)  # mouths open and close in this band; drift and jitter lie outside
_LEAST_S: Final = 1.5
_MOST_S: Final = 120.0  # more footage does not make the answer better
# Offsets of real files are small. In units of correlation at one second; a short clip says little
# by itself and leans on this more.
_PRIOR: Final = 0.6
_PRIOR_SECONDS: Final = 12.0
_CLEAR_MARGIN: Final = 0.3  # of the peak over every other shift: 0.1 to 0.5 where it was right
_SYLLABLES_PER_S: Final = 4.0
_CLEAR_SIGMAS: Final = 2.0
_PEAK_MS: Final = 120  # half-width of one syllable's peak

F64 = NDArray[np.float64]


def estimate_offset_ms(
    opening: F32, fps: Fraction, sound: F32, predicted: F32 | None = None
) -> tuple[int, float]:
    """Delay of the sound, in ms (positive: the sound is late), and confidence from 0 to 1.

    Below a confidence of 0.2 the delay is a guess near zero: nobody speaks, or not this person.

    Args:
        opening: f32 [T], lip opening over the inter-ocular distance; NaN where rejected.
        fps: of `opening`.
        sound: f32 [samples], mono 16 kHz; sample 0 is heard with frame 0.
        predicted: f32 [steps], opening that the encoder hears in `sound`, at 50 Hz with step k
            belonging to k * 20 ms (`predicted_opening`); None to use the sound's energy alone.
    """
    seconds = min(opening.size / float(fps), sound.size / SAMPLE_RATE_HZ, _MOST_S)
    if seconds < _LEAST_S or not np.isfinite(opening).any():
        return 0, 0.0
    count = int(seconds * _RATE_HZ)
    times_s = np.arange(count) / _RATE_HZ
    seen = np.isfinite(opening)
    frame_s = np.arange(opening.size) / float(fps)
    lips = np.interp(times_s, frame_s[seen], opening[seen].astype(np.float64))
    weight = np.interp(times_s, frame_s, seen.astype(np.float64))
    if lips.std() < 1e-4 or weight.sum() < _LEAST_S * _RATE_HZ:
        return 0, 0.0
    voice = _voice_level(sound, count)
    if voice is None:
        return 0, 0.0
    cues = [voice]
    if predicted is not None and predicted.size > 1:
        step_s = np.arange(predicted.size) * (STEP_SAMPLES / SAMPLE_RATE_HZ)
        heard = np.interp(times_s, step_s, predicted.astype(np.float64))
        if heard.std() > 1e-4:
            cues.append(heard)
    lips = _syllables(lips)
    curve = np.mean([_correlations(lips, _syllables(cue), weight) for cue in cues], axis=0)
    return _peak(curve, seconds)


def listen(sound: F32) -> list[Expression]:
    """What the shipped encoder hears in sound f32 [samples], every 20 ms.

    The longest look-ahead is used, as nothing is live here; at most two minutes are heard.
    """
    from lipstream.engine.speech.encoder import PROFILE_LOOK_AHEAD_MS, Encoder
    from lipstream.engine.types import AudioChunk

    encoder = Encoder(PROFILE_LOOK_AHEAD_MS["studio"])
    chunk = AudioChunk(sound[: int(_MOST_S * SAMPLE_RATE_HZ)].astype(np.float32, copy=False), 0)
    outputs, state = encoder.step(encoder.init(), chunk)
    return outputs + encoder.flush(state)


def predicted_opening(heard: Sequence[Expression]) -> F32:
    """The opening of `listen`, f32 [steps] at 50 Hz, step k at k * 20 ms."""
    curve = np.zeros(max((e.sample for e in heard), default=0) // STEP_SAMPLES + 1, np.float32)
    for expression in heard:
        curve[expression.sample // STEP_SAMPLES] = expression.lips.opening
    return curve


def _voice_level(sound: F32, count: int) -> F64 | None:
    """Log energy of the voice's band, f64 [count] at 100 Hz; None in silence."""
    # The filter's start-up would ring into a short clip: half a second of its mirror helps.
    band = butter(2, _VOICE_HZ, "band", fs=SAMPLE_RATE_HZ, output="sos")
    hop = SAMPLE_RATE_HZ // _RATE_HZ
    power = sosfiltfilt(band, sound[: (count + 1) * hop].astype(np.float64)) ** 2
    sums = np.concatenate([[0.0], np.cumsum(power)])
    # 20 ms around each moment.
    centre = np.arange(count) * hop
    first = np.clip(centre - hop, 0, power.size)
    last = np.clip(centre + hop, 0, power.size)
    level = np.sqrt((sums[last] - sums[first]) / np.maximum(last - first, 1))
    loud = float(np.percentile(level, 95))
    if loud < 1e-4:  # -80 dB: nobody speaks
        return None
    log_level: F64 = np.log(level + 0.02 * loud)
    return log_level


def _syllables(curve: F64) -> F64:
    band = butter(2, _SYLLABLE_HZ, "band", fs=_RATE_HZ, output="sos")
    filtered: F64 = sosfiltfilt(band, curve, padlen=min(curve.size - 1, _RATE_HZ))
    return filtered


def _correlations(lips: F64, cue: F64, weight: F64) -> F64:
    """Correlation with the cue shifted by each of -500 to 500 ms, in 10 ms steps, f64 [101]."""
    reach = _REACH_MS * _RATE_HZ // 1000
    out = np.zeros(2 * reach + 1)
    for k in range(-reach, reach + 1):
        # The sound of picture time t lies at t + k when it is late by k.
        seen = slice(max(0, -k), lips.size - max(0, k))
        heard = slice(max(0, k), lips.size - max(0, -k))
        a, b, w = lips[seen], cue[heard], weight[seen]
        total = w.sum()
        if a.size < _RATE_HZ or total < _RATE_HZ / 2:
            continue
        a = a - (a * w).sum() / total
        b = b - (b * w).sum() / total
        scale = np.sqrt((a * a * w).sum() * (b * b * w).sum())
        out[k + reach] = (a * b * w).sum() / scale if scale > 1e-9 else 0.0
    return out


def _peak(curve: F64, seconds: float) -> tuple[int, float]:
    reach = curve.size // 2
    lags_s = np.arange(-reach, reach + 1) / _RATE_HZ
    score = curve - max(_PRIOR, _PRIOR_SECONDS / seconds) * lags_s**2
    best = int(np.argmax(score))
    away = np.abs(lags_s - lags_s[best]) > _PEAK_MS / 1000
    # Foreign sound also has a best shift, the higher the shorter it is: what counts is how far
    # the peak stands above the others, and above chance for this many syllables.
    margin = float(curve[best] - curve[away].max()) / _CLEAR_MARGIN
    chance = float(curve[best]) * np.sqrt(seconds * _SYLLABLES_PER_S) / _CLEAR_SIGMAS
    confidence = float(np.clip(margin, 0.0, 1.0) * np.clip(chance - 0.5, 0.0, 0.5) * 2)
    step = 0.0
    if 0 < best < score.size - 1:
        before, here, after = score[best - 1 : best + 2]
        bend = before - 2 * here + after
        step = 0.5 * (before - after) / bend if bend < 0 else 0.0
    return round((lags_s[best] + step / _RATE_HZ) * 1000), confidence
