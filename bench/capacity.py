"""How many conversations a machine holds, and how many frames a second it makes.

Capacity is measured as the server works: threads of one process, each conversation on the clock
(`latency_live.converse`). A number of conversations is held if p99 of the time from complete
sound to encoded picture is inside the frame interval and nothing was skipped. Throughput is the
same engine without a clock: threads of one process, and processes, up to the cores there are.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from lipstream.bench.figures import percentiles
from lipstream.bench.latency import WARM_UP_S, Report, Setting
from lipstream.bench.latency_live import converse, in_time
from lipstream.bench.machine import Load
from lipstream.bench.subject import Encoding, lengthened, resized, subject, voice
from lipstream.engine.pipeline import Engine
from lipstream.engine.target import Target
from lipstream.engine.types import SAMPLE_RATE_HZ, STEP_SAMPLES
from lipstream.streaming.runner import warm_up

SIZES_PX: Final = (256, 512, 720, 1080)
TRACKS: Final = (500, 1500, 5000, 15_000)
_MOST: Final = 64
_PATIENCE: Final = 2  # sizes that fail in a row end the search: one may have been disturbed


def measure_capacity(
    target: Target, setting: Setting, seconds: float = 10.0, most: int = _MOST,
    report: Report | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Held conversations of one setting.

    Returns: sessions (the most that were held), interval_ms, curve: list of sessions, p50, p95,
    p99, max (ms), held, late_frames, slipped_ms, cores (busy with us), others_cores, samples_ms.
    """
    engine = setting.engine(target)
    warm_up(engine)
    interval_ms = float(1000 / target.fps)
    curve: list[dict[str, Any]] = []
    failed = 0
    for count in range(1, most + 1):
        if report is not None:
            report(f"{count} conversations", count / (count + 4))
        load, cpu, wall = Load(), time.process_time(), time.perf_counter()
        done = converse(engine, count, seconds)
        spent = in_time(done)
        figures = percentiles(spent)
        slipped = sum(one.slipped_ms for one in done)
        errors = [one.error for one in done if one.error is not None]
        held = bool(spent) and figures["p99"] <= interval_ms and slipped == 0 and not errors
        curve.append(
            {
                "sessions": count,
                **figures,
                "held": held,
                "late_frames": sum(one.late_frames for one in done),
                "slipped_ms": slipped,
                "cores": round((time.process_time() - cpu) / (time.perf_counter() - wall), 3),
                "others_cores": load.others(),
                "errors": errors,
                "samples_ms": [round(x, 3) for x in spent],
            }
        )
        failed = 0 if held else failed + 1
        if failed == _PATIENCE:
            break
    return {
        "backend": engine.backend,
        "renderer": engine.renderer is not None,
        "profile": setting.profile,
        "size": [target.width, target.height],
        "interval_ms": interval_ms,
        "sessions": max((row["sessions"] for row in curve if row["held"]), default=0),
        "curve": curve,
    }


def measure_throughput(
    path: Path | None, setting: Setting, cores: int, seconds: float = 5.0,
    report: Report | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Frames a second, encoding and all: by workers, by frame size, by length of track.

    Returns: list of by ("threads", "processes", "size" or "track"), value, fps (of all workers
    together), per_worker (list), others_cores.
    """
    rows: list[dict[str, Any]] = []

    def add(by: str, value: int, run: Callable[[], list[float]]) -> None:
        if report is not None:
            report(f"{by} {value}", len(rows) / (3 * cores + len(SIZES_PX) + len(TRACKS)))
        load = Load()
        each = run()
        rows.append(
            {
                "by": by,
                "value": value,
                "fps": round(sum(each), 2),
                "per_worker": [round(x, 2) for x in each],
                "others_cores": load.others(),
            }
        )

    counts = _doubling(cores)
    with subject(path) as target, tempfile.TemporaryDirectory() as folder:
        engine = setting.engine(target)
        for count in counts:
            add("threads", count, partial(_threads, engine, count, seconds))
        for count in counts:
            add("processes", count, partial(_processes, target.folder, setting, count, seconds))
        for side in SIZES_PX:
            engine = setting.engine(resized(target, side, Path(folder)))
            add("size", side, partial(_threads, engine, 1, seconds))
        for frames in TRACKS:
            engine = setting.engine(lengthened(target, frames))
            add("track", frames, partial(_threads, engine, 1, seconds))
    return rows


def _doubling(cores: int) -> list[int]:
    """1, 2, 4 … cores, and twice as many: does more of them than cores hurt?"""
    counts = [1]
    while counts[-1] * 2 <= 2 * cores:
        counts.append(counts[-1] * 2)
    return counts


def _threads(engine: Engine, count: int, seconds: float) -> list[float]:
    rates: list[float] = []
    barrier = threading.Barrier(count)

    def work() -> None:
        rates.append(_rate(engine, seconds, barrier.wait))

    workers = [threading.Thread(target=work) for _ in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if len(rates) != count:
        raise RuntimeError(f"{count - len(rates)} of {count} threads ended by an error")
    return rates


def _processes(folder: Path, setting: Setting, count: int, seconds: float) -> list[float]:
    """Spawned, since libraries with threads of their own do not survive a fork."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(count) as pool:
        barrier = manager.Barrier(count)
        return pool.starmap(_process, [(folder, setting, seconds, barrier)] * count, chunksize=1)


def _process(folder: Path, setting: Setting, seconds: float, barrier: Any) -> float:
    with subject(folder) as target:
        return _rate(setting.engine(target), seconds, barrier.wait)


def _rate(engine: Engine, seconds: float, together: Callable[[], object]) -> float:
    """Frames a second of one session over `seconds` of wall time, after warming up."""
    session, encoding = engine.session(), Encoding(engine.target.fps)
    sound = voice(10.0)
    chunks = [sound[k : k + STEP_SAMPLES] for k in range(0, len(sound), STEP_SAMPLES)]
    frames, number = 0, 0
    warm = round(WARM_UP_S * SAMPLE_RATE_HZ / STEP_SAMPLES)
    began_s = 0.0
    while True:
        if number == warm:
            together()
            frames, began_s = 0, time.perf_counter()
        if number > warm and time.perf_counter() - began_s >= seconds:
            return frames / (time.perf_counter() - began_s)
        for frame in session.push(chunks[number % len(chunks)]):
            encoding.encode(frame)
            frames += 1
        number += 1


def growth(rows: Sequence[dict[str, Any]], by: str) -> list[tuple[float, float]]:
    """(value, frames a second) of one series."""
    return [(float(row["value"]), float(row["fps"])) for row in rows if row["by"] == by]
