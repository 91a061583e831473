"""How one person wears the universal expression."""

from __future__ import annotations

from dataclasses import dataclass

from lipstream.engine.target.oral_cavity import Mouth
from lipstream.engine.types import F32


@dataclass(frozen=True, slots=True)
class Style:
    """How this person wears the universal expression."""

    rest: F32  # f32 [K], expression in silence
    gain: float  # their opening over the universal one
    speaking: F32  # f32 [K], added while they speak: how their mouth sits then
    mouth: Mouth  # their teeth and light
