"""A synthetic oral cavity for mouths that the footage does not show.

A photo, or footage without a wide-open mouth, has no pixels for one. This layer draws teeth, tongue
and the dark behind them from plain anatomy: upper teeth fixed to the head, lower teeth and tongue
to the jaw, shaded by the lips and by depth, in the light of the target's own skin. Widths are means
of adult teeth (Wheeler's Dental Anatomy: incisor crowns 8.5 and 6.5 mm above, 5 and 5.5 mm below)
over a 63 mm inter-ocular distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lipstream.engine.face.mesh import smoothstep
from lipstream.engine.face.model import FaceModel
from lipstream.engine.types import F32

UPPER_WIDTHS = (
    0.135,
    0.103,
    0.115,
    0.11,
    0.11,
)  # over the inter-ocular distance: incisors, canine, premolars
LOWER_WIDTHS = (0.082, 0.090, 0.105, 0.11, 0.11)
TEETH_RGB = (218.0, 204.0, 186.0)
TONGUE_RGB = (150.0, 82.0, 80.0)
SHADOW_LOSS = (0.0, 0.42, 0.48)  # of red, green and blue, in full shadow
DARK_RGB = (46.0, 21.0, 19.0)
SEAM_RGB = (92.0, 46.0, 44.0)  # between lips that almost touch, which light one another
_SEAM = 0.05  # inter-ocular distances, up to which a gap is more seam than cavity


@dataclass(frozen=True, slots=True)
class Mouth:
    """The position of this target's teeth, and its light."""

    upper_edge: float  # y of the upper incisors' edge, canonical
    lower_edge: float  # y of the lower incisors' edge with the jaw at rest
    light: F32  # f32 [3], skin colour over a reference skin

    def paint(self, at: F32, roof: F32, floor: F32, jaw: float, middle_x: float) -> F32:
        """Colour f32 [n, 3] of canonical points f32 [n, 2] between the lips.

        roof, floor f32 [n]: y of the inner lips above and below each point; jaw: how far the jaw
        is below its rest.
        """
        x, y = at[:, 0] - middle_x, at[:, 1]
        depth = np.clip(1 - (x / 0.42) ** 2, 0.0, 1.0)  # the arch turns away to the sides
        color = np.tile(np.asarray(DARK_RGB, np.float32), (len(at), 1))

        # The tongue lies behind the lower lip and rises a little towards the middle.
        tongue_y = roof + (floor - roof) * (0.62 - 0.12 * depth)
        tongue = smoothstep((y - tongue_y) / 0.10) * smoothstep((0.32 - np.abs(x)) / 0.16)
        groove = 1 - 0.12 * np.exp(-((x / 0.03) ** 2))
        flesh = np.asarray(TONGUE_RGB, np.float32) * np.float32(0.72) * groove[:, None]
        color = _over(color, flesh, tongue * 0.85)

        lower_edge = self.lower_edge + jaw + 0.10 * (x / 0.42) ** 2
        lower = smoothstep((y - lower_edge) / 0.022) * smoothstep((0.30 - np.abs(x)) / 0.05)
        shade = (0.62 + 0.2 * depth) * _gaps(x, y - lower_edge, LOWER_WIDTHS)
        color = _over(color, np.asarray(TEETH_RGB, np.float32) * shade[:, None], lower * 0.92)

        upper_edge = self.upper_edge - 0.12 * (x / 0.42) ** 2 + 0.012 * _scallop(x)
        upper = smoothstep((upper_edge - y) / 0.026) * smoothstep((0.36 - np.abs(x)) / 0.05)
        shade = (0.5 + 0.44 * depth) * _gaps(x, upper_edge - y, UPPER_WIDTHS)
        color = _over(color, np.asarray(TEETH_RGB, np.float32) * shade[:, None], upper)

        # The lips shade what lies behind them, the upper one more: light comes from above. The rest
        # of the light is reflected by the lips, so shadow is red, and a narrow gap is all shadow.
        under_lip = 0.45 + 0.55 * smoothstep((y - roof) / 0.07)
        over_lip = 0.7 + 0.3 * smoothstep((floor - y) / 0.04)
        narrow = 0.5 + 0.5 * smoothstep((floor - roof) / 0.10)
        shade = (under_lip * over_lip * narrow)[:, None]
        color = color * shade * (1 - (1 - shade) * np.asarray(SHADOW_LOSS, np.float32))
        thin = 1 - smoothstep((floor - roof) / _SEAM)[:, None]
        color = color + thin * (np.asarray(SEAM_RGB, np.float32) - color)
        return (color * self.light).astype(np.float32)


def mouth_of(model: FaceModel, geometry: F32, skin_rgb: F32) -> Mouth:
    """Teeth for a rest geometry f32 [468, 3] and a mean skin colour f32 [3], 0 to 255."""
    rest_line = float(geometry[[13, 14], 1].mean())
    reference = np.array([200.0, 152.0, 130.0], np.float32)  # a fair skin in even light
    luminance = float(skin_rgb @ np.array([0.21, 0.72, 0.07], np.float32)) / 161.0
    # Teeth differ less between people than skin does: the luminance counts by about half.
    level = np.clip(0.45 + 0.55 * luminance, 0.35, 1.12)
    tint = np.clip(skin_rgb / np.maximum(reference * luminance, 1.0), 0.9, 1.1)
    light = (level * (0.8 + 0.2 * tint)).astype(np.float32)
    return Mouth(rest_line + 0.035, rest_line + 0.055, light)


def _over(below: F32, color: F32, alpha: F32) -> F32:
    return (below + alpha[:, None] * (color - below)).astype(np.float32)


def borders(widths: tuple[float, ...]) -> F32:
    """Distances from the middle to the borders of crowns, f32 [n + 1], inter-ocular distances."""
    return np.concatenate([[0.0], np.cumsum(widths)]).astype(np.float32)


def _gaps(x: F32, height: F32, widths: tuple[float, ...]) -> F32:
    """Darkening between neighbouring teeth, narrower away from the edge."""
    nearest = np.abs(np.abs(x)[:, None] - borders(widths)).min(1)
    line = 1 - smoothstep(nearest / 0.014)
    return (1 - line * (0.16 + 0.12 * (1 - smoothstep(height / 0.05)))).astype(np.float32)


def _scallop(x: F32) -> F32:
    """Edge profile of the upper teeth: each crown is a little longer in its middle."""
    edges = borders(UPPER_WIDTHS)
    at = np.clip(np.searchsorted(edges, np.abs(x), side="right") - 1, 0, len(edges) - 2)
    middle = (edges[at] + edges[at + 1]) / 2
    half = (edges[at + 1] - edges[at]) / 2
    return (1 - np.clip(np.abs(np.abs(x) - middle) / half, 0, 1) ** 3).astype(np.float32)
