"""Sound of any format as the engine takes it: mono, 16 kHz."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from lipstream.engine.types import F32, SAMPLE_RATE_HZ


class SpeechResampler:
    """Converts a stream frame by frame, each by its own format, rate and layout.

    A stream may change its format on the way. Timestamps are not used: with them the resampler
    would insert or drop samples at every rounding.
    """

    def __init__(self) -> None:
        self._format: tuple[str, str, int] | None = None  # sample format, layout, Hz
        self._resampler: av.AudioResampler | None = None

    def push(self, frame: av.AudioFrame) -> F32:
        """f32 [samples] of a frame; the resampler keeps about 1 ms back. Clears `frame.pts`."""
        frame.pts = None
        known = (frame.format.name, frame.layout.name, frame.sample_rate)
        tail = np.zeros(0, np.float32)
        if self._resampler is None or known != self._format:
            tail = self.flush()
            # The mean of the channels is taken below: the resampler's own downmix adds 3 dB.
            self._resampler = av.AudioResampler("fltp", frame.layout, SAMPLE_RATE_HZ)
            self._format = known
        samples = _mean_of_channels(self._resampler.resample(frame))
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
        return _mean_of_channels(resampler.resample(None) if resampler is not None else [])


def _mean_of_channels(frames: list[av.AudioFrame]) -> F32:
    parts = [frame.to_ndarray().mean(axis=0, dtype=np.float32) for frame in frames]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)
