"""Throughput: frames per second, encoding included, without a clock.

Chunk after chunk is pushed into sessions of one engine. The rate is measured over the number of
threads, processes and cores, and for one session over picture size and track length.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from lipstream.bench.bench_target import Encoding, bench_target, lengthened, resized, voice
from lipstream.bench.machine import Load, ceilings, on_cores
from lipstream.bench.measure.latency import WARM_UP_S, Report, Setting
from lipstream.bench.measure.roofline import whole_ms
from lipstream.engine.pipeline import Engine
from lipstream.engine.types import SAMPLE_RATE_HZ, STEP_SAMPLES

SIZES_PX: Final = (256, 512, 720, 1080)
TRACKS: Final = (500, 1500, 5000, 15_000)


def measure_throughput(
    path: Path | None, setting: Setting, cores: int, seconds: float = 5.0,
    report: Report | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Frames per second by sessions, processes, cores, picture size and track length.

    Returns: backend, renderer, profile, size, ceilings; rows: list of by ("sessions", "processes",
    "cores", "size", "track"), value, fps (sum over workers), per_worker (list), roofline_fps (upper
    bound for the cores in use), others_cores, samples_ms (per frame, of all workers).
    """
    rows: list[dict[str, Any]] = []
    best = ceilings()
    counts = _doubling(cores)
    steps = 2 * len(counts) + cores + len(SIZES_PX) + len(TRACKS)

    def add(
        by: str, value: int, engine: Engine, used: int, run: Callable[[], list[list[float]]]
    ) -> None:
        if report is not None:
            report(f"{by} {value}", len(rows) / steps)
        load = Load()
        each = run()
        rates = [1000 / float(np.mean(worker)) for worker in each]
        rows.append(
            {
                "by": by,
                "value": value,
                "fps": round(sum(rates), 2),
                "per_worker": [round(x, 2) for x in rates],
                "roofline_fps": round(used * 1000 / whole_ms(engine, best), 1),
                "others_cores": load.others(),
                "samples_ms": [round(x, 4) for worker in each for x in worker],
            }
        )

    with bench_target(path) as target, tempfile.TemporaryDirectory() as folder:
        engine = setting.engine(target)
        for count in counts:
            add(
                "sessions",
                count,
                engine,
                min(count, cores),
                partial(_threads, engine, count, seconds),
            )
        for count in counts:
            add(
                "processes",
                count,
                engine,
                min(count, cores),
                partial(_processes, target.folder, setting, count, seconds),
            )
        for count in range(1, cores + 1):
            with on_cores(count):
                pinned = setting.engine(target)
                add("cores", count, pinned, count, partial(_threads, pinned, 2 * cores, seconds))
        for side in SIZES_PX:
            other = setting.engine(resized(target, side, Path(folder)))
            add("size", side, other, 1, partial(_threads, other, 1, seconds))
        for frames in TRACKS:
            other = setting.engine(lengthened(target, frames))
            add("track", frames, other, 1, partial(_threads, other, 1, seconds))
        return {
            "backend": engine.backend,
            "renderer": engine.renderer is not None,
            "profile": setting.profile,
            "size": [target.width, target.height],
            "ceilings": best,
            "rows": rows,
        }  # fmt: skip


def _doubling(cores: int) -> list[int]:
    """1, 2, 4 … and up to twice the cores, to show the cost of oversubscription."""
    counts = [1]
    while counts[-1] * 2 <= 2 * cores:
        counts.append(counts[-1] * 2)
    return counts


def _threads(engine: Engine, count: int, seconds: float) -> list[list[float]]:
    found: list[list[float]] = []
    barrier = threading.Barrier(count)

    def work() -> None:
        found.append(_frames(engine, seconds, barrier.wait))

    workers = [threading.Thread(target=work) for _ in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if len(found) != count:
        raise RuntimeError(f"{count - len(found)} of {count} threads ended with an error")
    return found


def _processes(folder: Path, setting: Setting, count: int, seconds: float) -> list[list[float]]:
    """Processes are spawned: libraries with threads of their own do not survive a fork."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(count) as pool:
        barrier = manager.Barrier(count)
        return pool.starmap(_process, [(folder, setting, seconds, barrier)] * count, chunksize=1)


def _process(folder: Path, setting: Setting, seconds: float, barrier: Any) -> list[float]:
    with bench_target(folder) as target:
        return _frames(setting.engine(target), seconds, barrier.wait)


def _frames(engine: Engine, seconds: float, wait_for_others: Callable[[], object]) -> list[float]:
    """ms from each frame to the next, of one session over `seconds` after the warm-up."""
    session, encoding = engine.session(), Encoding(engine.target.fps)
    sound = voice(10.0)
    chunks = [sound[k : k + STEP_SAMPLES] for k in range(0, len(sound), STEP_SAMPLES)]
    warm = round(WARM_UP_S * SAMPLE_RATE_HZ / STEP_SAMPLES)
    spent: list[float] = []
    began_s = last_s = 0.0
    number = 0
    while number <= warm or last_s - began_s < seconds:
        if number == warm:
            wait_for_others()
            began_s = last_s = time.perf_counter()
            spent = []
        for frame in session.push(chunks[number % len(chunks)]):
            encoding.encode(frame)
            now_s = time.perf_counter()
            spent.append((now_s - last_s) * 1000)
            last_s = now_s
        number += 1
    return spent


def throughput_text(report: dict[str, Any]) -> str:
    """The figures as lines for people."""
    return "\n".join(
        f"{row['by']:<10} {row['value']:>6}  {row['fps']:8.1f} fps, roofline "
        f"{row['roofline_fps']:.0f}"
        for row in report["rows"]
    )
