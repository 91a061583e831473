"""Rows, networks and executors for tests of the renderer's stage; all of it runs on the CPU."""

# ruff: noqa: E402  # torch first, or skip
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'lipstream[torch]'")

from lipstream.engine.errors import UsageError
from lipstream.engine.networks.signatures import RENDERER_INPUT, RENDERER_OUTPUT
from lipstream.engine.networks.stage import Refined, StageRow
from lipstream.engine.networks.stage_arena import Arena
from lipstream.engine.networks.stage_device import DeviceStage
from lipstream.engine.networks.stage_kernels import KernelBody
from lipstream.engine.networks.stage_torch import TorchBody
from lipstream.engine.types import F32, U8
from lipstream.kernels.cuda import loader
from tests.kernels.test_gpu import gates_of

SHAPE = (40, 48)
BODIES = ("torch", "kernels")


class PixelNetwork:
    """Answers each pixel by itself, and is no number where a plane is above 0.99."""

    name, device, precision = "pixels", "cpu", "f32"

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        return {RENDERER_OUTPUT: gates_of(inputs[RENDERER_INPUT])}

    def on_device(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {RENDERER_OUTPUT: torch.from_numpy(gates_of(inputs[RENDERER_INPUT].numpy()))}


class Conversation:
    """Rows of random pictures; the crop of one goes into the next."""

    def __init__(self, random: np.random.Generator, shape: tuple[int, int] = SHAPE) -> None:
        self.random, self.shape = random, shape
        self.size = tuple(int(side) for side in random.integers(12, 110, 2))
        self.previous: U8 | None = None

    def picture(self, rows: int, columns: int) -> U8:
        coarse = self.random.integers(0, 256, (-(-rows // 8), -(-columns // 8), 3))
        near = np.kron(coarse, np.ones((8, 8, 1)))[:rows, :columns]
        return np.clip(near + self.random.integers(-9, 10, near.shape), 0, 255).astype(np.uint8)

    def row(self) -> StageRow:
        random, (height, width) = self.random, self.size
        maps = self.picture(height, width)
        maps[..., 0][random.random((height, width)) < 0.3] = 0
        maps[..., 2][: height // 2] = 0
        prior = self.picture(*random.integers(8, 60, 2)) if random.random() < 0.6 else None
        left, top = (float(value) for value in random.uniform(-20, 20, 2))
        place = (left, top, float(random.uniform(0.3, 2.0)))
        confidence, sharpen = (float(value) for value in random.uniform(0, 1, 2))
        return StageRow(
            self.picture(height, width), maps, prior, self.previous, place, confidence, sharpen
        )


def executor(body: str, network: Any = None, shape: tuple[int, int] = SHAPE) -> DeviceStage:
    """One with one of `BODIES` round a network; "kernels" needs the fixture `driver`."""
    made: Any = TorchBody
    if body == "kernels":
        made = partial(KernelBody, loader.load(), "a stream")
    return DeviceStage(network or PixelNetwork(), poisoned(made), shape)


def poisoned(body: Any) -> Any:
    """Arenas full of what must not be read: of an earlier batch, or of nobody."""

    def make(arena: Arena) -> Any:
        for tensor in arena.on_device.values():
            tensor.fill_(0xCD)
        return body(arena)

    return make


def refined(found: Refined | UsageError) -> Refined:
    assert isinstance(found, Refined), found
    return found


def compare(got: Refined | UsageError, wanted: Refined | UsageError) -> None:
    got, wanted = refined(got), refined(wanted)
    for ours, theirs in ((got.pixels, wanted.pixels), (got.crop, wanted.crop)):
        assert ours.dtype == np.uint8 and ours.shape == theirs.shape
        apart = np.abs(ours.astype(int) - theirs)
        assert apart.max() <= 1 and apart.mean() < 0.001


def spoiled(random: np.random.Generator, row: StageRow) -> StageRow:
    """A row with one of the faults that there are."""
    small = np.zeros((3, 5, 3), np.uint8)
    nan, inf = float("nan"), float("inf")
    changes: list[dict[str, Any]] = [
        {"place": (nan, 0.0, 1.0)},
        {"place": (0.0, inf, 1.0)},
        {"place": (0.0, 0.0, 0.0)},
        {"place": (0.0, 0.0, -1.0)},
        {"place": (0.0, 0.0, 1e-44)},  # 1 / step is no number of f32
        {"place": (0.0, 1.0)},
        {"confidence": nan},
        {"sharpen": -inf},
        {"conditioning": small},
        {"previous": small},
        {"painted": None},
        {"painted": np.zeros((0, 5, 3), np.uint8)},
        {"prior": np.zeros((4, 0, 3), np.uint8)},
        {"prior": np.zeros((4, 4), np.uint8)},
        {"painted": np.zeros(row.painted.shape, np.float32)},
    ]
    return replace(row, **changes[random.integers(len(changes))])
