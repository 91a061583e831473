"""The upper and lower dental arch as two tables of colour and coverage.

Crowns stand on a half ellipse seen from the front: each is as wide as its part of the arch turns
to the camera, and the further back the less light it gets. Widths and heights are means of
adult teeth (Wheeler's Dental Anatomy: upper incisors 8.5 and 6.5 mm wide, 10.5 and 9 mm high,
lower ones 5 and 5.5 mm, 9 and 9.5 mm) over a 63 mm inter-ocular distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from lipstream.engine.face.mesh import smoothstep
from lipstream.engine.types import F32

HALF_WIDTH: Final = 0.48
STEP: Final = 0.005
TALL: Final = 0.30  # of a table, beyond the edge of the teeth towards the gums
MARGIN: Final = 0.055  # on the other side
COLUMNS: Final = round(2 * HALF_WIDTH / STEP) + 1
ROWS: Final = round((TALL + MARGIN) / STEP) + 1
CURVE: Final = 2.2  # z over the square of x: an arch 36 mm wide at the canines is 10 mm deep there
_ARCH: Final = (0.45, 0.75)  # half axes of the ellipse
# Of red, green and blue: the light that reaches teeth further back has been reflected by cheeks.
_REFLECTED: Final = np.array([1.0, 1.35, 1.4], np.float32)


@dataclass(frozen=True, slots=True)
class Arch:
    """One row of teeth: incisors, canine, premolars and molar of one half."""

    widths: tuple[float, ...]
    heights: tuple[float, ...]
    shorter: tuple[float, ...]  # how far an edge is from that of the central incisor
    rise: float  # of the row of edges towards the sides, 0.42 from the middle
    narrow: float  # of the arch against the upper one


UPPER: Final = Arch(
    (0.135, 0.103, 0.121, 0.111, 0.108, 0.160),
    (0.165, 0.145, 0.160, 0.135, 0.125, 0.115),
    (0.0, 0.008, 0.004, 0.012, 0.018, 0.020),
    0.075, 1.0,
)  # fmt: skip
LOWER: Final = Arch(
    (0.083, 0.090, 0.108, 0.111, 0.113, 0.175),
    (0.140, 0.145, 0.165, 0.135, 0.125, 0.115),
    (0.0, 0.002, -0.006, 0.004, 0.008, 0.010),
    -0.03, 0.93,
)  # fmt: skip


def arch_table(arch: Arch, teeth: F32, gums: F32, soft: float) -> F32:
    """RGB in 0 to 255 and coverage 0 to 1, f32 [ROWS, COLUMNS, 4].

    Row 0 is TALL from the edge of the central incisor towards the gums. teeth, gums: f32 [3], their
    colours in full light. soft: half the width of an edge, inter-ocular distances.
    """
    x = np.linspace(-HALF_WIDTH, HALF_WIDTH, COLUMNS, dtype=np.float32)
    tooth, along, turned = _crowns(arch, x)
    heights = np.array(arch.heights, np.float32)[tooth]
    side = np.abs(along)
    edge = np.array(arch.shorter, np.float32)[tooth] + arch.rise * (x / 0.42) ** 2
    edge += np.where(tooth == 2, 0.009 * side, 0.007 * side**4)
    above = np.linspace(TALL, -MARGIN, ROWS, dtype=np.float32)[:, None] - edge

    gum_line = heights * (1 - 0.20 * side**2.5)
    crown = 1 - smoothstep((above - gum_line) / (2 * soft) + 0.5)
    # Crowns are rounded: light falls off to their sides, and a little to edge and gum.
    height = np.clip(above / heights, 0, 1)
    shade = 0.90 + 0.14 * np.sqrt(np.clip(1 - (0.85 * side) ** 2, 0, 1))
    shade = shade * (0.93 + 0.07 * smoothstep(height / 0.35)) * (1 - 0.06 * height)
    gap = np.clip((1 - side) * np.array(arch.widths, np.float32)[tooth] / 2, 0, None)
    between = 1 - smoothstep(gap / (0.006 + soft * 0.7))
    shade = shade * (1 - between * (0.06 + 0.11 * (1 - smoothstep(above / 0.045))))
    # The edge is thin enamel, bluish and a little dark; towards the gum, dentine shows through.
    warm = np.stack([0 * height, -0.03 * height, -0.10 * height], -1)
    cool = (1 - smoothstep(above / 0.04))[..., None] * np.array([-0.05, -0.02, 0.01])
    yellow = np.where(tooth == 2, 0.04, 0.0)[:, None] * np.array([-0.5, -1.0, -2.0])
    enamel = teeth * (1 + warm + cool + yellow) * shade[..., None]
    flesh = gums * (0.78 + 0.22 * smoothstep((above - gum_line) / 0.05))[..., None]
    color = flesh + crown[..., None] * (enamel - flesh)
    color = color * turned[:, None] ** _REFLECTED
    covered = smoothstep(above / (2 * soft) + 0.5)
    covered = covered * smoothstep((HALF_WIDTH - 0.03 - np.abs(x)) / 0.06)
    table = np.concatenate([np.clip(color, 0, 255), covered[..., None]], -1).astype(np.float32)
    return table if arch is UPPER else np.ascontiguousarray(table[::-1])


def _crowns(arch: Arch, x: F32) -> tuple[np.ndarray, F32, F32]:
    """At x f32 [n]: which tooth, how far from its middle, -1 to 1, and how much light it gets."""
    angle = np.linspace(0, 1.5, 400)
    front, back = _ARCH[0] * arch.narrow * np.sin(angle), _ARCH[1] * (1 - np.cos(angle))
    length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(front), np.diff(back)))])
    at = np.interp(np.abs(x), front, length)
    borders = np.concatenate([[0.0], np.cumsum(arch.widths)])
    tooth = np.clip(np.searchsorted(borders, at, side="right") - 1, 0, len(arch.widths) - 1)
    middle, half = (borders[tooth] + borders[tooth + 1]) / 2, np.array(arch.widths)[tooth] / 2
    along = np.clip((at - middle) / half, -1, 1)
    facing = np.cos(np.interp(np.abs(x), front, angle))
    depth = np.interp(np.abs(x), front, back)
    turned = (0.55 + 0.45 * facing) * (1 - 0.65 * smoothstep((depth - 0.03) / 0.30))
    return tooth, along.astype(np.float32), turned.astype(np.float32)
