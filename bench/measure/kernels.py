"""Compiled kernels against their NumPy twins, in one run, at the sizes that the engine uses."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from lipstream.kernels import color, composite, mesh, viterbi
from lipstream.kernels.dispatch import Kernel

SIDE_PX = 512
STATES, SLOTS = 15_000, 20
MOUTH_PX = (160, 200)


def kernel_timings(rounds: int = 15) -> dict[str, dict[str, float]]:
    """{kernel: {compiled_ms, numpy_ms, ratio}}: median CPU time, one thread, rounds alternating."""
    random = np.random.default_rng(0)
    rgb = random.integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    other = random.integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    i420 = random.integers(16, 236, (SIDE_PX * 3 // 2, SIDE_PX), dtype=np.uint8)
    alpha = random.integers(0, 256, (SIDE_PX, SIDE_PX), dtype=np.uint8)
    alpha_f32 = (alpha / 255).astype(np.float32)
    score, emission = random.random((2, STATES), dtype=np.float32)
    predecessors = random.integers(0, STATES, (STATES, SLOTS), dtype=np.int32)
    cost = random.random((STATES, SLOTS), dtype=np.float32)
    features = random.random((20, STATES), dtype=np.float32)
    wanted = random.random(20, dtype=np.float32)
    source_xy, target_xy, triangles = _grid_mesh(random)

    patch = (source_xy, target_xy, triangles, MOUTH_PX, (0, 0))
    runs: dict[str, tuple[Kernel[..., Any], tuple[Any, ...]]] = {
        "i420_to_rgb 512x512": (color.region_to_rgb, (i420, 0, 0, SIDE_PX, SIDE_PX)),
        "rgb_to_i420 512x512": (color.region_into_i420, (rgb, i420, 0, 0, None)),
        "rgb_to_i420 masked 512x512": (color.region_into_i420, (rgb, i420, 0, 0, alpha)),
        "min_plus 15000x20": (viterbi.relax, (score, predecessors, cost, emission)),
        "feature_distance 15000x20": (viterbi.distance, (features, wanted, emission)),
        "warp_mesh 800 triangles 200x160": (mesh.warp, (rgb, *patch)),
        "blend u8 512x512": (composite.layer_over, (rgb, other, alpha)),
        "blend f32 512x512": (composite.layer_over, (rgb, other, alpha_f32)),
    }
    return {
        name: _alternate(partial(kernel.native, *given), partial(kernel.reference, *given), rounds)
        for name, (kernel, given) in runs.items()
    }


def _grid_mesh(random: np.random.Generator) -> tuple[Any, Any, Any]:
    """800 triangles over the mouth region, moved by up to 2 px: f32 [V, 2] twice, i32 [T, 3]."""
    h, w = MOUTH_PX
    x, y = np.meshgrid(np.linspace(0, w, 21), np.linspace(0, h, 21))
    source = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
    target = source + random.uniform(-2, 2, source.shape).astype(np.float32)
    corner = (np.arange(20)[:, None] * 21 + np.arange(20)).ravel()
    upper = np.stack([corner, corner + 1, corner + 21], axis=1)
    lower = np.stack([corner + 1, corner + 22, corner + 21], axis=1)
    return source, target, np.concatenate([upper, lower]).astype(np.int32)


def _alternate(
    first: Callable[[], object], second: Callable[[], object], rounds: int
) -> dict[str, float]:
    """Rounds of 8 and 2 runs, each after one to warm up, since the twins release their memory."""
    spent: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for times, run, runs in zip(spent, (first, second), (8, 2), strict=True):
            run()
            for _ in range(runs):
                begin = time.thread_time()  # not affected by other load on the machine
                run()
                times.append((time.thread_time() - begin) * 1000)
    fast, slow = (float(np.median(times)) for times in spent)
    return {"compiled_ms": fast, "numpy_ms": slow, "ratio": slow / fast}


def kernels_text(report: dict[str, Any]) -> str:
    """The figures as lines for people."""
    return "\n".join(
        f"{name:<32} {row['compiled_ms']:8.3f} ms  {row['ratio']:6.1f}x NumPy"
        for name, row in report["kernels"].items()
    )
