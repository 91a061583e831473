"""The A/V offset of footage: how late its audio is against its video.

Lip opening is correlated with two cues in the audio, at every shift from half a second early to
half a second late: the opening that the speech encoder predicts, and the level of the voice. The
first is sharp and tells closed lips from silence; the second needs no training and breaks ties.
Source: ours; figures in docs/calibration.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfiltfilt

from lipstream.calibration.person.speaking_style import EncodedAudio
from lipstream.engine.types import F32, SAMPLE_RATE_HZ, STEP_SAMPLES, Expression

_RATE_HZ: Final = 100  # of the curves that are compared
_MAX_SHIFT_MS: Final = 500
_VOICE_HZ: Final = (300.0, 3000.0)
_SYLLABLE_HZ: Final = (0.4, 8.0)  # mouths open and close in this band; drift and jitter lie outside
_MIN_S: Final = 1.5
_MAX_S: Final = 120.0  # more footage does not improve the estimate
# Offsets of real files are small: correlation that a shift of one second has to gain. A short clip
# carries little evidence and depends on this prior more.
_PRIOR: Final = 0.6
_PRIOR_SECONDS: Final = 12.0
_CLEAR_MARGIN: Final = 0.3  # of the peak over other shifts; 0.1 to 0.5 on clips estimated right
_SYLLABLES_PER_S: Final = 4.0
_CLEAR_SIGMAS: Final = 2.0
_PEAK_MS: Final = 120  # half-width of one syllable's peak

F64 = NDArray[np.float64]


def estimate_offset_ms(
    opening: F32, fps: Fraction, sound: F32, predicted: F32 | None = None
) -> tuple[int, float]:
    """Delay of the audio in ms (positive: the audio is late), and confidence from 0 to 1.

    Below a confidence of 0.2 the delay is a guess near zero: nobody speaks, or not this person.

    Args:
        opening: f32 [T], lip opening over the inter-ocular distance; NaN where rejected.
        fps: of `opening`.
        sound: f32 [samples], mono 16 kHz; sample 0 belongs to frame 0.
        predicted: f32 [steps], the encoder's opening for `sound`, at 50 Hz, step k at k * 20 ms
            (`predicted_opening`); None to use the level of the voice alone.
    """
    seconds = min(opening.size / float(fps), sound.size / SAMPLE_RATE_HZ, _MAX_S)
    if seconds < _MIN_S or not np.isfinite(opening).any():
        return 0, 0.0
    count = int(seconds * _RATE_HZ)
    times_s = np.arange(count) / _RATE_HZ
    measured = np.isfinite(opening)
    frame_s = np.arange(opening.size) / float(fps)
    lips = np.interp(times_s, frame_s[measured], opening[measured].astype(np.float64))
    weight = np.interp(times_s, frame_s, measured.astype(np.float64))
    if lips.std() < 1e-4 or weight.sum() < _MIN_S * _RATE_HZ:
        return 0, 0.0
    voice = _voice_level(sound, count)
    if voice is None:
        return 0, 0.0
    cues = [voice]
    if predicted is not None and predicted.size > 1:
        step_s = np.arange(predicted.size) * (STEP_SAMPLES / SAMPLE_RATE_HZ)
        cue = np.interp(times_s, step_s, predicted.astype(np.float64))
        if cue.std() > 1e-4:
            cues.append(cue)
    lips = _syllables(lips)
    curve = np.mean([_correlations(lips, _syllables(cue), weight) for cue in cues], axis=0)
    return _peak(curve, seconds)


def align_audio(sound: F32 | None, opening: F32, fps: Fraction) -> EncodedAudio | None:
    """The encoder's output for the footage's sound, with the A/V offset; None without sound.

    sound: f32 [samples], mono 16 kHz. opening: f32 [T], inter-ocular distances, NaN without a face.
    """
    if sound is None:
        return None
    outputs = encode_audio(sound)
    late_ms, confidence = estimate_offset_ms(
        opening.astype(np.float32), fps, sound, predicted_opening(outputs)
    )
    return EncodedAudio(outputs, late_ms, confidence)


def encode_audio(sound: F32) -> list[Expression]:
    """The shipped encoder's output for sound f32 [samples], mono 16 kHz, every 20 ms.

    With the longest look-ahead; at most the first two minutes are encoded.
    """
    from lipstream.engine.speech.encoder import PROFILE_LOOK_AHEAD_MS, Encoder
    from lipstream.engine.types import AudioChunk

    encoder = Encoder(PROFILE_LOOK_AHEAD_MS["studio"])
    chunk = AudioChunk(sound[: int(_MAX_S * SAMPLE_RATE_HZ)].astype(np.float32, copy=False), 0)
    outputs, state = encoder.step(encoder.init(), chunk)
    return outputs + encoder.flush(state)


def predicted_opening(outputs: Sequence[Expression]) -> F32:
    """The lip opening of `encode_audio`, f32 [steps] at 50 Hz, step k at k * 20 ms."""
    curve = np.zeros(max((e.sample for e in outputs), default=0) // STEP_SAMPLES + 1, np.float32)
    for expression in outputs:
        curve[expression.sample // STEP_SAMPLES] = expression.lips.opening
    return curve


def _voice_level(sound: F32, count: int) -> F64 | None:
    """Log level of the voice band, f64 [count] at 100 Hz; None in silence."""
    band = butter(2, _VOICE_HZ, "band", fs=SAMPLE_RATE_HZ, output="sos")
    hop = SAMPLE_RATE_HZ // _RATE_HZ
    power = sosfiltfilt(band, sound[: (count + 1) * hop].astype(np.float64)) ** 2
    sums = np.concatenate([[0.0], np.cumsum(power)])
    # Windows of 20 ms.
    centre = np.arange(count) * hop
    first = np.clip(centre - hop, 0, power.size)
    last = np.clip(centre + hop, 0, power.size)
    level = np.sqrt((sums[last] - sums[first]) / np.maximum(last - first, 1))
    loud = float(np.percentile(level, 95))
    if loud < 1e-4:  # -80 dB
        return None
    log_level: F64 = np.log(level + 0.02 * loud)
    return log_level


def _syllables(curve: F64) -> F64:
    band = butter(2, _SYLLABLE_HZ, "band", fs=_RATE_HZ, output="sos")
    filtered: F64 = sosfiltfilt(band, curve, padlen=min(curve.size - 1, _RATE_HZ))
    return filtered


def _correlations(lips: F64, cue: F64, weight: F64) -> F64:
    """Correlation with the cue shifted by each of -500 to 500 ms, in 10 ms steps, f64 [101]."""
    most = _MAX_SHIFT_MS * _RATE_HZ // 1000
    out = np.zeros(2 * most + 1)
    for k in range(-most, most + 1):
        # The audio of video time t lies at t + k when it is late by k.
        of_video = slice(max(0, -k), lips.size - max(0, k))
        of_audio = slice(max(0, k), lips.size - max(0, -k))
        a, b, w = lips[of_video], cue[of_audio], weight[of_video]
        total = w.sum()
        if a.size < _RATE_HZ or total < _RATE_HZ / 2:
            continue
        a = a - (a * w).sum() / total
        b = b - (b * w).sum() / total
        scale = np.sqrt((a * a * w).sum() * (b * b * w).sum())
        out[k + most] = (a * b * w).sum() / scale if scale > 1e-9 else 0.0
    return out


def _peak(curve: F64, seconds: float) -> tuple[int, float]:
    middle = curve.size // 2
    lags_s = np.arange(-middle, middle + 1) / _RATE_HZ
    score = curve - max(_PRIOR, _PRIOR_SECONDS / seconds) * lags_s**2
    best = int(np.argmax(score))
    away = np.abs(lags_s - lags_s[best]) > _PEAK_MS / 1000
    # Unrelated audio also has a best shift, of higher correlation the shorter it is. So confidence
    # is the margin over other shifts, and over chance for this many syllables.
    margin = float(curve[best] - curve[away].max()) / _CLEAR_MARGIN
    chance = float(curve[best]) * np.sqrt(seconds * _SYLLABLES_PER_S) / _CLEAR_SIGMAS
    confidence = float(np.clip(margin, 0.0, 1.0) * np.clip(chance - 0.5, 0.0, 0.5) * 2)
    step = 0.0
    if 0 < best < score.size - 1:
        before, here, after = score[best - 1 : best + 2]
        bend = before - 2 * here + after
        step = 0.5 * (before - after) / bend if bend < 0 else 0.0
    return round((lags_s[best] + step / _RATE_HZ) * 1000), confidence
