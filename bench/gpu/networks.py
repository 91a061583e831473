"""Both networks in torch on the card, in three precisions, as graphs: speed and error."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from lipstream.bench.gpu.card import Card
from lipstream.bench.gpu.floors import encoder_work, renderer_work
from lipstream.bench.gpu.sizes import Sizes
from lipstream.bench.gpu.torch_card import PRECISIONS, TorchCard
from lipstream.engine.networks import encoder_torch, renderer_torch
from lipstream.engine.networks.registry import shipped
from lipstream.engine.networks.signatures import CHANNELS, encoder_shapes

_COMPARED_ROWS: Final = 4
# Of the renderer, levels: f32 has TF32 products; the mean of a half precision tells a broken
# network, a single pixel does not. Of the encoder, ‖out - reference‖ / ‖reference‖.
_MOST_MEAN_LEVELS: Final = {"f32": 0.05, "f16": 0.25, "bf16": 1.0}
_MOST_RELATIVE: Final = {"f32": 1e-2, "f16": 2e-2, "bf16": 1e-1}


def measure(card: Card, sizes: Sizes, seed: int, copy_gb_s: float) -> dict[str, Any]:
    """{"renderer": {precision: …}, "encoder": {…}, "wrong": […]}."""
    on, random = TorchCard(card), np.random.default_rng(seed)
    found: dict[str, Any] = {"seed": seed, "wrong": []}
    for name, one in (("renderer", _renderer), ("encoder", _encoder)):
        found[name] = {}
        for precision in PRECISIONS:
            row = found[name][precision] = one(on, sizes, random, precision)
            for rows in sizes.rows:
                work = _work(name, rows, precision, sizes)
                row[f"floor_ms_{rows}"] = work.moved_bytes / copy_gb_s / 1e6
            if not row["error"] <= row["most_error"]:  # NaN does not pass
                found["wrong"].append(f"{name} in {precision}: {row['error']:.3g} off")
    return found


def _work(name: str, rows: int, precision: str, sizes: Sizes) -> Any:
    size = 4 if precision == "f32" else 2
    return renderer_work(rows, size, sizes.crop) if name == "renderer" else encoder_work(rows, size)


def _time(
    on: TorchCard, sizes: Sizes, make: Callable[[int], Callable[[], object]]
) -> dict[str, float]:
    """Milliseconds of a call of each number of rows, as a graph."""
    found = {}
    for rows in sizes.rows:
        run = on.captured(make(rows))
        found[f"ms_{rows}"] = median(on.card.times_ms([run] * sizes.launches, sizes.rounds))
    return found


def _renderer(
    on: TorchCard, sizes: Sizes, random: np.random.Generator, precision: str
) -> dict[str, Any]:
    kind = PRECISIONS[precision]
    net = renderer_torch.load_net(shipped("renderer").safetensors)
    planes = torch.from_numpy(_planes(random, _COMPARED_ROWS, sizes.crop))
    with torch.inference_mode():
        wanted = renderer_torch.apply_gates(net(planes), planes[:, :3], planes[:, 6:9])
    net = net.to(on.device, kind, memory_format=torch.channels_last)
    with on.on_stream():
        given = planes.to(on.device, kind).contiguous(memory_format=torch.channels_last)
        gates = net(given).float()
    on.card.stream.synchronize()
    with torch.inference_mode():
        got = renderer_torch.apply_gates(gates.cpu(), planes[:, :3], planes[:, 6:9])
    apart = 255 * (got - wanted).abs().double()

    def make(rows: int) -> Callable[[], object]:
        with on.on_stream():
            own = given.repeat(-(-rows // _COMPARED_ROWS), 1, 1, 1)[:rows]
            own = own.contiguous(memory_format=torch.channels_last)
        return lambda: net(own)

    return {
        "error": float(apart.mean()),
        "most_error": _MOST_MEAN_LEVELS[precision],
        "levels_mean": float(apart.mean()),
        "levels_p999": float(apart.flatten().quantile(0.999)) if apart.numel() < 1 << 24 else None,
        "levels_most": float(apart.max()),
        **_time(on, sizes, make),
    }


def _planes(random: np.random.Generator, rows: int, crop: tuple[int, int]) -> Any:
    """Soft pictures with some noise, f32 [rows, CHANNELS, h, w], 0 to 1."""
    coarse = random.random((rows, CHANNELS, crop[0] // 8, crop[1] // 8))
    fine = np.kron(coarse, np.ones((1, 1, 8, 8)))
    return np.clip(fine + random.normal(0, 0.02, fine.shape), 0, 1).astype(np.float32)


def _encoder(
    on: TorchCard, sizes: Sizes, random: np.random.Generator, precision: str
) -> dict[str, Any]:
    kind = PRECISIONS[precision]
    net = encoder_torch.load_net(shipped("encoder").safetensors)
    shapes = encoder_shapes(net.size.head)
    inputs = [
        torch.from_numpy(random.normal(0, 0.5, (_COMPARED_ROWS, *shape)).astype(np.float32))
        for shape in shapes.values()
    ]
    with torch.inference_mode():
        wanted = net.step(*inputs)[:2]
    net = net.to(on.device, kind)
    with on.on_stream():
        got = [out.float() for out in net.step(*(x.to(on.device, kind) for x in inputs))[:2]]
    on.card.stream.synchronize()
    errors = [_relative(a.cpu(), b) for a, b in zip(got, wanted, strict=True)]

    def make(rows: int) -> Callable[[], object]:
        with on.on_stream():
            own = [x.to(on.device, kind)[:1].repeat(rows, *([1] * (x.ndim - 1))) for x in inputs]
        return lambda: net.step(*own)

    return {
        "error": max(errors),
        "most_error": _MOST_RELATIVE[precision],
        "expression_relative": errors[0],
        "speech_relative": errors[1],
        **_time(on, sizes, make),
    }


def _relative(got: Tensor, wanted: Tensor) -> float:
    return float((got.double() - wanted.double()).norm() / wanted.double().norm())
