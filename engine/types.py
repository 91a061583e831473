"""The values that flow through the engine.

All are frozen. Every array states its dtype, shape and unit beside it; the letters are
those of the glossary in docs/architecture.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
I32 = NDArray[np.int32]

SAMPLE_RATE_HZ: Final = 16_000
STEP_SAMPLES: Final = 320  # 20 ms: one encoder step, one WebRTC packet


@dataclass(frozen=True, slots=True)
class AudioChunk:
    """Mono speech at 16 kHz."""

    samples: F32  # f32 [samples], full scale is 1.0
    start_sample: int  # index of samples[0] on the session's clock


@dataclass(frozen=True, slots=True)
class Lips:
    """Three measures of the lips, over the inter-ocular distance."""

    opening: float  # gap between the inner lips, 0 when they meet
    width: float  # mouth corner to mouth corner
    protrusion: float  # forward of the rest pose


@dataclass(frozen=True, slots=True)
class Expression:
    """The shape of the lips at one moment."""

    coefficients: F32  # f32 [K], expression basis; 0 is the rest pose with lips closed
    lips: Lips
    speech: bool
    sample: int  # the moment of the audio it belongs to, samples at 16 kHz
    activity: float = 1.0  # 0 at rest, 1 in speech, in between during a transition


@dataclass(frozen=True, slots=True)
class Conduct:
    """What the person of each footage frame is doing besides moving the lips."""

    speaking: NDArray[np.bool_]  # bool [N], the head moves as in speech; otherwise they listen
    nods: NDArray[np.bool_]  # bool [N], a nod or a rise of the brows is about to begin
    blinks: NDArray[np.bool_]  # bool [N], a blink is about to begin


@dataclass(frozen=True, slots=True)
class MatchedFrame:
    """A footage frame to show, and the wanted expression on it."""

    frame_index: int  # of the output
    background: int  # track frame
    expression: Expression  # at the frame's presentation time


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """One frame and the audio of exactly its own time."""

    i420: U8  # u8 [h*3/2, w], limited range; planes Y, U, V
    frame_index: int
    fps: Fraction
    audio: AudioChunk
    background: int  # track frame behind the mouth
    speech: bool

    @property
    def width(self) -> int:
        """Pixels."""
        return self.i420.shape[1]

    @property
    def height(self) -> int:
        """Pixels."""
        return self.i420.shape[0] * 2 // 3

    @property
    def image(self) -> U8:
        """The picture as u8 [h, w, 3] RGB, converted on each call."""
        from lipstream.kernels.color import i420_to_rgb

        return i420_to_rgb(self.i420)
