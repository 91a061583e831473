"""Sounds for tests: cheap to make, voiced enough that the speech gate opens."""

from __future__ import annotations

import numpy as np

from lipstream.engine.types import F32, SAMPLE_RATE_HZ


def babble(seconds: float, seed: int = 0) -> F32:
    """A voice-like signal: pitched harmonics through wandering formants, with pauses."""
    rng = np.random.default_rng(seed)
    n = int(seconds * SAMPLE_RATE_HZ)
    t = np.arange(n) / SAMPLE_RATE_HZ
    pitch = 120 + 20 * np.sin(2 * np.pi * 0.7 * t + rng.uniform(0, 6))
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE_HZ
    voice = np.zeros(n)
    formant = 500 + 300 * np.sin(2 * np.pi * 2.3 * t + rng.uniform(0, 6))
    for harmonic in range(1, 25):
        envelope = np.exp(-(((harmonic * pitch - formant) / 250) ** 2)) + 0.1 / harmonic
        voice += envelope * np.sin(harmonic * phase)
    syllables = np.clip(np.sin(2 * np.pi * 3.1 * t + rng.uniform(0, 6)) + 0.4, 0, 1)
    signal = 0.12 * voice * syllables + 0.001 * rng.standard_normal(n)
    return signal.astype(np.float32)
