"""torch as a backend: the reference that the others are compared with, on CPUs and NVIDIA GPUs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from lipstream.engine.errors import BackendUnavailable
from lipstream.engine.networks.base import FAST
from lipstream.engine.types import F32

_TYPES: Final = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


class TorchNetwork:
    """A module, called with named arrays. f32 at inputs and outputs, whatever it computes in."""

    name = "torch"

    def __init__(
        self,
        module: nn.Module,
        function: Callable[..., Sequence[Tensor]],
        inputs: Sequence[str],
        outputs: Sequence[str],
    ) -> None:
        """`function`: a call of `module`. It computes on the CPU in f32 until `move`."""
        self._module, self._function = module, function
        self._inputs, self._outputs = tuple(inputs), tuple(outputs)
        self.device, self.precision = "cpu", "f32"

    def move(self, device: str, precision: str) -> None:
        """Compute on `device` ("cpu", "cuda") in "f32", "f16", "bf16" or "fast".

        "fast" is f16 on a GPU, which is nearer to f32 than bf16 is (docs/gpu.md). Weights of
        convolutions lie channels last, as tensor cores read them.
        Raises: BackendUnavailable for another precision.
        """
        if precision == FAST:
            precision = "f32" if device == "cpu" else "f16"
        if precision not in _TYPES:
            raise BackendUnavailable(f"torch computes in {', '.join(_TYPES)}, not {precision!r}")
        self._module.to(device=device, dtype=_TYPES[precision])
        self._module.to(memory_format=torch.channels_last)
        self.device, self.precision = device, precision

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        """Named tensors in, named tensors out."""
        with torch.inference_mode():
            tensors = {
                name: torch.tensor(inputs[name], device=self.device) for name in self._inputs
            }
            found = self.on_device(tensors)
            return {name: tensor.cpu().numpy() for name, tensor in found.items()}

    def on_device(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same with f32 tensors that lie on the device, in torch's current stream."""
        kind = _TYPES[self.precision]
        results = self._function(*(inputs[name].to(kind) for name in self._inputs))
        dense = (result.float().contiguous() for result in results)
        return dict(zip(self._outputs, dense, strict=True))
