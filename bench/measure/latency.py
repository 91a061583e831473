"""Latency of one session without a clock: compute by stage, and the algorithmic delay.

The compute of a frame is one `Session.push`, of the 20 ms of sound that complete the frame, and its
encoding. It is timed. The algorithmic delay of a frame is the sound after its own time that has to
be pushed. It is counted in samples, and confirmed by a burst of sound that becomes visible.
`live` measures a conversation in real time, with its queues.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from lipstream.bench.bench_target import Encoding, burst, voice
from lipstream.bench.machine import Load
from lipstream.bench.measure.roofline import against, precisions, stage_work
from lipstream.bench.measure.statistics import percentiles
from lipstream.engine.pipeline import Engine
from lipstream.engine.profiling import SPANS, Recorder, Span, recording
from lipstream.engine.speech.encoder import PROFILE_LOOK_AHEAD_MS
from lipstream.engine.speech.profiles import require_live
from lipstream.engine.target.bundle import Target
from lipstream.engine.timebase import frame_sample
from lipstream.engine.types import F32, SAMPLE_RATE_HZ, STEP_SAMPLES

WARM_UP_S: Final = 2.0
_PACE_FRAMES: Final = 5  # between two measurements of the pace of the machine
PROFILES: Final = tuple(PROFILE_LOOK_AHEAD_MS)
Report = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Setting:
    """One configuration of the engine."""

    profile: str = "live"
    backend: str = "auto"
    renderer: str = "auto"
    background: str = "matched"

    def __post_init__(self) -> None:
        """Refuse the profile `file`; the engine checks the names."""
        require_live(self.profile)

    def engine(self, target: Target) -> Engine:
        """An engine of this configuration for `target`."""
        return Engine(target, self.profile, self.backend, self.background, self.renderer)


def measure_unpaced(
    target: Target,
    setting: Setting,
    ceilings: Mapping[str, float],
    seconds: float = 20.0,
    slowed: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Latency of one setting, with chunks pushed one after another.

    slowed: ms to add to stages, by name, to check that the report attributes them.

    Returns: see docs/benchmarks.md; `samples_ms` holds every raw sample by stage.
    """
    begin_s = time.perf_counter()
    engine = setting.engine(target)
    ready_s = time.perf_counter()
    load = Load()
    rows, first = _run(engine, voice(WARM_UP_S + seconds), slowed)
    samples = _columns(rows)
    compute, total = percentiles(samples["compute"]), percentiles(samples["total"])
    attributed = sum(float(np.mean(samples[name])) for name in SPANS if name in samples)
    attributed -= float(np.mean(samples["session"]))
    stages = {name: percentiles(samples[name]) for name in SPANS if name in samples}
    precision = precisions(engine)
    click = click_delay(engine)
    return {
        "backend": engine.backend,
        "precision": precision,
        "renderer": engine.renderer is not None,
        "profile": setting.profile,
        "size": [target.width, target.height],
        "track_frames": len(target.track),
        "fps": float(target.fps),
        "others_cores": load.others(),
        "start_ms": {
            "engine": _ms(ready_s - begin_s),
            "first_push": first["push"],
            "first_frame": first["frame"],
        },
        "stages": stages,
        "algorithmic_ms": engine.delay_ms,
        "compute_ms": compute,
        "encode_ms": percentiles(samples["encode"]),
        "total_ms": total,
        "sum": {
            "stages_ms": round(attributed, 4),
            "total_ms": total["mean"],
            "unattributed_percent": round(100 * (1 - attributed / total["mean"]), 2),
        },
        "click": click,
        "slowest_stage": max(stages, key=lambda name: stages[name]["p50"]),
        "roofline": against(
            stage_work(engine), {n: row["p50"] for n, row in stages.items()}, ceilings, precision
        ),
        "samples_ms": {name: [round(x, 4) for x in values] for name, values in samples.items()},
    }


def click_delay(engine: Engine, at_s: float = 1.5) -> dict[str, float]:
    """The algorithmic delay, measured with a burst of sound.

    Two sessions get the same silence in steps of 5 ms, one of them with the burst. A picture that
    differs between the two shows the burst.

    Returns: expected_ms (as the engine states), measured_ms (sound pushed beyond the first sample
    of a frame when the frame comes out, the most of all frames; at frame rates off the 20 ms grid
    some need less), mean_ms (over frames), resolution_ms (of the steps), picture_ms (from the first
    sample of the burst to the first picture that differs; below 0 because lips part early).
    """
    step = SAMPLE_RATE_HZ // 200
    begin = round(at_s * SAMPLE_RATE_HZ) + 77  # on no boundary of a step or of a frame
    quiet = np.zeros(begin + SAMPLE_RATE_HZ, np.float32)
    loud = quiet.copy()
    loud[begin:] = burst(len(loud) - begin)
    first: dict[str, float] = {}
    delays: list[float] = []
    session, twin = engine.session(), engine.session()
    for pushed in range(step, len(loud) + 1, step):
        frames, quiet_frames = (
            one.push(sound[pushed - step : pushed])
            for one, sound in ((session, loud), (twin, quiet))
        )
        for frame, other in zip(frames, quiet_frames, strict=True):
            start = frame_sample(frame.frame_index, frame.fps)
            if "picture_ms" not in first and not np.array_equal(frame.i420, other.i420):
                first["picture_ms"] = round((start - begin) * 1000 / SAMPLE_RATE_HZ, 3)
            delays.append((pushed - start) * 1000 / SAMPLE_RATE_HZ)
    return {
        "expected_ms": engine.delay_ms,
        "resolution_ms": step * 1000 / SAMPLE_RATE_HZ,
        "measured_ms": max(delays),
        "mean_ms": round(float(np.mean(delays)), 3),
        **first,
    }


def instrumentation_cost(target: Target, setting: Setting, seconds: float = 30.0) -> dict[str, Any]:
    """The cost of recording: two sessions get the same sound, one is recorded, in alternation.

    Returns: percent (median over frames of recorded against plain CPU time, - 1), its 95 %
    interval, and marks_percent: marks of a frame times what a mark costs, over a frame's time.
    """
    engine = setting.engine(target)
    sound = voice(seconds + WARM_UP_S)
    sessions = (engine.session(), engine.session())
    spent: tuple[list[float], list[float]] = ([], [])
    marks = 0
    for number, chunk in enumerate(_chunks(sound)):
        order = (0, 1) if number % 4 < 2 else (1, 0)  # frames come every second chunk
        for who in order:
            if who == 0:
                began = time.thread_time()
                frames = sessions[0].push(chunk)
                took = time.thread_time() - began
            else:
                recorder = Recorder()
                with recording(recorder):
                    began = time.thread_time()
                    frames = sessions[1].push(chunk)
                    took = time.thread_time() - began
                if frames:
                    marks = 2 * len(recorder.take())
            if frames:
                spent[who].append(took * 1000)
    warm = round(WARM_UP_S * target.fps)
    plain, recorded = (np.array(one[warm:]) for one in spent)
    ratio = recorded / plain - 1
    random = np.random.default_rng(0)
    draws = np.median(random.choice(ratio, (400, len(ratio))), axis=1)
    mark_ms = _mark_ms()
    return {
        "percent": round(100 * float(np.median(ratio)), 3),
        "interval_percent": [round(100 * float(x), 3) for x in np.percentile(draws, [2.5, 97.5])],
        "marks_percent": round(100 * marks * mark_ms / float(np.median(plain)), 3),
        "marks_per_frame": marks,
        "frames": len(ratio),
    }


def _mark_ms(batch: int = 40, batches: int = 50) -> float:
    """CPU time of one mark: the median of batches as long as a frame's."""
    recorder = Recorder()
    spent = []
    for _ in range(batches):
        began = time.thread_time_ns()
        for _ in range(batch // 2):
            recorder.begin("warp")
            recorder.end("warp")
        spent.append((time.thread_time_ns() - began) / 1e6 / batch)
        recorder.take()
    return float(np.median(spent))


def _run(
    engine: Engine, sound: F32, slowed: Mapping[str, float] | None
) -> tuple[list[dict[str, float]], dict[str, float]]:
    """ms by stage, a row for each frame after the warm-up; and ms of the first push and frame."""
    session, encoding = engine.session(), Encoding(engine.target.fps)
    rows: list[dict[str, float]] = []
    first: dict[str, float] = {}
    recorder, pace = Recorder(slowed), 0.0
    warm = WARM_UP_S * SAMPLE_RATE_HZ
    with recording(recorder):
        for number, chunk in enumerate(_chunks(sound)):
            began_s = time.perf_counter()
            frames = session.push(chunk)
            pushed_s = time.perf_counter()
            for frame in frames:
                encoding.encode(frame)
            done_s = time.perf_counter()
            spans = recorder.take()
            first.setdefault("push", _ms(pushed_s - began_s))
            if frames:
                first.setdefault("frame", _ms(done_s - began_s))
            if frames and number * STEP_SAMPLES >= warm:
                if len(rows) % _PACE_FRAMES == 0:
                    pace = pace_ms()
                row = own_ms(spans)
                row["pace"] = pace
                row["compute"] = _ms(pushed_s - began_s) / len(frames)
                row["total"] = _ms(done_s - began_s) / len(frames)
                rows.append(row)
    return rows, first


def pace_ms() -> float:
    """The time of a fixed piece of work, part Python and part NumPy, ms.

    The speed of a core varies within minutes (its clock, the host of a virtual machine) by more
    than the changes to be found. `compare` divides by this.
    """
    values = np.arange(4096, dtype=np.float32)
    began_s, total = time.perf_counter(), 0
    for k in range(4000):
        total += k & 7
    for _ in range(20):
        values = np.sqrt(values * values + 1)
    return _ms(time.perf_counter() - began_s)


def own_ms(spans: Sequence[Span]) -> dict[str, float]:
    """{stage: ms, without the stages inside it}."""
    sums: dict[str, float] = {}
    for span in spans:
        sums[span.name] = sums.get(span.name, 0.0) + span.own_ns / 1e6
    return sums


def _columns(rows: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    names = [*SPANS, "compute", "total", "pace"]
    present = {name for row in rows for name in row}
    return {name: [row.get(name, 0.0) for row in rows] for name in names if name in present}


def _chunks(sound: F32) -> list[F32]:
    return [
        sound[k : k + STEP_SAMPLES] for k in range(0, len(sound) - STEP_SAMPLES + 1, STEP_SAMPLES)
    ]


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 4)
