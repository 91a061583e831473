"""The gain of a quiet voice, which encoder and gate hear as one at a usual level.

Microphones that are far away or turned down give voices with peaks of -30 to -50 dBFS. The feature
normalisation follows a voice within seconds, and webrtcvad misses one below -40 dBFS altogether. So
a quiet sound that the gate would take for speech at a usual level is heard at that level, from
there on. Silence, breath and noise do not pass that test, and a voice at a usual level is heard as
it is, bit for bit. Source: ours; docs/decisions/043-quiet-voices.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from lipstream.engine.types import F32, STEP_SAMPLES

# Loudness is the level that 100 ms of the sound reach, in dBFS. Voices with peaks at -8 dBFS, the
# usual, have about -20; those with peaks at -20 have -28 to -38, at -30 dBFS -38 and less.
_LOUD_STEPS: Final = 5
_QUIET_DB: Final = -38.0
_NOT_ONE_STEP_DB: Final = -36.0  # a voice that begins softly passes this soon
_USUAL_DB: Final = -24.0
_SILENT_DB: Final = -66.0  # below lies the noise of the microphone itself
# So much of it must the gate take for speech, at the higher level, and webrtcvad alone for voice
# before that is tried.
SURE_STEPS: Final = 12
VOICED_STEPS: Final = 5
# What a stream remembers of its sound until the level is settled: 0.5 s.
_RECENT_STEPS: Final = 25
_TRY_EVERY_STEPS: Final = 4


@dataclass(frozen=True, slots=True)
class GainState:
    """What is known of the level of a stream's voice; its array is never written to again."""

    gain: float = 1.0
    settled: bool = False  # a voice has been heard: the gain stays
    recent: F32 = field(default_factory=lambda: np.zeros(0, np.float32))  # up to 0.5 s, as it came
    steps: int = 0  # since the stream began

    def heard(self, piece: F32) -> GainState:
        """With one more step f32 [STEP_SAMPLES]."""
        recent = np.concatenate([self.recent, piece])[-_RECENT_STEPS * STEP_SAMPLES :]
        return GainState(self.gain, self.settled, recent, self.steps + 1)

    @property
    def due(self) -> bool:
        """Whether it is time to try: an attempt costs as much as hearing the recent sound."""
        return self.steps % _TRY_EVERY_STEPS == 0


def is_quiet(recent: F32) -> bool:
    """Whether no step of f32 [n STEP_SAMPLES] is louder than those of a quiet voice."""
    steps = recent.reshape(-1, STEP_SAMPLES)
    most = float(np.einsum("ij,ij->i", steps, steps).max(initial=0.0)) / STEP_SAMPLES
    return most < 10 ** (_NOT_ONE_STEP_DB / 10)


def settled(gain: float) -> GainState:
    """A level that is known."""
    return GainState(gain, True)


def loudness_db(samples: F32) -> float:
    """The level that 100 ms of f32 [n] reach, dBFS; -inf where it is shorter or silent."""
    steps = samples[: len(samples) // STEP_SAMPLES * STEP_SAMPLES].reshape(-1, STEP_SAMPLES)
    if len(steps) < _LOUD_STEPS:
        return -np.inf
    energies = np.sort(np.einsum("ij,ij->i", steps, steps) / np.float32(STEP_SAMPLES))
    energy = float(energies[-_LOUD_STEPS])
    return 10 * np.log10(energy) if energy > 0 else -np.inf


def is_usual(loudness: float) -> bool:
    """Whether a voice of this loudness, dBFS, is heard as it is."""
    return loudness >= _QUIET_DB


def gain_for(loudness: float) -> float:
    """The factor for a voice of this loudness, dBFS; 1 where it is usual, or no voice at all."""
    if is_usual(loudness) or loudness < _SILENT_DB:
        return 1.0
    return float(10 ** ((_USUAL_DB - loudness) / 20))
