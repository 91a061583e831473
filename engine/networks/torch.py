"""torch as a backend: the reference that the others are compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from lipstream.engine.types import F32


class TorchNetwork:
    """A function over tensors, called with named arrays."""

    name = "torch"
    precision = "f32"

    def __init__(
        self,
        function: Callable[..., Sequence[Tensor]],
        inputs: Sequence[str],
        outputs: Sequence[str],
        device: str = "cpu",
    ) -> None:
        self._function = function
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs)
        self.device = device

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        """Named tensors in, named tensors out."""
        with torch.inference_mode():
            tensors = [torch.tensor(inputs[name], device=self.device) for name in self._inputs]
            results = self._function(*tensors)
        return {
            name: result.cpu().numpy() for name, result in zip(self._outputs, results, strict=True)
        }
