"""The stage as the engine builds it, on the card under test: the one place that knows how."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from lipstream.bench.gpu.torch_card import TorchCard
from lipstream.engine.networks.registry import build_from_code, shipped
from lipstream.engine.networks.signatures import RENDERER_INPUT, RENDERER_OUTPUT
from lipstream.engine.networks.stage import StageExecutor, StageRow
from lipstream.engine.networks.stage_cpu import CpuStage
from lipstream.engine.networks.stage_device import DeviceStage
from lipstream.engine.networks.stage_kernels import KernelBody
from lipstream.engine.networks.stage_torch import TorchBody
from lipstream.kernels.cuda.stage import Row, Stage


def network(device: str, precision: str) -> Any:
    """The renderer's network in torch."""
    made: Any = build_from_code("torch", shipped("renderer"))
    made.move(device, precision)
    return made


def twin(crop: tuple[int, int]) -> StageExecutor:
    """The CPU's renderer, in f32."""
    return CpuStage(network("cpu", "f32"), crop)


def executors(on: TorchCard, precision: str, crop: tuple[int, int]) -> dict[str, StageExecutor]:
    """The stage from and to the host, as the pipeline calls it: by our kernels, and by torch."""
    net = network(on.device, precision)
    cuda = None if on.card.on_host else torch.cuda
    body = partial(KernelBody, on.card.kernels, on.card.stream)
    return {
        "kernels": DeviceStage(net, body, crop, on.device, cuda, on.stream),
        "torch": DeviceStage(net, TorchBody, crop, on.device, cuda, on.stream),
    }


class Resident:
    """The stage over pictures that lie on the card already; a graph for each size of batch."""

    def __init__(self, on: TorchCard, precision: str, crop: tuple[int, int], most: int) -> None:
        self._on, self._net = on, network(on.device, precision)
        self._stage = Stage(on.card.kernels, on, crop, most)
        self._graphs: dict[int, Any] = {}

    def run(self, rows: Sequence[Row], batch: int) -> list[Any]:
        """Enqueue one batch; for each row, why it was refused, or None."""
        stream = self._on.card.stream
        if batch not in self._graphs:
            self._stage.upload([], batch, stream)  # what warms up shall refine nothing
            self._graphs[batch] = self._on.captured(
                lambda: self._stage.launch(self._gates, batch, stream)
            )
        refused = self._stage.upload(rows, batch, stream)
        self._graphs[batch]()
        return refused

    def _gates(self, planes: Any, gates: Any, batch: int) -> None:
        found = self._net.on_device({RENDERER_INPUT: planes.tensor[:batch]})
        gates.tensor[:batch].copy_(found[RENDERER_OUTPUT])


class Session:
    """One conversation with memory of its own on the card."""

    def __init__(self, on: TorchCard, drawn: StageRow, crop: tuple[int, int]) -> None:
        self.drawn, self._on = drawn, on
        self._picture, self._maps = on.put(drawn.painted), on.put(drawn.conditioning)
        self._prior = None if drawn.prior is None else on.put(drawn.prior)
        self._crops = [on.empty((*crop, 3), np.uint8) for _ in range(2)]
        self._frames = 0

    def row(self) -> Row:
        """Of the next frame, which sees the crop of the one before."""
        now, before = self._crops[self._frames % 2], self._crops[(self._frames + 1) % 2]
        previous = before if self._frames else None
        self._frames += 1
        return Row(
            self._picture, self._maps, self._prior, previous, now, self.drawn.place,
            self.drawn.confidence, self.drawn.sharpen,
        )  # fmt: skip

    def repaint(self) -> None:
        """The picture as it was painted: the stage refines in place."""
        self._on.upload(self.drawn.painted, self._picture, self._on.card.stream)

    def read(self) -> tuple[Any, Any]:
        """Picture, and crop of the last frame, as the stage left them."""
        now = self._crops[(self._frames + 1) % 2]
        return self._on.read(self._picture), self._on.read(now)
