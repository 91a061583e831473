"""The renderer's stage whole on the card: right, quick, and with memory that does not grow."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from lipstream.bench.gpu.card import Card
from lipstream.bench.gpu.sizes import Sizes
from lipstream.bench.gpu.stages import Resident, Session, executors, twin
from lipstream.bench.gpu.torch_card import TorchCard
from lipstream.engine.errors import UsageError
from lipstream.engine.networks.stage import MOST_ROWS, Refined, StageExecutor, StageRow

PRECISION: Final = "f16"  # which the backends take on a card
_COMPARED_ROWS: Final = 7  # of a batch of 8
_FRAMES: Final = 3  # the second runs as a graph is captured, the third by the graph
_FRAMES_OF_SESSION: Final = 2
_MOST_APART, _MEAN_APART = 1, 1e-3  # levels
_WARM_UPS: Final = 5

Run = Callable[[Sequence[StageRow]], list[Refined | UsageError]]
Frames = list[list[Any]]


def draw(random: np.random.Generator, crop: tuple[int, int]) -> StageRow:
    """A row of random size and content, and no frame before it."""
    sides = [int(side) for side in random.integers(crop[0] * 3 // 4, crop[1] * 5 // 4, 2)]
    painted, maps = (_picture(random, *sides) for _ in range(2))
    maps[..., 0][random.random(maps.shape[:2]) < 0.3] = 0
    maps[..., 2][: len(maps) // 2] = 0
    prior = _picture(random, crop[0] // 2, crop[1] // 2) if random.random() < 0.7 else None
    left, top, step = (float(x) for x in random.uniform((-5, -5, 0.6), (5, 5, 1.4)))
    confidence, sharpen = (float(x) for x in random.uniform(0, 1, 2))
    return StageRow(painted, maps, prior, None, (left, top, step), confidence, sharpen)


def _picture(random: np.random.Generator, rows: int, columns: int) -> Any:
    coarse = random.integers(0, 256, (-(-rows // 8), -(-columns // 8), 3))
    near = np.kron(coarse, np.ones((8, 8, 1)))[:rows, :columns]
    return np.clip(near + random.integers(-9, 10, near.shape), 0, 255).astype(np.uint8)


def measure(card: Card, sizes: Sizes, seed: int) -> dict[str, Any]:
    """The stage against the CPU's renderer, and its speed by rows.

    "rows" is the stage over pictures that lie on the card, to its end; "from_the_host" is the same
    with copies there and back, as the pipeline calls it.
    """
    on, random = TorchCard(card), np.random.default_rng(seed)
    found: dict[str, Any] = {"seed": seed, "precision": PRECISION, **_check(on, sizes, random)}
    drawn = [draw(random, sizes.crop) for _ in range(sizes.rows[-1])]
    found["rows"] = _resident_speeds(on, sizes, drawn)
    found["from_the_host"] = {
        name: _executor_speeds(executor, sizes, drawn)
        for name, executor in executors(on, PRECISION, sizes.crop).items()
    }
    return found


def _resident_speeds(
    on: TorchCard, sizes: Sizes, drawn: Sequence[StageRow]
) -> dict[str, dict[str, float]]:
    stage = Resident(on, PRECISION, sizes.crop, sizes.rows[-1])
    sessions = [Session(on, row, sizes.crop) for row in drawn]
    found = {}
    for rows in sizes.rows:
        batch = [session.row() for session in sessions[:rows]]

        def call(batch: Any = batch, rows: int = rows) -> None:
            stage.run(batch, rows)
            on.card.stream.synchronize()

        found[str(rows)] = _speed(call, rows, sizes.calls)
    return found


def _executor_speeds(
    executor: StageExecutor, sizes: Sizes, drawn: Sequence[StageRow]
) -> dict[str, dict[str, float]]:
    found = {}
    for rows in sizes.rows:
        if rows <= MOST_ROWS:
            batch = drawn[:rows]
            calls = max(sizes.calls // 4, 1)
            found[str(rows)] = _speed(lambda batch=batch: executor.run(batch), rows, calls)  # type: ignore[misc]
    return found


def _speed(call: Callable[[], object], rows: int, calls: int) -> dict[str, float]:
    """By the host's clock, of a call and of what it has started."""
    spent = []
    for _ in range(calls + _WARM_UPS):
        begin = time.perf_counter()
        call()
        spent.append((time.perf_counter() - begin) * 1e3)
    warm = np.array(spent[_WARM_UPS:])
    return {
        "p50_ms": float(np.percentile(warm, 50)),
        "p99_ms": float(np.percentile(warm, 99)),
        "rows_s": float(rows * len(warm) / warm.sum() * 1e3),
    }


def _check(on: TorchCard, sizes: Sizes, random: np.random.Generator) -> dict[str, Any]:
    """A few rows in f32 without TF32, frame after frame, within one level of the CPU's."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        drawn = [draw(random, sizes.crop) for _ in range(_COMPARED_ROWS)]
        expected = _frames(twin(sizes.crop).run, drawn)
        compared = {"on the card": _compare(_resident_frames(on, sizes, drawn), expected)}
        depends = {}
        for name, executor in executors(on, "f32", sizes.crop).items():
            got = _frames(executor.run, drawn)
            compared[f"from the host by {name}"] = _compare(got, expected)
            depends[name] = rows_that_depend(executor.run, drawn)
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
    wrong = [
        f"the stage {name}: {row['levels_most']:g} levels from the CPU's ({row['levels_mean']:.3g} "
        f"in the mean); {row['refused']}"
        for name, row in compared.items()
        if row["refused"] or row["levels_most"] > _MOST_APART or row["levels_mean"] > _MEAN_APART
    ]
    wrong += [
        f"the stage from the host by {name}: {count} rows depend on who shares their batch"
        for name, count in depends.items()
        if count
    ]
    return {"compared": compared, "rows_that_depend": depends, "wrong": wrong}


def rows_that_depend(run: Run, drawn: Sequence[StageRow]) -> int:
    """Of rows in two batches of one size, in another order and with another neighbour: how many
    differ in any bit."""
    again = list(reversed(drawn))
    again[0] = replace(again[0], sharpen=1.0, painted=255 - again[0].painted)
    first, second = run(drawn), run(again)
    return sum(
        not (np.array_equal(a.pixels, b.pixels) and np.array_equal(a.crop, b.crop))
        for a, b in zip(first[:-1], reversed(second[1:]), strict=True)
        if isinstance(a, Refined) and isinstance(b, Refined)
    )


def _frames(run: Run, drawn: Sequence[StageRow]) -> Frames:
    """Each frame of each row, the painted patch the same and the crop of the frame before new."""
    frames: Frames = []
    rows = list(drawn)
    for _ in range(_FRAMES):
        made = run(rows)
        frames.append(list(made))
        rows = [
            replace(row, previous=one.crop) if isinstance(one, Refined) else row
            for row, one in zip(rows, made, strict=True)
        ]
    return frames


def _resident_frames(on: TorchCard, sizes: Sizes, drawn: Sequence[StageRow]) -> Frames:
    stage = Resident(on, "f32", sizes.crop, 8)
    sessions = [Session(on, row, sizes.crop) for row in drawn]
    frames: Frames = []
    for _ in range(_FRAMES):
        for session in sessions:
            session.repaint()
        refused = stage.run([session.row() for session in sessions], 8)
        frames.append([
            Refined(*session.read()) if error is None else error
            for session, error in zip(sessions, refused, strict=True)
        ])  # fmt: skip
    return frames


def _compare(got: Frames, expected: Frames) -> dict[str, Any]:
    most, means, refused = 0.0, [], []
    for own, theirs in zip(got, expected, strict=True):
        for one, other in zip(own, theirs, strict=True):
            if not isinstance(one, Refined):
                refused.append(str(one))
                continue
            for a, b in ((one.pixels, other.pixels), (one.crop, other.crop)):
                apart = np.abs(a.astype(int) - b)
                most = max(most, float(apart.max()))
                means.append(float(apart.mean()))
    mean = float(np.mean(means)) if means else 0.0
    return {"levels_most": most, "levels_mean": mean, "refused": "; ".join(refused[:2])}


def sessions(card: Card, sizes: Sizes, seed: int) -> dict[str, Any]:
    """Opens and closes: what is in use after the first tenth, and at the end.

    A session is its pictures on the card, for two frames of the stage.
    """
    on, random = TorchCard(card), np.random.default_rng(seed)
    stage = Resident(on, PRECISION, sizes.crop, sizes.at_once)
    drawn = [draw(random, sizes.crop) for _ in range(sizes.at_once)]
    opened, readings = 0, []
    while opened < sizes.sessions:
        count = min(sizes.at_once, sizes.sessions - opened)
        calls = [Session(on, row, sizes.crop) for row in drawn[:count]]
        for _ in range(_FRAMES_OF_SESSION):
            stage.run([call.row() for call in calls], sizes.at_once)
        card.stream.synchronize()
        del calls
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
    statm = Path("/proc/self/statm")
    if statm.is_file():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
