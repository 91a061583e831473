"""The renderer's stage whole on the card: right, quick, and with memory that does not grow."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from lipstream.bench.gpu.card import Card
from lipstream.bench.gpu.sizes import Sizes
from lipstream.bench.gpu.torch_card import PRECISIONS, TorchCard
from lipstream.engine.networks import renderer_torch
from lipstream.engine.networks.registry import shipped
from lipstream.engine.rendering.refiner import residual
from lipstream.kernels.crop import crop_in, crop_out
from lipstream.kernels.cuda.stage import Row, Stage

_COMPARED_ROWS: Final = 7
_FRAMES_OF_SESSION: Final = 2
_MOST_APART, _MEAN_APART = 1, 1e-3  # levels


class Gating:
    """The renderer's network behind the stage: a graph for each number of rows."""

    def __init__(self, on: TorchCard, precision: str) -> None:
        self._on, self._kind, self._graphs = on, PRECISIONS[precision], dict[int, Any]()
        net = renderer_torch.load_net(shipped("renderer").safetensors)
        self._net = net.to(on.device, self._kind, memory_format=torch.channels_last)

    def __call__(self, planes: Any, gates: Any, batch: int) -> None:
        """Enqueue; the buffers are the same at each call, as a graph needs them."""
        if batch not in self._graphs:
            source, onto = planes.tensor[:batch], gates.tensor[:batch]

            def run() -> None:
                given = source.to(self._kind, memory_format=torch.channels_last)
                onto.copy_(self._net(given))

            self._graphs[batch] = self._on.captured(run)
        self._graphs[batch]()


@dataclass(slots=True)
class Drawn:
    """What a frame of a conversation is made of, on the host."""

    painted: Any  # u8 [h, w, 3]
    maps: Any  # the same
    prior: Any  # u8 [h', w', 3], or None
    place: tuple[float, float, float]
    confidence: float
    sharpen: float


def draw(random: np.random.Generator, crop: tuple[int, int]) -> Drawn:
    """Of random size and content."""
    sides = [int(side) for side in random.integers(crop[0] * 3 // 4, crop[1] * 5 // 4, 2)]
    painted, maps = (_picture(random, *sides) for _ in range(2))
    maps[..., 0][random.random(maps.shape[:2]) < 0.3] = 0
    maps[..., 2][: len(maps) // 2] = 0
    prior = _picture(random, crop[0] // 2, crop[1] // 2) if random.random() < 0.7 else None
    left, top, step = random.uniform((-5, -5, 0.6), (5, 5, 1.4))
    confidence, sharpen = random.uniform(0, 1, 2)
    place = (float(left), float(top), float(step))
    return Drawn(painted, maps, prior, place, float(confidence), float(sharpen))


class Session:
    """One conversation, with memory of its own on the card."""

    def __init__(self, on: TorchCard, drawn: Drawn, crop: tuple[int, int]) -> None:
        self.drawn, self._on = drawn, on
        self._picture, self._maps = on.put(drawn.painted), on.put(drawn.maps)
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

    def read(self, row: Row) -> tuple[Any, Any]:
        """Picture and crop as the stage left them."""
        picture: Any = row.picture
        refined: Any = row.refined
        return self._on.read(picture), self._on.read(refined)


def _picture(random: np.random.Generator, rows: int, columns: int) -> Any:
    coarse = random.integers(0, 256, (-(-rows // 8), -(-columns // 8), 3))
    near = np.kron(coarse, np.ones((8, 8, 1)))[:rows, :columns]
    return np.clip(near + random.integers(-9, 10, near.shape), 0, 255).astype(np.uint8)


def measure(card: Card, sizes: Sizes, seed: int) -> dict[str, Any]:
    """The stage against the CPU's renderer, and its speed by rows: {"rows": {n: …}, "wrong": …}."""
    on, random = TorchCard(card), np.random.default_rng(seed)
    found: dict[str, Any] = {"seed": seed, **_check(on, sizes, random)}
    half = "bf16"  # which every card that our kernels are compiled for has
    stage, gating = Stage(card.kernels, on, sizes.crop, sizes.rows[-1]), Gating(on, half)
    sessions = [Session(on, draw(random, sizes.crop), sizes.crop) for _ in range(sizes.rows[-1])]
    found["precision"], found["rows"] = half, {}
    for rows in sizes.rows:
        batch = [session.row() for session in sessions[:rows]]
        spent = []
        for _ in range(sizes.calls + 5):
            begin = time.perf_counter()
            stage.run(batch, gating, rows, card.stream)
            card.stream.synchronize()
            spent.append((time.perf_counter() - begin) * 1e3)
        warm = np.array(spent[5:])
        found["rows"][str(rows)] = {
            "p50_ms": float(np.percentile(warm, 50)),
            "p99_ms": float(np.percentile(warm, 99)),
            "rows_s": float(rows * len(warm) / warm.sum() * 1e3),
        }
    return found


def _check(on: TorchCard, sizes: Sizes, random: np.random.Generator) -> dict[str, Any]:
    """A few rows in f32 without TF32, frame after frame, within one level of the CPU's."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        return _compare(on, sizes, random)
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def _compare(on: TorchCard, sizes: Sizes, random: np.random.Generator) -> dict[str, Any]:
    net = renderer_torch.load_net(shipped("renderer").safetensors)
    stage, gating = Stage(on.card.kernels, on, sizes.crop, 8), Gating(on, "f32")
    sessions = [Session(on, draw(random, sizes.crop), sizes.crop) for _ in range(_COMPARED_ROWS)]
    previous: list[Any] = [None] * len(sessions)
    most, mean, wrong = 0, 0.0, []
    for _ in range(_FRAMES_OF_SESSION):
        rows = [session.row() for session in sessions]
        refused = stage.run(rows, gating, 8, on.card.stream)
        wrong += [f"a row was refused: {error}" for error in refused if error is not None]
        for k, session in enumerate(sessions):
            picture, previous[k] = _on_the_cpu(net, session.drawn, previous[k], sizes.crop)
            got, refined = session.read(rows[k])
            for one, other in ((got, picture), (refined, previous[k])):
                apart = np.abs(one.astype(int) - other)
                most, mean = max(most, int(apart.max())), max(mean, float(apart.mean()))
    if most > _MOST_APART or mean > _MEAN_APART:
        wrong.append(f"the stage is {most} levels from the CPU's renderer ({mean:.3g} in the mean)")
    return {"levels_most": most, "levels_mean": mean, "wrong": wrong}


def _on_the_cpu(net: Any, drawn: Drawn, previous: Any, shape: tuple[int, int]) -> Any:
    """What the renderer makes of the next frame: picture and crop."""
    # In place: the next frame starts from here, as on the card.
    painted, maps, prior = drawn.painted, drawn.maps, drawn.prior
    crop, planes = crop_in(painted, maps, prior, previous, drawn.place, shape, drawn.confidence)
    with torch.inference_mode():
        gates = net(torch.from_numpy(planes[None]))[0].numpy()
    difference = residual(gates, planes, crop, drawn.sharpen, has_prior=prior is not None)
    return painted, crop_out(difference, crop, painted, maps, drawn.place)


def sessions(card: Card, sizes: Sizes, seed: int) -> dict[str, Any]:
    """Opens and closes: what is in use after the first tenth, and at the end.

    A session is its pictures and its rows of the stage, for two frames.
    """
    on, random = TorchCard(card), np.random.default_rng(seed)
    stage = Stage(card.kernels, on, sizes.crop, sizes.at_once)
    gating = Gating(on, "bf16")
    drawn = [draw(random, sizes.crop) for _ in range(sizes.at_once)]
    opened, readings = 0, []
    while opened < sizes.sessions:
        count = min(sizes.at_once, sizes.sessions - opened)
        calls = [Session(on, drawn[k], sizes.crop) for k in range(count)]
        for _ in range(_FRAMES_OF_SESSION):
            rows = [call.row() for call in calls]
            stage.run(rows, gating, sizes.at_once, card.stream)
        card.stream.synchronize()
        del calls, rows
        opened += count
        readings.append((opened, card.used_bytes(), on.reserved_bytes(), _own_bytes()))
    first, last = readings[max(len(readings) // 10, 1) - 1], readings[-1]
    return {
        "opened": opened,
        "card_bytes_grown": last[1] - first[1],
        "torch_bytes_grown": last[2] - first[2],
        "host_bytes_grown": last[3] - first[3],
        "readings": readings[:: max(len(readings) // 10, 1)],
    }


def _own_bytes() -> int:
    """Resident memory of this process; its peak where the system does not tell."""
    if sys.platform == "linux":
        with open("/proc/self/statm") as source:
            return int(source.read().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
