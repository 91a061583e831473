"""The state in which a stream begins: what a long silence leaves in the encoder."""

from __future__ import annotations

from typing import Final

import numpy as np

from lipstream.engine.networks.base import Network
from lipstream.engine.networks.signatures import (
    BLOCKS,
    ENCODER_STATES,
    TOKENS_AFTER,
    TOKENS_KEPT,
    encoder_shapes,
)
from lipstream.engine.types import F32

# Each block's memory fills anew once that of the block before holds nothing but silence; then the
# recurrent head settles.
SILENT_STEPS: Final = BLOCKS * (TOKENS_KEPT + TOKENS_AFTER) + 12  # 2.8 s


def silent_state(network: Network, hidden: int, features: F32) -> dict[str, F32]:
    """The states by name after silence, f32 [1, ...] each, never written to again.

    `hidden` is the width of the recurrent head; `features` f32 [1, FEATURES] are those of silence.
    Attention has no mask that would hide what was before the first sound, so there is silence.
    """
    states = {
        name: np.zeros((1, *shape), np.float32)
        for name, shape in encoder_shapes(hidden).items()
        if name in ENCODER_STATES
    }
    for _ in range(SILENT_STEPS):
        result = network.run({**states, "features": features})
        states = next_states(result)
    return states


def next_states(outputs: dict[str, F32]) -> dict[str, F32]:
    """The states that a step has put out, under the names of its inputs."""
    return {name: outputs[f"{name}_next"] for name in ENCODER_STATES}
