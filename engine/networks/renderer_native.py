"""The renderer's network in our own kernels: what `auto` runs where AVX2 is all a CPU has.

There 16-bit integers leave room for a cheaper way to convolve than OpenVINO's 8 bits do, and come
ten times nearer to f32: `kernels/convolution.py`. Wider processors multiply 8-bit numbers or
bfloat16 faster yet, in OpenVINO.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lipstream.engine.errors import BackendUnavailable, UsageError
from lipstream.engine.networks.base import Model
from lipstream.engine.rendering.refiner import INPUT, OUTPUT
from lipstream.engine.types import F32
from lipstream.kernels.convolution import RendererPass, fits
from lipstream.kernels.dispatch import use_native


class RendererNative:
    """A frame of the renderer, a batch row at a time."""

    name = "native"
    device = "CPU"
    precision = "int16"

    def __init__(self, frame: RendererPass) -> None:
        self._frame = frame

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        """INPUT f32 [B, 12, h, w] to OUTPUT f32 [B, 3, h, w]."""
        done = [self._frame(planes) for planes in inputs[INPUT]]
        return {OUTPUT: done[0][None] if len(done) == 1 else np.stack(done)}


def load_network(model: Model) -> RendererNative:
    """The network with the weights that count.

    Raises: BackendUnavailable without compiled kernels, AVX2, or ranges in the model.
    """
    from safetensors.numpy import load_file

    if not (use_native() and fits()):
        raise BackendUnavailable(
            "the renderer of backend 'native' needs the compiled kernels and a processor with "
            "AVX2; use openvino"
        )
    try:
        return RendererNative(RendererPass(load_file(str(model.safetensors)), model.ranges()))
    except UsageError as error:
        raise BackendUnavailable(f"{model.safetensors.name}: {error}; use openvino") from error
