"""Sound into the engine's 16 kHz mono: of a fixed format, or at a rate that varies.

`SpeechResampler` converts what comes in a fixed format: files, packets, a synthesiser's speech.
`FractionalResampler` follows a clock that drifts, at a step that may change with every call; why it
is our own stands in docs/decisions/003-resampler.md.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import av
import numpy as np
from numpy.typing import NDArray

from lipstream.engine.channels import ChannelMixer
from lipstream.engine.sound_frames import PACKED, channels_of
from lipstream.engine.types import F32, SAMPLE_RATE_HZ

TAPS: Final = 32
HALF_TAPS: Final = TAPS // 2  # samples that the resampler must know beyond the one it makes
_PHASES: Final = 512
_KAISER_BETA: Final = 8.0  # 80 dB


class SpeechResampler:
    """Converts a stream frame by frame, each by its own format, rate and layout.

    A stream may change its format on the way. Timestamps are not used: with them the resampler
    would insert or drop samples at every rounding.
    """

    def __init__(self) -> None:
        self._format: tuple[str, str, int] | None = None  # sample format, layout, Hz
        self._resampler: av.AudioResampler | None = None
        self._mixer = ChannelMixer(1, SAMPLE_RATE_HZ)

    def push(self, frame: av.AudioFrame) -> F32:
        """f32 [samples] of a frame; the resampler keeps about 1 ms back. Clears `frame.pts`."""
        frame.pts = None
        known = (frame.format.name, frame.layout.name, frame.sample_rate)
        tail = np.zeros(0, np.float32)
        if self._resampler is None or known != self._format:
            tail = self.flush()
            # The channels are mixed below: the resampler's own downmix adds 3 dB, and cancels.
            self._resampler = av.AudioResampler(PACKED, frame.layout, SAMPLE_RATE_HZ)
            self._mixer = ChannelMixer(frame.layout.nb_channels, SAMPLE_RATE_HZ)
            self._format = known
        samples = self._mixed(self._resampler.resample(frame))
        return np.concatenate([tail, samples]) if tail.size else samples

    def push_samples(self, samples: F32 | NDArray[np.int16], rate_hz: int) -> F32:
        """`push` for mono samples: f32 or i16 [n]."""
        plane: Any = np.ascontiguousarray(samples)[None]
        kind = "s16" if plane.dtype == np.int16 else "fltp"
        frame = av.AudioFrame.from_ndarray(plane, format=kind, layout="mono")
        frame.sample_rate = rate_hz
        return self.push(frame)

    def flush(self) -> F32:
        """f32 [samples] that the resampler kept back."""
        resampler, self._resampler = self._resampler, None
        return self._mixed(resampler.resample(None) if resampler is not None else [])

    def _mixed(self, frames: list[av.AudioFrame]) -> F32:
        parts = [self._mixer.push(channels_of(frame)) for frame in frames]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)


@cache
def _kernel() -> F32:
    """f32 [_PHASES + 1, TAPS]: windowed sinc, row p for a point p/_PHASES after tap HALF_TAPS-1."""
    phase = np.arange(_PHASES + 1)[:, None] / _PHASES
    at = np.arange(TAPS)[None] - (HALF_TAPS - 1) - phase
    window = np.i0(_KAISER_BETA * np.sqrt(np.clip(1 - (at / HALF_TAPS) ** 2, 0, 1)))
    rows = np.sinc(at) * window / np.i0(_KAISER_BETA)
    rows /= rows.sum(axis=1, keepdims=True)
    rows[0] = np.arange(TAPS) == HALF_TAPS - 1  # exactly: a step of 1 changes no bit
    rows[-1] = np.arange(TAPS) == HALF_TAPS
    return rows.astype(np.float32)


class FractionalResampler:
    """Band-limited interpolation at any step of at most about 1, changed at any time.

    For a step well above 1 (fewer samples out than in) there is no low-pass: use another.
    """

    def __init__(self) -> None:
        self._samples = np.zeros(HALF_TAPS - 1, np.float32)
        self._at = 0.0  # of the next output in _samples, less HALF_TAPS - 1

    @property
    def pending(self) -> float:
        """Input samples, in samples, from the next output's place to the end of what was put."""
        return self._samples.size - (HALF_TAPS - 1) - self._at

    def put(self, samples: F32) -> None:
        """More input: f32 [n]."""
        self._samples = np.concatenate([self._samples, samples])

    def available(self, step: float) -> int:
        """Outputs that what was put allows."""
        last = self._samples.size - TAPS  # the last place with all its taps
        return max(0, int(np.floor((last - self._at) / step)) + 1) if last >= self._at else 0

    def take(self, count: int, step: float) -> F32:
        """f32 [count], `step` input samples from one to the next.

        Raises: ValueError when fewer are available.
        """
        if count > self.available(step):
            raise ValueError(f"{count} samples wanted, {self.available(step)} available")
        if step == 1.0 and self._at == int(self._at):
            first = int(self._at)
            out = self._samples[first + HALF_TAPS - 1 : first + HALF_TAPS - 1 + count].copy()
        else:
            places = self._at + step * np.arange(count)
            whole = places.astype(np.intp)
            phase = (places - whole) * _PHASES
            row = phase.astype(np.intp)
            part = (phase - row).astype(np.float32)[:, None]
            kernel = _kernel()
            taps = kernel[row] * (1 - part) + kernel[row + 1] * part
            windows = np.lib.stride_tricks.sliding_window_view(self._samples, TAPS)[whole]
            out = np.einsum("ij,ij->i", windows, taps)
        self._at += step * count
        spent = int(self._at)
        self._samples, self._at = self._samples[spent:], self._at - spent
        return out
