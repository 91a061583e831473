"""The frame matcher: path cost against the lag, and time per frame.

The comparison in the same run is a textbook Viterbi over the same graph: dense, in NumPy and f64,
without code of the engine.
"""

from __future__ import annotations

import time
from fractions import Fraction
from typing import Any

import numpy as np

from lipstream.bench.machine import ceilings
from lipstream.bench.measure.roofline import matcher_work
from lipstream.bench.measure.statistics import percentiles
from lipstream.engine.retrieval.background_matcher import BackgroundMatcher
from lipstream.engine.retrieval.motion_graph import BackgroundFootage
from lipstream.engine.retrieval.viterbi import FixedLagViterbi, Transitions
from lipstream.engine.types import F32, Expression, Lips
from lipstream.kernels.dispatch import implementation

FPS = Fraction(25)
_COEFFICIENTS = 20
_JUMPS = 16
LAGS_MS = (0, 40, 80, 120, 200, 400, 600, 1000)


def synthetic_footage(frames: int, seed: int = 0) -> BackgroundFootage:
    """Footage whose mouth moves at the rate of syllables, with random head motion and jumps."""
    random = np.random.default_rng(seed)
    mouth = random.normal(size=(frames + 4, _COEFFICIENTS))
    expression = sum(mouth[k : k + frames] for k in range(5)) / np.sqrt(5)
    drift = np.convolve(random.normal(size=frames + 24), np.ones(25) / 5, mode="valid")
    far = random.integers(25, max(frames - 25, 26), (frames, _JUMPS))
    jumps = (np.arange(frames)[:, None] + far) % frames
    return BackgroundFootage(
        expression=np.asarray(expression, np.float32),
        head_speed=np.abs(0.35 * drift).astype(np.float32),
        rejected=random.random(frames) < 0.01,
        jumps=jumps.astype(np.int32),
        jump_cost=random.gamma(2, 0.3, (frames, _JUMPS)).astype(np.float32),
    )


def synthetic_speech(frames: int, seed: int = 1) -> list[Expression]:
    """Expressions of 3 s of speech and 1 s of silence in alternation."""
    track = synthetic_footage(frames, seed).expression
    return [
        Expression(
            track[t] * np.float32((t // 25) % 4 != 3), Lips(0, 0, 0), (t // 25) % 4 != 3, 640 * t
        )
        for t in range(frames)
    ]


def matcher_bench(
    frames: int = 500, clip_frames: int = 250, clips: int = 8, repeats: int = 100
) -> dict[str, Any]:
    """Path cost above the offline optimum by lag, and time per output frame by track length.

    Args:
        frames: length of the footage for the gap.
        clip_frames: length of each speech for the gap.
        clips: number of speeches, each with footage of its own.
        repeats: frames timed for each track length.

    Returns:
        kernels; seeds; ceilings; gap: list of lag_ms, lag_frames, gap_percent and worst_percent
        (mean and worst over clips), blind_percent (mean without the cost-to-go guide),
        each_percent (by clip); optimum and textbook_optimum: sums over clips; time: list of
        frames, cpu_ms, p50_ms, p95_ms, p99_ms, roofline_ms, samples_ms; textbook_ms_per_frame.
    """
    optima, whole, textbook_ms = [], 0.0, []
    costs: dict[int, list[float]] = {lag_ms: [] for lag_ms in LAGS_MS}
    blind: dict[int, list[float]] = {lag_ms: [] for lag_ms in LAGS_MS}
    for clip in range(clips):
        matcher = BackgroundMatcher(synthetic_footage(frames, 2 * clip), 0, FPS)
        rows, guides = _rows(matcher, synthetic_speech(clip_frames, 2 * clip + 1))
        optimum, spent_ms = _textbook(matcher.transitions, rows)
        optima.append(optimum)
        textbook_ms.append(spent_ms)
        for lag_ms in LAGS_MS:
            path = _run(matcher.transitions, rows, guides, _lag_frames(lag_ms))
            costs[lag_ms].append(_path_cost(matcher.transitions, rows, path))
            path = _run(matcher.transitions, rows, None, _lag_frames(lag_ms))
            blind[lag_ms].append(_path_cost(matcher.transitions, rows, path))
        path = _run(matcher.transitions, rows, guides, len(rows))
        whole += _path_cost(matcher.transitions, rows, path)
    gaps = []
    for lag_ms, found in costs.items():
        percent = [100 * (cost / best - 1) for cost, best in zip(found, optima, strict=True)]
        unguided = [cost / best for cost, best in zip(blind[lag_ms], optima, strict=True)]
        gaps.append(
            {
                "lag_ms": lag_ms,
                "lag_frames": _lag_frames(lag_ms),
                "gap_percent": float(np.mean(percent)),
                "worst_percent": max(percent),
                "each_percent": percent,
                "blind_percent": 100 * (float(np.mean(unguided)) - 1),
            }
        )
    best = ceilings()
    return {
        "kernels": implementation(),
        "seeds": {"footage": list(range(0, 2 * clips, 2)), "speech": list(range(1, 2 * clips, 2))},
        "ceilings": best,
        "optimum": whole,
        "textbook_optimum": sum(optima),
        "gap": gaps,
        "time": [_timing(n, repeats, best) for n in (500, 1000, 2000, 5000, 10_000, 15_000)],
        "textbook_ms_per_frame": {"frames": frames, "mean_ms": float(np.mean(textbook_ms))},
    }


def _lag_frames(lag_ms: int) -> int:
    return int(lag_ms * FPS / 1000)


def _rows(matcher: BackgroundMatcher, speech: list[Expression]) -> tuple[list[F32], list[F32]]:
    """Emission and cost-to-go guide of each frame, both f32 [states]."""
    rows, guides, silent = [], [], 0
    for item in speech:
        silent = 0 if item.speech else silent + 1
        row = matcher.emission(item, silent)
        rows.append(np.concatenate([row, row]))
        guides.append(matcher.to_go(silent))
    return rows, guides


def _run(
    transitions: Transitions, rows: list[F32], guides: list[F32] | None, lag: int
) -> list[int]:
    stage = FixedLagViterbi(transitions, lag, FPS)
    state, path = stage.init(), []
    for t, row in enumerate(rows):
        committed, state = stage.step(state, row, None if guides is None else guides[t])
        path += committed
    return path + stage.flush(state)


def _path_cost(transitions: Transitions, rows: list[F32], path: list[int]) -> float:
    moves = sum(
        transitions.cost_between(before, after)
        for before, after in zip(path, path[1:], strict=False)
    )
    return moves + sum(float(row[state]) for row, state in zip(rows, path, strict=True))


def _textbook(transitions: Transitions, rows: list[F32]) -> tuple[float, float]:
    """Cost of the best path, and ms per frame, by a dense min-plus over all pairs of states."""
    states = transitions.states
    dense = np.full((states, states), np.inf)  # [to, from]
    to = np.repeat(np.arange(states), transitions.predecessors.shape[1])
    np.minimum.at(dense, (to, transitions.predecessors.ravel()), transitions.cost.ravel())
    begin = time.perf_counter()
    score = rows[0].astype(np.float64)
    for row in rows[1:]:
        score = (dense + score).min(axis=1) + row
    spent_ms = (time.perf_counter() - begin) * 1000
    return float(score.min()), spent_ms / max(len(rows) - 1, 1)


def _timing(frames: int, repeats: int, best: dict[str, float], lag: int = 1) -> dict[str, Any]:
    """Time of one `BackgroundMatcher.step`, with the lag of the live profile."""
    matcher = BackgroundMatcher(synthetic_footage(frames), lag, FPS)
    speech = synthetic_speech(repeats + 5)
    state = matcher.init()
    wall_ms, cpu_ms = [], []
    for item in speech:
        begin, cpu_begin = time.perf_counter(), time.thread_time()
        _, state = matcher.step(state, item)
        cpu_ms.append((time.thread_time() - cpu_begin) * 1000)
        wall_ms.append((time.perf_counter() - begin) * 1000)
    found = percentiles(wall_ms[5:])
    states, slots = matcher.transitions.predecessors.shape
    macs, moved = matcher_work(states, slots, _COEFFICIENTS)
    return {
        "frames": frames,
        "cpu_ms": float(np.median(cpu_ms[5:])),  # not affected by other load on the machine
        **{f"{name}_ms": found[name] for name in ("p50", "p95", "p99")},
        "roofline_ms": max(macs / best["gmac_s_f32"], moved / best["copy_gb_s"]) / 1e6,
        "samples_ms": [round(x, 4) for x in wall_ms[5:]],
    }


def matcher_text(report: dict[str, Any]) -> str:
    """The figures as lines for people."""
    lines = [f"kernels: {report['kernels']}", "", "path cost above the optimum:"]
    for row in report["gap"]:
        lines.append(f"  lag {row['lag_ms']:4d} ms  {row['gap_percent']:6.2f} %")
    lines += ["", "time per output frame, by track length:"]
    for row in report["time"]:
        lines.append(
            f"  {row['frames']:6d} frames  p50 {row['p50_ms']:.3f}  "
            f"p95 {row['p95_ms']:.3f}  p99 {row['p99_ms']:.3f} ms  "
            f"roofline {row['roofline_ms']:.3f} ms"
        )
    return "\n".join(lines)
