"""What is particular to one person: their speaking style, and how much the renderer sharpens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lipstream.engine.target.oral_cavity import Mouth
from lipstream.engine.types import F32

# Strength of the unsharp mask over 5 x 5 pixels on the refined mouth. The appearance prior is soft,
# by an amount that depends on the face and cannot be known in training: on its own people the model
# needs none. Calibration measures the amount of each person. These are the means of eleven people,
# with an appearance model and without, for photos and footage too short to measure.
SHARPEN: Final = 1.25
SHARPEN_ALONE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Style:
    """How this person differs from the universal expression."""

    rest: F32  # f32 [K], expression in silence
    gain: float  # their opening over the universal one
    speaking: F32  # f32 [K], added while they speak: the mean pose of their mouth then
    mouth: Mouth  # their teeth and light
