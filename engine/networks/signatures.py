"""Tensor names and sizes of the two models, on which stages, backends and training agree."""

from __future__ import annotations

from typing import Final

# Encoder: one step of 20 ms.
BANDS: Final = 64  # mel bands of a feature frame
FRAMES_PER_STEP: Final = 2  # feature frames of 10 ms in a step
FEATURES: Final = BANDS * FRAMES_PER_STEP
LOOK_AHEADS_MS: Final = (0, 40, 80, 120, 200)  # one output head each, trained together
ENCODER_INPUTS: Final = ("features", "h1", "h2", "h3")
ENCODER_OUTPUTS: Final = ("expression", "speech", "h1_next", "h2_next", "h3_next")

# Renderer: one crop of a frame.
RENDERER_INPUT, RENDERER_OUTPUT = "crop", "gates"
CONDITIONING: Final = 3  # maps: opacity of the lip layer; row of the gap from upper to lower lip;
# confidence in the source's pixels there
CHANNELS: Final = 3 + CONDITIONING + 3 + 3  # warped crop, maps, appearance prior, previous crop
CROP_RESOLUTIONS: Final = (256, 384, 512)  # px across 1.8 inter-ocular distances
_ROWS, _COLUMNS = 5 / 8, 3 / 4  # of that square, where a lip layer can be


def crop_shape(crop_resolution: int = CROP_RESOLUTIONS[0]) -> tuple[int, int]:
    """Rows and columns of the crop, px; 8 divides both."""
    return int(crop_resolution * _ROWS), int(crop_resolution * _COLUMNS)


CROP_SHAPE: Final = crop_shape()
