"""A person's speaking style: how wide they open the mouth, and how they hold it while they speak.

Audio does not tell how somebody holds the mouth in speech: the corners, asymmetry, lips a little
forward. Footage does. The style's pose is the mean difference between the tracked expression and
the encoder's, while they speak. Its component along the lip gap is removed, so that lips still meet
where they should. Source: ours; docs/calibration.md has the figures on held-out halves of clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipstream.calibration.fitting.factorise import openings
from lipstream.engine.face.model import face_model
from lipstream.engine.target.oral_cavity import Mouth
from lipstream.engine.target.style import Style
from lipstream.engine.target.track import Track
from lipstream.engine.types import F32, SAMPLE_RATE_HZ, Expression

_TYPICAL_OPENING: Final = 0.20  # 95th percentile of the opening that the encoder gives in speech
_GAIN_RANGE: Final = (0.75, 1.5)
_MIN_SPEECH_S: Final = 3.0
_FULL_SPEECH_S: Final = 8.0  # with less speech, the mean is applied in proportion
_MIN_CONFIDENCE: Final = 0.2  # of the A/V offset; below it the audio may be somebody else's


@dataclass(frozen=True, slots=True)
class EncodedAudio:
    """The encoder's output for the footage's audio, and the A/V offset."""

    outputs: Sequence[Expression]
    late_ms: int  # delay of the audio against the video
    confidence: float  # that this is the voice of the face, 0 to 1


def fit_style(track: Track, fps: Fraction, audio: EncodedAudio | None, mouth: Mouth) -> Style:
    """The speaking style of a tracked person; `mouth` is their oral cavity, passed through."""
    model = face_model()
    gain = opening_gain(openings(track)[track.usable])
    speaking = speaking_pose(track.expression, track.usable, fps, gain, audio)
    return Style(np.zeros(model.size, np.float32), gain, speaking, mouth)


def opening_gain(opening: F32) -> float:
    """How wide this person opens the mouth, relative to the encoder's typical opening.

    opening: f32 [T], inter-ocular distances.
    """
    widest = float(np.percentile(opening, 95))
    if widest < 0.05:  # hardly any speech in this footage
        return 1.0
    return float(np.clip(widest / _TYPICAL_OPENING, *_GAIN_RANGE))


def speaking_pose(
    expression: F32,
    usable: NDArray[np.bool_],
    fps: Fraction,
    gain: float,
    audio: EncodedAudio | None,
) -> F32:
    """The expression f32 [K] to add to the encoder's while this person speaks.

    Args:
        expression: f32 [T, K], tracked.
        usable: bool [T].
        fps: of the footage.
        gain: `opening_gain`.
        audio: None for footage without audio; the pose is then 0, as it is for too little speech.
    """
    model = face_model()
    none = np.zeros(model.size, np.float32)
    if audio is None or audio.confidence < _MIN_CONFIDENCE or len(audio.outputs) < 2:
        return none
    time_s = np.array([e.sample for e in audio.outputs]) / SAMPLE_RATE_HZ
    frame_s = np.arange(len(expression)) / float(fps) + audio.late_ms / 1000
    coefficients = np.stack([e.coefficients for e in audio.outputs])
    speaks = np.interp(frame_s, time_s, [e.activity for e in audio.outputs], 0.0, 0.0) > 0.5
    chosen = usable & speaks
    speech_s = float(chosen.sum() / fps)
    if speech_s < _MIN_SPEECH_S:
        return none
    encoded = np.stack([np.interp(frame_s, time_s, column) for column in coefficients.T], 1)
    pose = (expression[chosen] - gain * encoded[chosen]).mean(0)
    row = model.lip_rows()[0]
    pose -= (row @ pose) / (row @ row) * row
    pose *= min(1.0, speech_s / _FULL_SPEECH_S)
    return pose.astype(np.float32)
