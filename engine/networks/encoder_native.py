"""The encoder in our own kernels: what `auto` runs on a CPU.

A step is bound by memory traffic of the weights, so they stay integers of 8 bits, the form in which
they ship: `kernels/encoder.cpp`. `encoder_numpy` is the readable reference.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lipstream.engine.errors import BackendUnavailable, UsageError
from lipstream.engine.networks.base import Model
from lipstream.engine.networks.signatures import ENCODER_INPUTS, ENCODER_OUTPUTS
from lipstream.engine.types import F32
from lipstream.kernels.dispatch import use_native
from lipstream.kernels.encoder import EncoderStep


class EncoderNative:
    """One step of the encoder, a batch row at a time."""

    name = "native"
    device = "CPU"
    precision = "f32"  # of weights in 8 bits and activations in 16

    def __init__(self, step: EncoderStep) -> None:
        self._step = step

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        """As `EncoderNumpy.run`."""
        rows = zip(*(inputs[name] for name in ENCODER_INPUTS), strict=True)
        done = [self._step(*row) for row in rows]
        if len(done) == 1:
            return {name: out[None] for name, out in zip(ENCODER_OUTPUTS, done[0], strict=True)}
        return {
            name: np.stack(column)
            for name, column in zip(ENCODER_OUTPUTS, zip(*done, strict=True), strict=True)
        }


def load_network(model: Model) -> EncoderNative:
    """The encoder with the weights of a model's safetensors file.

    Raises: BackendUnavailable without the compiled kernels, or for weights of another form.
    """
    from safetensors.numpy import load_file

    if not use_native():
        raise BackendUnavailable(
            "backend 'native' needs the compiled kernels; see lipstream doctor"
        )
    try:
        return EncoderNative(EncoderStep(load_file(str(model.safetensors))))
    except UsageError as error:
        raise BackendUnavailable(f"{model.safetensors.name}: {error}; use openvino") from error
