"""torch on the card under test: the same memory, in the order of the same stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from lipstream.bench.gpu.card import Card

_WARM_UPS = 3  # before a graph is captured: libraries choose their kernels then
PRECISIONS = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


class TensorBuffer:
    """A tensor that our kernels take, on the host too."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3."""
        kind = np.dtype(str(self.tensor.dtype).removeprefix("torch."))
        return {
            "shape": tuple(self.tensor.shape),
            "typestr": kind.str,
            "data": (self.tensor.data_ptr(), False),
            "version": 3,
        }


class TorchCard:
    """torch beside a `Card`. Where there is no card, graphs are plain calls."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.device = "cpu" if card.on_host else "cuda"
        self.stream: Any = None  # torch's view of the card's
        if not card.on_host:
            torch.cuda.init()
            self.stream = torch.cuda.ExternalStream(card.stream.handle)

    @contextmanager
    def on_stream(self) -> Iterator[None]:
        """What torch does within is in the order of the card's stream, and is not recorded."""
        stream: Any = nullcontext() if self.stream is None else torch.cuda.stream(self.stream)
        with torch.inference_mode(), stream:
            yield

    def captured(self, run: Callable[[], object]) -> Callable[[], None]:
        """`run` as a CUDA graph on the card's stream."""
        with self.on_stream():
            for _ in range(1 if self.stream is None else _WARM_UPS):
                run()
        self.card.stream.synchronize()
        if self.stream is None:

            def call() -> None:
                with self.on_stream():
                    run()

            return call
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(graph, stream=self.stream):
            run()

        def replay() -> None:
            with torch.cuda.stream(self.stream):
                graph.replay()

        return replay

    def put(self, values: NDArray[Any]) -> TensorBuffer:
        """A copy on the device."""
        buffer = self.empty(values.shape, values.dtype)
        if values.size:
            self.card.upload(values, buffer)
        return buffer

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> TensorBuffer:
        """Uninitialised memory."""
        kind = getattr(torch, np.dtype(dtype).name)
        with self.on_stream():
            return TensorBuffer(torch.empty(shape, dtype=kind, device=self.device))

    def upload(self, values: NDArray[Any], onto: Any, stream: Any) -> None:
        """Copy in the order of the stream."""
        self.card.upload(values, onto, stream)

    def read(self, buffer: TensorBuffer) -> NDArray[Any]:
        """A copy on the host, of what the stream leaves."""
        self.card.stream.synchronize()
        return buffer.tensor.cpu().numpy().copy()

    def reserved_bytes(self) -> int:
        """That torch keeps of the card."""
        return 0 if self.stream is None else int(torch.cuda.memory_reserved())
