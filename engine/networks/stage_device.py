"""The renderer's stage with torch's memory and streams: on a CUDA device, or eagerly on the CPU.

On a device a batch is one copy in, one CUDA graph and one copy out. The graph of a size of batch is
captured at its second use; where that fails, everything goes on without graphs. On the CPU the same
code runs step by step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from lipstream.engine.errors import BackendUnavailable, UsageError
from lipstream.engine.networks.base import Described
from lipstream.engine.networks.signatures import RENDERER_INPUT, RENDERER_OUTPUT
from lipstream.engine.networks.stage import Refined, StageRow, padded_size, refuse
from lipstream.engine.networks.stage_arena import Arena, Body, pixels_of
from lipstream.engine.networks.stage_kernels import KernelBody
from lipstream.engine.networks.stage_torch import TorchBody
from lipstream.kernels.cuda import loader

log = logging.getLogger(__name__)


class DeviceNetwork(Described, Protocol):
    """A renderer whose tensors lie on the device."""

    def on_device(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Named tensors in and out, in torch's current stream."""
        ...


class _Lane:
    """An arena, what computes it, and its graph."""

    def __init__(self, arena: Arena, body: Body) -> None:
        self.arena, self.body = arena, body
        self.ran = False
        self.graph: Any = None


class DeviceStage:
    """A `StageExecutor`."""

    def __init__(
        self,
        network: DeviceNetwork,
        body: Callable[[Arena], Body],
        crop_shape: tuple[int, int],
        device: str = "cpu",
        cuda: Any = None,
        stream: Any = None,
    ) -> None:
        """`device`: torch's name of where the memory lies. `cuda`: the module torch.cuda where
        streams and graphs are used, and a stream of it."""
        self.name, self.device, self.precision = network.name, network.device, network.precision
        self.crop_shape = crop_shape
        self._network, self._make_body, self._on = network, body, device
        self._cuda, self._stream = cuda, stream
        self._lanes: dict[int, _Lane] = {}
        self._uses_graphs = cuda is not None
        self._pool = None if cuda is None else cuda.graph_pool_handle()

    def run(self, rows: Sequence[StageRow]) -> list[Refined | UsageError]:
        """See `StageExecutor`."""
        batch = padded_size(len(rows))
        refused = refuse(rows, self.crop_shape)
        sound = [row for row, error in zip(rows, refused, strict=True) if error is None]
        try:
            made = iter(self._compute(sound, batch))
        except RuntimeError as error:  # torch's, which CUDA's and those of memory are
            raise BackendUnavailable(f"{self.name} on {self.device} fails: {error}") from error
        return [next(made) if error is None else error for error in refused]

    def _compute(self, rows: Sequence[StageRow], batch: int) -> list[Refined]:
        if not rows:
            return []
        on_stream = nullcontext() if self._cuda is None else self._cuda.stream(self._stream)
        with torch.inference_mode(), on_stream:
            lane = self._lane(batch, rows)
            placed = lane.arena.put(rows)
            lane.body.prepare(placed)
            self._start(lane)
            lane.arena.fetch()
        if self._cuda is not None:
            self._stream.synchronize()
        return [lane.arena.take(index, row) for index, row in enumerate(placed)]

    def _lane(self, batch: int, rows: Sequence[StageRow]) -> _Lane:
        needed, lane = pixels_of(rows), self._lanes.get(batch)
        if lane is not None:
            held = lane.arena.pixels
            needed = max(needed[0], held[0]), max(needed[1], held[1])
        if lane is None or needed != lane.arena.pixels:
            arena = Arena(batch, self.crop_shape, needed, self._on)
            lane = self._lanes[batch] = _Lane(arena, self._make_body(arena))
        return lane

    def _start(self, lane: _Lane) -> None:
        """Enqueue the steps: by the graph, once there is one."""
        if lane.graph is None and lane.ran and self._uses_graphs:
            lane.graph = self._captured(lane)
        if lane.graph is not None:
            lane.graph.replay()
        else:
            lane.body.enqueue(self._gates)
            lane.ran = True  # what libraries do at their first call cannot be captured

    def _captured(self, lane: _Lane) -> Any:
        """The graph of a lane; None, and never tried again, where it cannot be had."""
        graph = self._cuda.CUDAGraph()
        try:
            # Other threads may use the device meanwhile.
            with self._cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                lane.body.enqueue(self._gates)
        except (RuntimeError, BackendUnavailable) as error:
            self._uses_graphs = False
            log.warning("no CUDA graphs, each step is launched by itself: %s", error)
            return None
        return graph

    def _gates(self, planes: Tensor) -> Tensor:
        """Planes f32 [B, 12, rows, columns] to gates f32 [B, 3, rows, columns]."""
        return self._network.on_device({RENDERER_INPUT: planes})[RENDERER_OUTPUT]


def load(network: DeviceNetwork, crop_shape: tuple[int, int]) -> DeviceStage:
    """The stage on the first CUDA device, round a network that is there.

    Our kernels run the steps where pycuda loads them, and torch where it does not. Backend "torch"
    is torch throughout. Raises: BackendUnavailable for backend "cuda" without pycuda.
    """
    cuda = torch.cuda
    if network.name != "torch":
        try:
            kernels = loader.load()
        except BackendUnavailable as error:
            if network.name == "cuda":
                raise
            log.info("torch runs the steps round the network: %s", error)
        else:
            stream = kernels.stream()
            body = partial(KernelBody, kernels, stream)
            theirs = cuda.ExternalStream(stream.handle)
            return DeviceStage(network, body, crop_shape, "cuda", cuda, theirs)
    return DeviceStage(network, TorchBody, crop_shape, "cuda", cuda, cuda.Stream())
