"""The frame matcher: what a short lag costs, and what a frame costs.

Beside it in the same run stands a textbook Viterbi over the same graph, written here in NumPy
with a dictionary of edges turned to arrays, which shares no code with the engine.
"""

from __future__ import annotations

import os
import platform
import time
from fractions import Fraction
from typing import Any

import numpy as np

from lipstream.engine.footage import Footage
from lipstream.engine.matcher import FootageMatcher
from lipstream.engine.types import F32, Expression, Lips
from lipstream.engine.viterbi import FixedLagViterbi, Transitions
from lipstream.kernels import implementation

FPS = Fraction(25)
_COEFFICIENTS = 20
_JUMPS = 16


def made_up_footage(frames: int, seed: int = 0) -> Footage:
    """Footage with syllable-rate mouths, a head that moves and rests, and random jumps."""
    random = np.random.default_rng(seed)
    mouth = random.normal(size=(frames + 4, _COEFFICIENTS))
    expression = sum(mouth[k : k + frames] for k in range(5)) / np.sqrt(5)
    drift = np.convolve(random.normal(size=frames + 24), np.ones(25) / 5, mode="valid")
    return Footage(
        expression=np.asarray(expression, np.float32),
        head_speed=np.abs(0.35 * drift).astype(np.float32),
        rejected=random.random(frames) < 0.01,
        jumps=random.integers(0, frames, (frames, _JUMPS)).astype(np.int32),
        jump_cost=random.gamma(2, 0.3, (frames, _JUMPS)).astype(np.float32),
    )


def made_up_speech(frames: int, seed: int = 1) -> list[Expression]:
    """Wanted expressions, 3 s of speech and 1 s of silence in turn."""
    track = made_up_footage(frames, seed).expression
    return [
        Expression(
            track[t] * np.float32((t // 25) % 4 != 3), Lips(0, 0, 0), (t // 25) % 4 != 3, 640 * t
        )
        for t in range(frames)
    ]


def matcher_bench(frames: int = 500, clip_frames: int = 250, repeats: int = 60) -> dict[str, Any]:
    """Cost above the offline optimum per lag, and milliseconds per output frame per N.

    Args:
        frames: N of the footage for the gap.
        clip_frames: length of the speech for the gap.
        repeats: frames timed per N.

    Returns:
        machine, kernels, gap (list of lag_ms, lag_frames, cost, gap_percent), optimum,
        textbook_optimum, time (list of frames, p50_ms, p95_ms, p99_ms), textbook_ms_per_frame.
    """
    footage = made_up_footage(frames)
    speech = made_up_speech(clip_frames)
    matcher = FootageMatcher(footage, 0, FPS)
    rows = _rows(matcher, speech)
    optimum, textbook_ms = _textbook(matcher.transitions, rows)
    gaps = []
    for lag_ms in (0, 40, 80, 120, 200, 400, 600, 1000):
        lag = int(lag_ms * FPS / 1000)
        cost = _path_cost(matcher.transitions, rows, _walk(matcher.transitions, rows, lag))
        gaps.append(
            {
                "lag_ms": lag_ms,
                "lag_frames": lag,
                "cost": cost,
                "gap_percent": 100 * (cost / optimum - 1),
            }
        )
    whole = _path_cost(matcher.transitions, rows, _walk(matcher.transitions, rows, len(rows)))
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one used",
        "kernels": implementation(),
        "optimum": whole,
        "textbook_optimum": optimum,
        "gap": gaps,
        "time": [_timing(n, repeats) for n in (500, 1000, 2000, 5000, 10_000, 15_000)],
        "textbook_ms_per_frame": {"frames": frames, "mean_ms": textbook_ms},
    }


def _rows(matcher: FootageMatcher, speech: list[Expression]) -> list[F32]:
    rows, silent = [], 0
    for item in speech:
        silent = 0 if item.speech else silent + 1
        row = matcher.emission(item, silent)
        rows.append(np.concatenate([row, row]))
    return rows


def _walk(transitions: Transitions, rows: list[F32], lag: int) -> list[int]:
    stage = FixedLagViterbi(transitions, lag, FPS)
    state, path = stage.init(), []
    for row in rows:
        committed, state = stage.step(state, row)
        path += committed
    return path + stage.flush(state)


def _path_cost(transitions: Transitions, rows: list[F32], path: list[int]) -> float:
    moves = sum(
        transitions.cost_between(before, after)
        for before, after in zip(path, path[1:], strict=False)
    )
    return moves + sum(float(row[state]) for row, state in zip(rows, path, strict=True))


def _textbook(transitions: Transitions, rows: list[F32]) -> tuple[float, float]:
    """Cost of the best path, and ms per frame: dense min-plus over all pairs, in f64."""
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


def _timing(frames: int, repeats: int, lag: int = 1) -> dict[str, float]:
    """One `FootageMatcher.step`, all in, with the lag of the live profile."""
    matcher = FootageMatcher(made_up_footage(frames), lag, FPS)
    speech = made_up_speech(repeats + 5)
    state, spent = matcher.init(), []
    for item in speech:
        begin = time.perf_counter()
        _, state = matcher.step(state, item)
        spent.append((time.perf_counter() - begin) * 1000)
    p50, p95, p99 = np.percentile(spent[5:], [50, 95, 99])
    return {"frames": frames, "p50_ms": float(p50), "p95_ms": float(p95), "p99_ms": float(p99)}
