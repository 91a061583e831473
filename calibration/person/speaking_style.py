"""How a person wears the universal expression: how wide they open, how their mouth sits in speech.

Sound does not tell how somebody holds the mouth while they talk: the corners, one side before the
other, lips a little forward. Footage does. The mean of what the camera saw over what the encoder
heard, while they speak, is theirs; the part of it along the lip gap is left out, because lips that
should meet must meet. Source: ours; docs/calibration.md has what it buys on unseen halves of clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.face.model import face_model
from lipstream.engine.types import F32, SAMPLE_RATE_HZ, Expression

_TYPICAL_OPENING: Final = 0.20  # 95th percentile of the opening that the encoder gives in speech
_GAIN_RANGE: Final = (0.75, 1.5)
_LEAST_SPEECH_S: Final = 3.0  # less says nothing of a habit
_SURE_S: Final = 8.0  # of speech, after which the mean is taken whole
_CERTAIN: Final = 0.2  # confidence of the sound's offset below which the sound may not be theirs


@dataclass(frozen=True, slots=True)
class EncodedAudio:
    """The footage's own sound, as the encoder heard it."""

    heard: Sequence[Expression]
    late_ms: int  # how late the sound is against the picture
    confidence: float  # that this is the voice of the face, 0 to 1


def opening_gain(opening: F32) -> float:
    """How wide this person opens in speech over how wide people do; opening f32 [T]."""
    widest = float(np.percentile(opening, 95))
    if widest < 0.05:  # they hardly spoke in this footage: nothing is known of their style
        return 1.0
    return float(np.clip(widest / _TYPICAL_OPENING, *_GAIN_RANGE))


def speaking_pose(
    expression: F32,
    usable: NDArray[np.bool_],
    fps: Fraction,
    gain: float,
    voice: EncodedAudio | None,
) -> F32:
    """What to add to the universal expression while this person speaks, f32 [K].

    Args:
        expression: f32 [T, K], tracked.
        usable: bool [T].
        fps: of the footage.
        gain: `opening_gain`.
        voice: None for footage without sound; then, as where little is said, the answer is 0.
    """
    model = face_model()
    nothing = np.zeros(model.size, np.float32)
    if voice is None or voice.confidence < _CERTAIN or len(voice.heard) < 2:
        return nothing
    time_s = np.array([e.sample for e in voice.heard]) / SAMPLE_RATE_HZ
    frame_s = np.arange(len(expression)) / float(fps) + voice.late_ms / 1000
    coefficients = np.stack([e.coefficients for e in voice.heard])
    speaks = np.interp(frame_s, time_s, [e.activity for e in voice.heard], 0.0, 0.0) > 0.5
    chosen = usable & speaks
    speech_s = float(chosen.sum() / fps)
    if speech_s < _LEAST_SPEECH_S:
        return nothing
    wanted = np.stack([np.interp(frame_s, time_s, column) for column in coefficients.T], 1)
    pose = (expression[chosen] - gain * wanted[chosen]).mean(0)
    row = model.lip_rows()[0]
    pose -= (row @ pose) / (row @ row) * row
    pose *= min(1.0, speech_s / _SURE_S)
    return pose.astype(np.float32)
