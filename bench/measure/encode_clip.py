"""An encoder over a whole clip: lips over time, speech gate included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.stream import Stage
from lipstream.engine.types import F32, SAMPLE_RATE_HZ, AudioChunk, Expression

# Of a stream, or of whole files.
AnyEncoder: TypeAlias = Stage[Any, AudioChunk, Expression]


@dataclass(frozen=True, slots=True)
class EncodedClip:
    """The output of the encoder for one clip."""

    time_s: NDArray[np.float64]  # f64 [outputs]
    lips: F32  # f32 [outputs, 3]: opening, width, protrusion

    def at(self, time_s: NDArray[np.float64]) -> F32:
        """Lips interpolated at `time_s` f64 [n]: f32 [n, 3]."""
        columns = [np.interp(time_s, self.time_s, column) for column in self.lips.T]
        return np.stack(columns, 1).astype(np.float32)


def encode_clip(encoder: AnyEncoder, samples: F32) -> EncodedClip:
    """Push `samples` f32 [n], 16 kHz, through the encoder in packets of 20 ms, as WebRTC does."""
    state = encoder.init()
    outputs: list[Expression] = []
    for start in range(0, len(samples), 320):
        more, state = encoder.step(state, AudioChunk(samples[start : start + 320], start))
        outputs += more
    outputs += encoder.flush(state)
    lips = [(e.lips.opening, e.lips.width, e.lips.protrusion) for e in outputs]
    time_s = np.array([e.sample for e in outputs]) / SAMPLE_RATE_HZ
    return EncodedClip(time_s, np.array(lips, np.float32))
