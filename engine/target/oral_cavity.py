"""A synthetic oral cavity for mouths that the footage does not show.

A photo, or footage without a wide-open mouth, has no pixels for one. Its upper teeth are fixed to
the head, lower teeth and tongue to the jaw (`dental_arches`), in canonical coordinates and behind
the lips, so that they move against them as the head turns. `kernels.oral_cavity` draws them, shaded
by the lips and by depth, in the light of the target's own skin and in the colours of its own mouth
where a source shows them (`observed_mouth`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from lipstream.engine.face.dental_arches import (
    COLUMNS,
    CURVE,
    HALF_WIDTH,
    LOWER,
    MARGIN,
    ROWS,
    STEP,
    TALL,
    UPPER,
    arch_table,
)
from lipstream.engine.face.mesh import smoothstep
from lipstream.engine.face.model import FaceModel
from lipstream.engine.types import F32
from lipstream.kernels.oral_cavity import GRAIN, Cavity

TEETH_RGB: Final = (218.0, 196.0, 182.0)
TONGUE_RGB: Final = (192.0, 112.0, 114.0)
GUMS_RGB: Final = (190.0, 112.0, 108.0)
LIPS_RGB: Final = (182.0, 104.0, 98.0)
SKIN_RGB: Final = (200.0, 152.0, 130.0)  # a fair skin in even light
SHADOW_LOSS: Final = (0.0, 0.38, 0.42)  # of red, green and blue, in full shadow
DARK_RGB: Final = (62.0, 20.0, 20.0)
_BEHIND_LIPS: Final = 0.035  # of the teeth
# Half the width of an edge: a smooth step is as wide as a blurred edge at 1.6 of its deviation, as
# edges in a face are themselves soft.
_SOFT: Final = 1.6
_SOFT_LIMITS: Final = (0.010, 0.026)
_BONE: Final = 1.25  # how far the jaw moves for the skin of the chin, which slides on it
_STEEP: Final = 0.45  # slope of a line of sight, beyond which the arch would be left behind


@dataclass(frozen=True, slots=True)
class UpperTeeth:
    """The upper teeth that a source shows, on the grid of a `dental_arches` table."""

    edge: float  # y of the incisors' edge, canonical
    # f32 [ROWS, COLUMNS, 5]: RGB in full light, how far it is seen, and where no teeth show.
    # Row TALL / STEP is at the `upper_edge` of the mouth that was observed.
    table: F32


@dataclass(frozen=True, slots=True)
class Camera:
    """Blur and grain of the footage."""

    blur: float  # standard deviation, inter-ocular distances
    grain: float  # standard deviation, levels
    pixel: float  # inter-ocular distances


NO_CAMERA: Final = Camera(0.008, 0.0, 0.01)


@dataclass(frozen=True, slots=True)
class ObservedMouth:
    """What the sources show of a mouth, in the light of the footage."""

    lips: F32  # f32 [2, 3], RGB of the upper and the lower one
    skin: F32  # f32 [3], RGB, beside the mouth
    teeth: F32 | None  # f32 [3], RGB in full light; None where no source shows them
    gradient: float  # how much brighter it is 0.4 to the right of the middle, a fraction
    upper: UpperTeeth | None
    camera: Camera


@dataclass(frozen=True, slots=True)
class Mouth:
    """The position of this target's teeth, and its light."""

    upper_edge: float  # y of the upper incisors' edge, canonical
    lower_edge: float  # y of the lower incisors' edge with the jaw at rest
    light: F32  # f32 [3], skin colour over a reference skin
    observed: ObservedMouth | None = None
    corners: float = 0.0  # how much those of a wide gap are rounded off, 0 to 1

    def cavity(self, model: FaceModel) -> Cavity:
        """The tables that a painter draws it from."""
        light, seen = self.light, self.observed
        lips, teeth = np.array([LIPS_RGB] * 2) * light, np.array(TEETH_RGB, np.float32)
        gradient, edge, lower, camera = 0.0, self.upper_edge, self.lower_edge, NO_CAMERA
        if seen is None:
            teeth = teeth * light
        else:
            lips, gradient, camera = seen.lips, seen.gradient, seen.camera
            teeth = teeth * light * _tint(seen.skin) if seen.teeth is None else seen.teeth
            if seen.upper is not None:
                edge = seen.upper.edge
        tongue, gums = (
            (0.55 * np.array(prior, np.float32) * light + 0.45 * lips.mean(0))
            for prior in (TONGUE_RGB, GUMS_RGB)
        )
        soft = float(np.clip(_SOFT * camera.blur, *_SOFT_LIMITS))
        tables = [arch_table(arch, teeth, gums, soft) for arch in (UPPER, LOWER)]
        if seen is not None and seen.upper is not None:
            tables[0] = _with_own(tables[0], seen.upper, round((edge - self.upper_edge) / STEP))
        colours = [tongue, np.array(DARK_RGB, np.float32) * light, *lips, SHADOW_LOSS]
        shape = (
            HALF_WIDTH, edge - TALL, lower - MARGIN, STEP, _arch_depth(model), CURVE,
            edge, lower, gradient, camera.pixel, self.corners,
        )  # fmt: skip
        return Cavity(
            np.ascontiguousarray(tables, np.float32),
            np.array(colours, np.float32),
            np.random.default_rng(0).normal(0, camera.grain, (GRAIN, GRAIN)).astype(np.float32),
            np.array(shape, np.float32),
        )


def upper_grid(mouth: Mouth, model: FaceModel) -> F32:
    """The points of the table of upper teeth, f32 [ROWS, COLUMNS, 3]: canonical, but for x, which
    is 0 in the middle of the mouth.
    """
    x = np.linspace(-HALF_WIDTH, HALF_WIDTH, COLUMNS, dtype=np.float32)
    y = mouth.upper_edge + np.linspace(-TALL, MARGIN, ROWS, dtype=np.float32)
    grid = np.empty((ROWS, COLUMNS, 3), np.float32)
    grid[..., 0], grid[..., 1] = x, y[:, None]
    grid[..., 2] = _arch_depth(model) + CURVE * x * x
    return grid


def _arch_depth(model: FaceModel) -> float:
    """z of the front of the teeth, canonical."""
    return float(model.mean[[13, 14], 2].mean()) + _BEHIND_LIPS


def _with_own(table: F32, own: UpperTeeth, lower: int) -> F32:
    """A table with the teeth of a source where it shows them; its edge is `lower` rows lower."""
    at = np.clip(np.arange(len(table)) + lower, 0, len(table) - 1)
    seen, inside = own.table[at], np.arange(len(table)) + lower == at
    weight = seen[..., 3:4] * inside[:, None, None]
    mixed = table.copy()
    mixed[..., :3] += weight * (seen[..., :3] - table[..., :3])
    mixed[..., 3] *= 1 - seen[..., 4]
    return mixed


def _tint(skin: F32) -> F32:
    """Colour of the light that a skin f32 [3] is seen in, as far as it can be told, f32 [3].

    Skin of any tone reflects about 0.8 of its green in blue: less is yellow light.
    """
    blue = float(skin[2]) / max(float(skin[1]), 1.0) / 0.8
    return np.array([1, 1, np.sqrt(np.clip(blue, 0.6, 1.2))], np.float32)


def mouth_of(model: FaceModel, geometry: F32, skin_rgb: F32) -> Mouth:
    """Teeth for a rest geometry f32 [468, 3] and a mean skin colour f32 [3], 0 to 255."""
    rest_line = float(geometry[[13, 14], 1].mean())
    reference = np.array(SKIN_RGB, np.float32)
    luminance = float(skin_rgb @ np.array([0.21, 0.72, 0.07], np.float32)) / 161.0
    # Teeth differ less between people than skin does: the luminance counts by about half.
    level = np.clip(0.45 + 0.55 * luminance, 0.35, 1.12)
    tint = np.clip(skin_rgb / np.maximum(reference * luminance, 1.0), 0.9, 1.1)
    light = (level * (0.8 + 0.2 * tint)).astype(np.float32)
    # Closed, the rows overlap by 2 mm behind the lower lip.
    return Mouth(rest_line + 0.022, rest_line - 0.005, light)


def mouth_motion(grid: F32, columns: int, jaw: float, rotation: F32) -> F32:
    """What moves from frame to frame, as `kernels.oral_cavity.paint` takes it, f32 [6].

    grid f32 [rows * columns, 3], the gap between the lips, canonical; rotation f32 [3, 3], of
    the head.
    """
    middle = columns // 2
    gap = float(grid[-columns + middle, 1] - grid[middle, 1])
    width = float(grid[columns - 1, 0] - grid[0, 0])
    # Through a wider opening more light falls in.
    round_ = smoothstep((width - 0.30) / 0.35)
    light = smoothstep(gap / 0.22) * (0.4 + 0.6 * round_)
    # The tongue is high where the jaw is (n t l d, and e, i), and low behind rounded lips.
    raised = (1 - smoothstep(jaw / 0.16)) * (0.35 + 0.65 * round_)
    (a, b, c), (d, e, f) = rotation[:2].tolist()
    forward = max(a * e - b * d, 0.2)
    rays = np.clip([(b * f - c * e) / forward, (c * d - a * f) / forward], -_STEEP, _STEEP)
    return np.array([grid[middle, 0], _BONE * jaw, light, raised, *rays], np.float32)
