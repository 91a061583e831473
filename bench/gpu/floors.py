"""The fewest bytes and multiply-adds of each kernel and network, and the time they need.

    python -m lipstream.bench.gpu.floors    the tables of docs/gpu.md

Each array is read once and written once; the bytes follow from the arrays of a launch, the
multiply-adds of a network from its weights. A kernel's multiply-adds are those of its twin: sums
over 5 x 5 are taken along one axis and then along the other.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from lipstream.bench.gpu.cases import KERNELS, Case, Pictures, make_case
from lipstream.engine.networks.base import Model
from lipstream.engine.networks.registry import shipped
from lipstream.engine.networks.signatures import (
    BLOCKS,
    CHANNELS,
    CROP_SHAPE,
    TOKEN_WIDTH,
    TOKENS_KEPT,
    encoder_shapes,
)


@dataclass(frozen=True, slots=True)
class Work:
    """Of one launch or one call."""

    multiply_adds: float
    moved_bytes: float

    def floor_us(self, memory_gb_s: float, tera_ops: float) -> float:
        """The longer of its two times; a multiply-add is two operations."""
        return max(self.moved_bytes / memory_gb_s / 1e3, 2 * self.multiply_adds / tera_ops / 1e6)


@dataclass(frozen=True, slots=True)
class CardSpec:
    """Rates that a vendor states."""

    name: str
    memory_gb_s: float
    bf16_tera_ops: float  # dense
    f32_tera_ops: float
    source: str


CARDS: Final = (
    CardSpec("H100 SXM", 3350, 989, 67, "NVIDIA H100 Tensor Core GPU data sheet"),
    CardSpec("GeForce RTX 4090", 1008, 165, 82.6, "NVIDIA Ada GPU Architecture, appendix A"),
)

_SAMPLED_ROWS: Final = 4  # whose work stands for that of others
# Multiply-adds of a twin, of one pixel of the crop (of the picture, for the paste).
_SAMPLE: Final = 6  # bilinear, of one channel: three mixes of two
_MEAN: Final = 5 + 5 + 1  # of 5 x 5, along one axis and the other, and the division
_ALTERNATION: Final = 3 + 2
_BLEND: Final = 2
_MULTIPLY_ADDS: Final = {
    "crop": 4 + 12 * _SAMPLE + 3 * _BLEND + 12 + 3 + 2 * 3,
    "near_gap": 0,  # comparisons
    "mean_once": 6 * _MEAN + 3,
    "gates": 6 * _MEAN + 9 + 3 * 2 + 3 * 5,
    "grid_along": 3 * _ALTERNATION,
    "grid_across": 3 * _ALTERNATION + 3,
    "sharpen": 3 * (_MEAN + 2 * 3) + 9 + 3 * 4,
    "paste": 4 + 3 * _SAMPLE + 3 * 2,
}


def kernel_work(case: Case) -> Work:
    """Of one launch: its arrays, each once; of a picture only what the kernel touches."""
    moved = 0.0 if case.table is None else case.table.nbytes
    for name, values in case.reads.items():
        moved += _touched(case, name, values.nbytes)
    for name, expected in case.writes.items():
        moved += _touched(case, name, expected.values.nbytes)
    kernel = case.kernel.removeprefix("ls_gpu_")
    pixels = case.batch * math.prod(case.pixels)
    if kernel == "paste":
        assert case.table is not None
        pixels = int((case.table["height"] * case.table["width"]).sum())
    return Work(float(_MULTIPLY_ADDS[kernel] * pixels), float(moved))


def _touched(case: Case, name: str, size: int) -> float:
    """Bytes of an array that one launch needs. Channels of one pixel lie together: all are read."""
    if case.kernel == "ls_gpu_crop" and name in ("pictures", "maps", "priors"):
        # As many pixels as the crop covers, at most those that are there.
        return min(size, case.batch * math.prod(case.pixels) * 3)
    if name == "planes" and name in case.reads:
        return size * 6 / CHANNELS  # painted crop and prior
    return size


def renderer_work(
    batch: int, number_bytes: int, crop: tuple[int, int] = CROP_SHAPE, model: Model | None = None
) -> Work:
    """The renderer's network: planes and gates f32, weights of `number_bytes` each.

    What lies between the layers is not counted: it can stay in the card's cache.
    """
    area, macs, weights = crop[0] * crop[1], 0.0, 0
    for name, shape in _shapes(model or shipped("renderer")).items():
        weights += math.prod(shape)
        if name.endswith(".weight"):
            macs += math.prod(shape) * area / _SCALES[name.split(".")[0]] ** 2
    moved = number_bytes * weights + batch * 4 * area * (CHANNELS + 3)
    return Work(batch * macs, float(moved))


# What part of the crop's sides a convolution's output has.
_SCALES: Final = {
    "enter": 2, "down1": 4, "down2": 8, "coarse": 8, "up1": 8, "middle": 4, "up2": 4, "fine": 2,
    "leave": 2,
}  # fmt: skip


def encoder_work(batch: int, number_bytes: int, model: Model | None = None) -> Work:
    """One step of the encoder: its states f32 in and out."""
    shapes = _shapes(model or shipped("encoder"))
    weights = [shape for name, shape in shapes.items() if not name.startswith("file.")]
    matrices = [
        shape
        for name, shape in shapes.items()
        if len(shape) == 2 and not name.startswith("file.") and "weight" in name
    ]
    # The first layer sees two frames, with one set of weights.
    macs = sum(map(math.prod, matrices)) + math.prod(shapes["conv1.weight"])
    macs += 2 * BLOCKS * TOKEN_WIDTH * (TOKENS_KEPT + 1)  # scores, and values by them
    states = sum(map(math.prod, encoder_shapes(shapes["head_gru.weight_hh_l0"][1]).values()))
    moved = number_bytes * sum(map(math.prod, weights)) + batch * 4 * 2 * states
    return Work(float(batch * macs), float(moved))


def _shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """Of every tensor in a model's file, by name."""
    from safetensors import safe_open

    with safe_open(str(model.safetensors), "np") as stored:
        return {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118


def stage_works(batch: int, crop: tuple[int, int] = CROP_SHAPE) -> dict[str, Work]:
    """Every kernel and the network (f16), in order; of pictures of half to 5/4 of the crop."""
    pictures = Pictures(np.random.default_rng(0), _SAMPLED_ROWS, crop, faulty=False)
    share = batch / _SAMPLED_ROWS
    works = {}
    for kernel in KERNELS:
        sampled = kernel_work(make_case(kernel, pictures))
        works[kernel] = Work(sampled.multiply_adds * share, sampled.moved_bytes * share)
    ahead = {kernel: works.pop(kernel) for kernel in ("crop", "near_gap")}
    return {**ahead, "network": renderer_work(batch, 2, crop), **works}


def floors_us(works: Mapping[str, Work], card: CardSpec) -> dict[str, float]:
    """The floor of each; a network's products run in bf16 or f16, a kernel's in f32."""
    return {
        name: work.floor_us(
            card.memory_gb_s, card.bf16_tera_ops if name == "network" else card.f32_tera_ops
        )
        for name, work in works.items()
    }


def tables() -> str:
    """The tables of docs/gpu.md, in Markdown."""
    batch = 64
    works = stage_works(batch)
    floors = [floors_us(works, card) for card in CARDS]
    names = " | ".join(f"floor on {card.name}, µs" for card in CARDS)
    lines = [f"| step | multiply-adds, million | MB | {names} |", "|---|---|---|" + "---|" * 2]

    def line(name: str, work: Work, times: list[float]) -> str:
        cells = " | ".join(f"{time:.1f}" for time in times)
        macs = f"{work.multiply_adds / 1e6:,.0f}".replace(",", " ")
        return f"| {name} | {macs} | {work.moved_bytes / 1e6:.1f} | {cells} |"

    for name, work in works.items():
        lines.append(line(name, work, [floor[name] for floor in floors]))
    whole = Work(
        sum(work.multiply_adds for work in works.values()),
        sum(work.moved_bytes for work in works.values()),
    )
    lines.append(line("all", whole, [sum(floor.values()) for floor in floors]))
    for rows in (1, batch):
        work = encoder_work(rows, 2)
        times = [work.floor_us(card.memory_gb_s, card.bf16_tera_ops) for card in CARDS]
        lines.append(line(f"encoder, {rows} row{'s' * (rows > 1)}", work, times))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(tables())
