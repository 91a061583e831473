"""Pauses of a voice: where they are, and how they are made shorter."""

from __future__ import annotations

from typing import Final

import numpy as np

from lipstream.engine.types import F32, SAMPLE_RATE_HZ

_WINDOWS: Final = 4  # of a second each: how far back the quietest packet counts
_ABOVE_NOISE: Final = 2.0  # 6 dB
_SILENT_RMS: Final = 0.002  # of full scale: quieter is silence, whatever went before
_LOUD_RMS: Final = 0.02  # louder is sound, however even it is


class PauseDetector:
    """Tells how long a voice has been silent, by the level of its own background noise."""

    def __init__(self) -> None:
        self._quietest = [float("inf")] * _WINDOWS  # rms of a packet, by window
        self._window = -_WINDOWS
        self._silent_samples = 0

    def push(self, samples: F32, now_s: float) -> float:
        """One packet, f32 [n]: s of silence up to its end, 0 when there is sound in it."""
        rms = float(np.sqrt(np.mean(np.square(samples)))) if samples.size else 0.0
        window = int(now_s)
        passed = min(max(window - self._window, 0), _WINDOWS)
        self._quietest = self._quietest[passed:] + [float("inf")] * passed
        self._window = max(window, self._window)
        self._quietest[-1] = min(self._quietest[-1], rms)
        noise = min(_ABOVE_NOISE * min(self._quietest), _LOUD_RMS)
        silent = rms <= max(_SILENT_RMS, noise)
        self._silent_samples = self._silent_samples + samples.size if silent else 0
        return self._silent_samples / SAMPLE_RATE_HZ


def shorten(samples: F32, count: int) -> F32:
    """f32 [n - count] of f32 [n]: its beginning fades into its end, so that no edge is heard."""
    length = samples.size - count
    if not 0 < count < samples.size:
        raise ValueError(f"{count} of {samples.size} samples: expected some, and not all")
    fade = np.linspace(0, 1, length, dtype=np.float32)
    return samples[:length] * (1 - fade) + samples[count:] * fade
