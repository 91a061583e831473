"""Tensor names and sizes of the two models, on which stages, backends and training agree."""

from __future__ import annotations

from typing import Final

# Encoder: one step of 20 ms, two feature frames that become one token.
BANDS: Final = 80  # mel bands of a feature frame
FRAMES_PER_STEP: Final = 2  # feature frames of 10 ms in a step
FEATURES: Final = BANDS * FRAMES_PER_STEP
LOOK_AHEADS_MS: Final = (0, 40, 80, 120, 200)  # one output head each, trained together
TOKEN_WIDTH: Final = 384
BLOCKS: Final = 2  # of the transformer
HEADS: Final = 6  # of attention
TOKENS_BEFORE: Final = 60  # that a token attends to
TOKENS_AFTER: Final = 2  # the same; each block waits for so many
TOKENS_KEPT: Final = TOKENS_BEFORE + TOKENS_AFTER  # whose keys and values a step remembers
ENCODER_STATES: Final = ("frames", "lifted", "waiting", "memory", "hidden")
ENCODER_INPUTS: Final = ("features", *ENCODER_STATES)
ENCODER_OUTPUTS: Final = ("expression", "speech", *(f"{name}_next" for name in ENCODER_STATES))


def encoder_shapes(hidden: int) -> dict[str, tuple[int, ...]]:
    """Sizes of a row of each input of the encoder; `hidden` is the width of its recurrent head.

    frames: the two frames of the step before. lifted: what the first convolution made at its last
    frame. waiting: each block's two newest tokens, which it has not answered yet, oldest first.
    memory: each block's keys and values, oldest token first. hidden: state of the recurrent head.
    """
    return {
        "features": (FEATURES,),
        "frames": (FEATURES,),
        "lifted": (TOKEN_WIDTH,),
        "waiting": (BLOCKS, TOKENS_AFTER, TOKEN_WIDTH),
        "memory": (BLOCKS, 2, TOKENS_KEPT, TOKEN_WIDTH),
        "hidden": (hidden,),
    }


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
