"""How much to sharpen for one person: as much as brings back the camera's edges."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from lipstream.calibration.sharpness import sharpening
from lipstream.engine.renderer import INPUT, OUTPUT, SHARPEN, Renderer
from lipstream.engine.target import load_target
from lipstream.engine.types import F32


class Blurring:
    """A network that makes of every mouth a softer one."""

    name, device, precision = "blurring", "CPU", "f32"

    def __init__(self, spread_px: float) -> None:
        self._spread_px = spread_px

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        colour = inputs[INPUT][:, :3]
        soft = gaussian_filter(colour, (0, 0, self._spread_px, self._spread_px))
        return {OUTPUT: (soft - colour).astype(np.float32)}


def test_a_softer_network_is_sharpened_more(target: Path) -> None:
    clip = load_target(target)
    amounts = [sharpening(clip, Renderer(Blurring(px))) for px in (0.01, 0.7, 1.0)]
    assert amounts[0] + 0.2 < amounts[1] < amounts[2]


def test_footage_too_short_to_tell_gets_what_everybody_gets(target: Path) -> None:
    assert sharpening(load_target(target), Renderer(Blurring(1.0)), (0, 20)) == SHARPEN
