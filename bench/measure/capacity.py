"""Capacity: how many conversations at once a machine sustains, and how that number scales.

Conversations run in real time (`live.converse`), in threads of this process or in worker processes
(`streaming.workers.pool`), as in the server. A number of conversations is sustained if p99 of the
time from complete sound to encoded picture is within the frame interval, no time is skipped and no
frame is repeated.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Final

from lipstream.bench.bench_target import lengthened, resized
from lipstream.bench.machine import Load, ceilings, on_cores, own_s
from lipstream.bench.measure.latency import Report, Setting
from lipstream.bench.measure.live import converse, in_time
from lipstream.bench.measure.roofline import whole_ms
from lipstream.bench.measure.statistics import percentiles
from lipstream.bench.measure.throughput import SIZES_PX, TRACKS
from lipstream.engine.cores import usable_cores
from lipstream.engine.target.bundle import Target
from lipstream.streaming.session.gc_policy import freeze
from lipstream.streaming.session.live_engine import LiveEngine, warm_up
from lipstream.streaming.workers.pool import Workers

_MOST: Final = 64
_MAX_FAILURES: Final = 2  # in a row; a single one may be due to other load on the machine


def measure_capacity(
    target: Target, setting: Setting, seconds: float = 10.0, most: int = _MOST,
    report: Report | None = None, processes: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Capacity of one setting, in `processes` workers, or in this process with 0.

    Returns: sessions (the most that were sustained), interval_ms, roofline_ms (the least time of a
    frame on one core), curve: list of sessions, p50, p95, p99, max (ms), held, late_frames,
    repeated_frames, slipped_ms, cores (used by lipstream), others_cores, samples_ms.
    """
    engine = setting.engine(target)
    curve: list[dict[str, Any]] = []
    failed = 0
    with _warm_engine(target, setting, processes) as live:
        for count in range(1, most + 1):
            if report is not None:
                report(f"{count} conversations", count / (count + 4))
            row = _hold(live, target.fps, count, seconds)
            curve.append(row)
            failed = 0 if row["held"] else failed + 1
            if failed == _MAX_FAILURES:
                break
    return {
        "backend": engine.backend,
        "renderer": engine.renderer is not None,
        "profile": setting.profile,
        "processes": processes,
        "size": [target.width, target.height],
        "interval_ms": float(1000 / target.fps),
        "roofline_ms": round(whole_ms(engine, ceilings()), 3),
        "sessions": max((row["sessions"] for row in curve if row["held"]), default=0),
        "curve": curve,
    }


def capacity_growth(
    target: Target, setting: Setting, cores: int, seconds: float = 3.0,
    report: Report | None = None, processes: int = 0,
) -> list[dict[str, Any]]:  # fmt: skip
    """Capacity by cores, size of the picture and length of the track.

    Returns: list of by ("cores", "size", "track"), value, sessions, tried (rows as in `curve`).
    """
    rows: list[dict[str, Any]] = []
    steps, guess = cores + len(SIZES_PX) + len(TRACKS), 1

    def add(by: str, value: int, target: Target) -> None:
        nonlocal guess
        if report is not None:
            report(f"{by} {value}", len(rows) / steps)
        with _warm_engine(target, setting, min(processes, usable_cores())) as live:
            tried = _search(live, target.fps, max(guess, 1), seconds)
        guess = max((row["sessions"] for row in tried if row["held"]), default=0)
        rows.append({"by": by, "value": value, "sessions": guess, "tried": tried})

    for count in range(1, cores + 1):
        with on_cores(count):
            add("cores", count, target)
    with tempfile.TemporaryDirectory() as folder:
        for side in SIZES_PX:
            add("size", side, resized(target, side, Path(folder)))
        for frames in TRACKS:
            add("track", frames, lengthened(target, frames))
    return rows


@contextmanager
def _warm_engine(target: Target, setting: Setting, processes: int) -> Iterator[LiveEngine]:
    """An engine in this process, or in `processes` workers."""
    if processes == 0:
        engine = setting.engine(target)
        warm_up(engine)
        freeze()
        yield engine
        return
    workers = Workers(processes)
    try:
        yield workers.engine(partial(setting.engine, target))
    finally:
        workers.close()


def _search(engine: LiveEngine, fps: Fraction, guess: int, seconds: float) -> list[dict[str, Any]]:
    """Count up from the guess while the conversations are sustained, else down until they are."""
    tried = [_hold(engine, fps, guess, seconds)]
    step = 1 if tried[0]["held"] else -1
    while (step == 1) == tried[-1]["held"] and 0 < tried[-1]["sessions"] + step <= _MOST:
        tried.append(_hold(engine, fps, tried[-1]["sessions"] + step, seconds))
    return tried


def _hold(engine: LiveEngine, fps: Fraction, count: int, seconds: float) -> dict[str, Any]:
    """One row of a capacity curve."""
    load, cpu, wall = Load(), own_s(), time.perf_counter()
    done = converse(engine, fps, count, seconds)
    spent = in_time(done)
    figures = percentiles(spent)
    slipped = sum(one.slipped_ms for one in done)
    repeated_frames = sum(one.repeated_frames for one in done)
    errors = [one.error for one in done if one.error is not None]
    in_interval = bool(spent) and figures["p99"] <= float(1000 / fps)
    return {
        "sessions": count,
        **figures,
        "held": in_interval and slipped == 0 and repeated_frames == 0 and not errors,
        "late_frames": sum(one.late_frames for one in done),
        "repeated_frames": repeated_frames,
        "slipped_ms": slipped,
        "cores": round((own_s() - cpu) / (time.perf_counter() - wall), 3),
        "others_cores": load.others(),
        "errors": errors,
        "samples_ms": [round(x, 3) for x in spent],
    }
