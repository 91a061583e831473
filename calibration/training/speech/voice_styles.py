"""Voice styles that no synthesiser here offers: whispered, shouted, trembling, sung, childlike.

They change the source of the voice and keep its filter, and with it the phones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import signal

from lipstream.engine.types import F32

_WINDOW_S: Final = 0.025
_ENVELOPE_QUEFRENCY_S: Final = 0.0014  # above it, the cepstrum holds the pitch


@dataclass(frozen=True, slots=True)
class VoiceStyle:
    """How a clip is spoken."""

    name: str = "plain"
    shift: tuple[float, float] = (0.82, 1.22)  # of pitch, formants and rate together
    stretch: tuple[float, float] = (0.75, 1.4)  # of durations, relative to the voice
    pitch_range: tuple[int, int] = (20, 80)  # espeak's: 0 is monotone

    def apply(self, samples: F32, rate_hz: int, rng: np.random.Generator) -> F32:
        """Speech f32 [n] in this style, of the same length and timing."""
        if self.name == "whispered":
            return whispered(samples, rate_hz, rng)
        if self.name == "shouted":
            return shouted(samples, rate_hz, rng)
        if self.name == "old":
            return trembling(samples, rate_hz, rng)
        return samples


_STYLES: Final = (
    (0.70, VoiceStyle()),
    (0.78, VoiceStyle("whispered")),
    (0.84, VoiceStyle("shouted", shift=(1.0, 1.25))),
    (0.90, VoiceStyle("sung", stretch=(1.3, 2.2), pitch_range=(0, 8))),
    (0.96, VoiceStyle("child", shift=(1.2, 1.45), stretch=(1.1, 1.7))),
    (1.00, VoiceStyle("old", shift=(0.80, 1.05), stretch=(1.0, 1.5))),
)


def draw_style(rng: np.random.Generator) -> VoiceStyle:
    """A random style, plain in seven of ten cases."""
    drawn = rng.random()
    return next(style for below, style in _STYLES if drawn < below)


def whispered(samples: F32, rate_hz: int, rng: np.random.Generator) -> F32:
    """The filter of the voice, excited by noise in place of its pitch.

    Source: the cepstrum's first quefrencies are the vocal tract (Oppenheim and Schafer).
    """
    width = int(_WINDOW_S * rate_hz)
    _, _, spoken = signal.stft(samples, rate_hz, nperseg=width, noverlap=width * 3 // 4)
    breath = rng.standard_normal(len(samples)).astype(np.float32)
    _, _, noise = signal.stft(breath, rate_hz, nperseg=width, noverlap=width * 3 // 4)
    cepstrum = np.fft.irfft(np.log(np.abs(spoken) + 1e-6), axis=0)
    keep = int(_ENVELOPE_QUEFRENCY_S * rate_hz)
    cepstrum[keep : len(cepstrum) - keep + 1] = 0.0
    envelope = np.exp(np.fft.rfft(cepstrum, axis=0).real)[: len(spoken)]
    # A whisper has little power below 500 Hz.
    hz = np.arange(len(spoken)) * rate_hz / width
    envelope *= (1.0 / (1.0 + (500.0 / (hz + 1.0)) ** 2))[:, None]
    shaped = envelope * noise[:, : envelope.shape[1]] / (np.abs(noise).mean() + 1e-9)
    _, out = signal.istft(shaped, rate_hz, nperseg=width, noverlap=width * 3 // 4)
    return np.asarray(np.resize(out, len(samples)), np.float32)


def shouted(samples: F32, rate_hz: int, rng: np.random.Generator) -> F32:
    """More high harmonics, and soft clipping."""
    rise = float(rng.uniform(0.5, 0.9))
    tilted = samples - rise * signal.lfilter([1.0 - 0.9], [1.0, -0.9], samples)
    level = float(np.sqrt(np.mean(tilted**2))) + 1e-6
    drive = float(rng.uniform(0.5, 1.5)) / level
    return np.asarray(np.tanh(drive * tilted) / drive, np.float32)


def trembling(samples: F32, rate_hz: int, rng: np.random.Generator) -> F32:
    """Loudness modulated at 4 to 8 Hz, and added breath noise."""
    time_s = np.arange(len(samples)) / rate_hz
    depth, rate = float(rng.uniform(0.1, 0.35)), float(rng.uniform(4.0, 8.0))
    tremolo = 1.0 + depth * np.sin(2 * np.pi * rate * time_s + float(rng.uniform(0, 6)))
    breath = whispered(samples, rate_hz, rng)
    amount = float(rng.uniform(0.1, 0.5)) * np.sqrt(
        np.mean(samples**2) / (np.mean(breath**2) + 1e-9)
    )
    return np.asarray(tremolo * samples + amount * breath, np.float32)
