"""Causal log-mel features and their running normalisation.

One step is 320 samples (20 ms) and gives two frames. Frame f covers the 400 samples (25 ms) that
end at sample 160 (f + 1), so no frame depends on samples beyond the end of its step. Each step
computes arrays of one fixed shape, so no cutting of the audio changes a bit of the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from lipstream.engine.frozen import Frozen
from lipstream.engine.networks.signatures import BANDS, FRAMES_PER_STEP
from lipstream.engine.profiling import span
from lipstream.engine.types import F32, SAMPLE_RATE_HZ, STEP_SAMPLES
from lipstream.kernels.dispatch import use_native
from lipstream.kernels.features import FeatureStep

HOP_SAMPLES: Final = STEP_SAMPLES // FRAMES_PER_STEP  # 10 ms
WINDOW_SAMPLES: Final = 400  # 25 ms
HISTORY_SAMPLES: Final = WINDOW_SAMPLES - HOP_SAMPLES
FFT_SAMPLES: Final = 512
HIGH_HZ: Final = 8000.0
# Lies 40 dB below the hiss of a quiet room, and keeps the logarithm of digital silence finite.
ENERGY_FLOOR: Final = 1e-10
STATE_NUMBERS: Final = 4  # of the normalisation

LEVEL_PRIOR: Final = 1.2  # nat: the level before the first frame of speech
OFFSET: Final = 2.86  # of log10 energy, from the level to the middle of the range
_FLOOR_UNDER_PRIOR: Final = 9.0  # nat
_FIRST_SUMMED_BAND: Final = 2  # below lie hum and rumble, which must not move the level
# A frame counts as sound when it stands 6.5 dB above the quietest level of the last seconds, and as
# speech when it lies within 22 dB of the loudest.
_SOUND_MARGIN: Final = 1.5
_FLOOR_RISE: Final = 0.008  # nat per frame: 3.5 dB/s
_PEAK_FALL: Final = 0.02  # nat per frame of sound
_SPEECH_RANGE: Final = 5.0
# The level is a mean over 670 frames of speech and a prior worth 15. Of speech that is more than 11
# dB above it, it takes half the excess at once, and trusts what came before less.
_JUMP: Final = 2.5
_JUMP_TAKES: Final = 0.5
_JUMP_KEEPS: Final = 0.7
_MEMORY_FRAMES: Final = 670.0
_PRIOR_FRAMES: Final = 15.0
_LOWEST_LEVEL: Final = -6.0
_RANGE: Final = 4.5  # of log10 energy about the level
_CENTRE: Final = 4.0
_SCALE: Final = 0.25
_LN10: Final = np.log(10.0)


def mel_matrix() -> F32:
    """Triangular mel filters of equal area, f32 [FFT_SAMPLES/2 + 1, BANDS].

    Source: Slaney, Auditory Toolbox (1998): linear up to 1 kHz, logarithmic above.
    """
    bend_hz, bend_mel, mel_per_nat = 1000.0, 15.0, 27.0 / np.log(6.4)
    highest_mel = bend_mel + mel_per_nat * np.log(HIGH_HZ / bend_hz)
    edges_mel = np.linspace(0.0, highest_mel, BANDS + 2)
    edges_hz = np.where(
        edges_mel < bend_mel,
        edges_mel * (bend_hz / bend_mel),
        bend_hz * np.exp((edges_mel - bend_mel) / mel_per_nat),
    )
    bins_hz = np.arange(FFT_SAMPLES // 2 + 1) * SAMPLE_RATE_HZ / FFT_SAMPLES
    low, centre, high = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    rising = (bins_hz[:, None] - low) / (centre - low)
    falling = (high - bins_hz[:, None]) / (high - centre)
    area = 2.0 / (high - low) * (WINDOW_SAMPLES / FFT_SAMPLES)
    return (np.maximum(0.0, np.minimum(rising, falling)) * area).astype(np.float32)


@dataclass(frozen=True, slots=True)
class NormaliserState:
    """Running statistics of the normalisation, in one array that is never written to again."""

    packed: F32  # f32 [..., STATE_NUMBERS]: the four below

    @property
    def level(self) -> F32:
        """Mean log energy of the speech frames, f32 [...], nat."""
        return np.asarray(self.packed[..., 0])

    @property
    def floor(self) -> F32:
        """Log energy of the quietest recent frames, f32 [...], nat."""
        return np.asarray(self.packed[..., 1])

    @property
    def peak(self) -> F32:
        """Log energy of the loudest recent frames, f32 [...], nat."""
        return np.asarray(self.packed[..., 2])

    @property
    def speech_frames(self) -> F32:
        """Weight that went into the level, f32 [...]."""
        return np.asarray(self.packed[..., 3])


@dataclass(frozen=True, slots=True)
class FeatureState:
    """State of `Features` between steps."""

    history: F32  # f32 [HISTORY_SAMPLES]
    normaliser: NormaliserState


class Normaliser(Frozen):
    """Removes loudness with statistics of the past only.

    The level is the mean log energy of speech frames: those above the noise and not far below the
    loudest. So neither silence nor breath raises the gain. It starts from a prior, so that the
    first syllable is already in range. Source: ours.
    """

    def init(self, batch: tuple[int, ...] = ()) -> NormaliserState:
        """State before the first frame."""
        packed = np.zeros((*batch, STATE_NUMBERS), np.float32)
        packed[..., 0] = LEVEL_PRIOR
        packed[..., 1:3] = LEVEL_PRIOR - _FLOOR_UNDER_PRIOR
        return NormaliserState(packed)

    def step(self, state: NormaliserState, frame: F32) -> tuple[F32, NormaliserState]:
        """One frame f32 [..., BANDS] of log10 energies to one of normalised features."""
        power = np.power(np.float32(10), frame[..., _FIRST_SUMMED_BAND:])
        energy = np.log(np.add.reduce(power, axis=-1))
        floor = np.minimum(energy, state.floor + np.float32(_FLOOR_RISE))
        sound = _within(energy - floor - np.float32(_SOUND_MARGIN), 0.0, 1.0)
        peak = np.maximum(energy, state.peak - np.float32(_PEAK_FALL) * sound)
        weight = sound * _within(energy - peak + np.float32(_SPEECH_RANGE), 0.0, 1.0)
        excess = np.maximum(energy - np.float32(_JUMP) - state.level, np.float32(0))
        excess = np.where(weight > 0, excess, np.float32(0))
        level = state.level + np.float32(_JUMP_TAKES) * excess
        kept = np.where(excess > 0, np.float32(_JUMP_KEEPS), np.float32(1))
        speech_frames = np.minimum(state.speech_frames * kept + weight, np.float32(_MEMORY_FRAMES))
        rate = weight / (speech_frames + np.float32(_PRIOR_FRAMES))
        level = np.maximum(level + rate * (energy - level), np.float32(_LOWEST_LEVEL))
        middle = level / np.float32(_LN10) - np.float32(OFFSET)
        normal = _within(frame - middle[..., None], -_RANGE, _RANGE)
        packed = np.stack([level, floor, peak, speech_frames], axis=-1)
        return (normal + np.float32(_CENTRE)) * np.float32(_SCALE), NormaliserState(packed)


def _within(x: F32, low: float, high: float) -> F32:
    """`np.clip` in half its time, which dominates a step of 80 numbers."""
    return np.minimum(np.maximum(x, np.float32(low)), np.float32(high))


class Features(Frozen):
    """Stage: 320 samples to two normalised frames.

    step: f32 [STEP_SAMPLES] -> one f32 [FRAMES_PER_STEP, BANDS]; it has no lag.
    """

    lag_samples: Final = 0

    def __init__(self) -> None:
        self.normaliser = Normaliser()
        self._mel = mel_matrix()
        self._window = np.hanning(WINDOW_SAMPLES + 1)[:-1].astype(np.float32)
        self._native = None
        if use_native():
            self._native = FeatureStep(self._window, self._mel, (
                ENERGY_FLOOR, _FLOOR_RISE, _SOUND_MARGIN, _PEAK_FALL, _SPEECH_RANGE, _JUMP,
                _JUMP_TAKES, _JUMP_KEEPS, _MEMORY_FRAMES, _PRIOR_FRAMES, _LOWEST_LEVEL, 1.0 / _LN10,
                OFFSET, _RANGE, _CENTRE, _SCALE,
            ))  # fmt: skip

    def init(self) -> FeatureState:
        """State before the first sample: silence."""
        return FeatureState(np.zeros(HISTORY_SAMPLES, np.float32), self.normaliser.init())

    @span("features")
    def step(self, state: FeatureState, item: F32) -> tuple[list[F32], FeatureState]:
        """Consume one step of audio, f32 [STEP_SAMPLES]."""
        samples = np.concatenate([state.history, item])
        history = samples[STEP_SAMPLES:]
        if self._native is not None:
            normal, packed = self._native(samples, state.normaliser.packed)
            return [normal], FeatureState(history, NormaliserState(packed))
        frames = self.log_mel(samples)
        normaliser = state.normaliser
        normal = np.empty_like(frames)
        for index in range(FRAMES_PER_STEP):
            normal[index], normaliser = self.normaliser.step(normaliser, frames[index])
        return [normal], FeatureState(history, normaliser)

    def flush(self, state: FeatureState) -> list[F32]:
        """Nothing: no frame is held back."""
        return []

    def log_mel(self, samples: F32) -> F32:
        """Log10 energies of every whole window, f32 [HISTORY + n*HOP] -> f32 [n, BANDS]."""
        count = (len(samples) - HISTORY_SAMPLES) // HOP_SAMPLES
        windows = np.empty((count, WINDOW_SAMPLES), np.float32)
        for index in range(count):
            start = index * HOP_SAMPLES
            np.multiply(samples[start : start + WINDOW_SAMPLES], self._window, windows[index])
        spectrum = np.fft.rfft(windows, FFT_SAMPLES)
        power = spectrum.real**2 + spectrum.imag**2
        return np.asarray(np.log10(power @ self._mel + np.float32(ENERGY_FLOOR)), dtype=np.float32)


def offline_log_mel(features: Features, samples: F32) -> F32:
    """Log10 energies of a whole clip, f32 [n] -> f32 [n // HOP, BANDS], as the steps see them."""
    whole = len(samples) // HOP_SAMPLES * HOP_SAMPLES
    padded = np.concatenate([np.zeros(HISTORY_SAMPLES, np.float32), samples[:whole]])
    return features.log_mel(padded.astype(np.float32))
