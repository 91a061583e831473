"""The renderer in our own kernels: what `auto` runs on a CPU with AVX2 and nothing wider.

There 16-bit integers allow a cheaper convolution than OpenVINO's 8 bits, at a tenth of their error
against f32: `kernels/convolution.py`. On wider processors OpenVINO's int8 or bfloat16 is faster.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lipstream.engine.errors import BackendUnavailable, UsageError
from lipstream.engine.networks.base import Model
from lipstream.engine.networks.signatures import RENDERER_INPUT, RENDERER_OUTPUT
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
        """RENDERER_INPUT f32 [B, 12, h, w] to RENDERER_OUTPUT f32 [B, 3, h, w]."""
        done = [self._frame(planes) for planes in inputs[RENDERER_INPUT]]
        return {RENDERER_OUTPUT: done[0][None] if len(done) == 1 else np.stack(done)}


def load_network(model: Model) -> RendererNative:
    """The renderer with the weights of a model's safetensors file.

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
