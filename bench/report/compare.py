"""Comparison of two reports of the same measurements: better, worse, or within the noise.

A figure counts as changed if the 95 % bootstrap interval of its ratio excludes 1 and the change is
more than `least_percent`. Runs minutes apart on one machine differ by some percent, which the
interval of one run does not show; docs/benchmarks.md has the figure. In real time they differ by
more, since cores sleep between two chunks and take a varying time to wake.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lipstream.bench.measure.statistics import change
from lipstream.engine.errors import UsageError
from lipstream.engine.profiling import SPANS

LEAST_PERCENT = 5.0
_LEAST_MS = 0.02  # a smaller change of a stage is of no consequence
_LEAST_SAMPLES = 20
_NEAR_FRAMES = 12  # to either side, over which the pace of the machine is smoothed
_REAL_TIME_FACTOR = 4  # on `least_percent`, for measurements in real time
_WITHOUT_CLOCK = ("latency ", "throughput ", "matcher ")


@dataclass(frozen=True, slots=True)
class Change:
    """A figure in two reports."""

    name: str
    before_ms: float
    after_ms: float
    percent: float  # of the p50
    interval: tuple[float, float]  # 95 %, in percent
    verdict: str  # "better", "worse" or "same"


def compare(
    before: Mapping[str, Any], after: Mapping[str, Any], least_percent: float = LEAST_PERCENT
) -> list[Change]:
    """Every set of samples that is in both reports, the greatest change first.

    Raises: UsageError when they have nothing in common.
    """
    old, new = dict(_samples(before)), dict(_samples(after))
    found = []
    for name in old:
        if name not in new or min(len(old[name][0]), len(new[name][0])) < _LEAST_SAMPLES:
            continue
        first, second = _normalised(old[name], new[name])
        percent, low, high = change(first, second)
        a, b = (float(np.median(x)) for x in (first, second))
        verdict = "same"
        real_time = not name.startswith(_WITHOUT_CLOCK)
        least = least_percent * (_REAL_TIME_FACTOR if real_time else 1)
        # The scheduler accounts for changes below a millisecond in real time.
        least_ms = 1.0 if real_time else _LEAST_MS
        if abs(b - a) >= least_ms and abs(percent) >= least:
            if low > 0:
                verdict = "worse"
            elif high < 0:
                verdict = "better"
        found.append(Change(name, a, b, percent, (low, high), verdict))
    found += _capacities(before, after)
    if not found:
        raise UsageError(
            "the two reports have no measurement in common (of one profile, backend, renderer and "
            "size); make both with the same command"
        )
    return sorted(found, key=lambda one: -abs(one.after_ms - one.before_ms))


def text(changes: list[Change], before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The changes as lines for people, with machine and load of both reports."""
    lines = []
    for kind in sorted(set(before["sections"]) & set(after["sections"])):
        a, b = (one["sections"][kind]["machine"] for one in (before, after))
        lines.append(
            f"{kind}: {a['commit']} (other processes used {a['others_cores']} cores) to "
            f"{b['commit']} ({b['others_cores']} cores)"
        )
        if (a["processor"], a["cores"]) != (b["processor"], b["cores"]):
            lines.append(
                f"  different machines: {a['processor']}, {a['cores']} cores and "
                f"{b['processor']}, {b['cores']} cores; the changes below include that"
            )
    for verdict in ("worse", "better"):
        some = [one for one in changes if one.verdict == verdict]
        lines += [f"{verdict}: {len(some)}"] + [
            f"  {one.name}: {one.before_ms:.3f} to {one.after_ms:.3f}, {one.percent:+.1f} % "
            f"({one.interval[0]:+.1f} to {one.interval[1]:+.1f})"
            for one in some
        ]
    slower = [one for one in changes if one.verdict == "worse" and _is_stage(one.name)]
    if slower:
        lines.append(f"largest slowdown: {slower[0].name}")
    lines.append(f"within the noise: {sum(one.verdict == 'same' for one in changes)}")
    return "\n".join(lines)


Samples = tuple[list[float], list[float] | None]  # ms, and the pace of the machine at each


def _samples(report: Mapping[str, Any]) -> Iterator[tuple[str, Samples]]:
    """Every set of raw samples in a report, by name."""
    for kind, section in report["sections"].items():
        data = section["data"]
        for run in data.get("runs", ()):
            where = f"{kind} {run_name(run)}"
            raw = run.get("samples_ms", {})
            for stage, values in raw.items():
                if stage not in ("algorithmic", "chunking", "hold", "click", "pace"):
                    yield f"{where} {stage}", (values, raw.get("pace"))
            for row in run.get("curve", ()):
                if row["held"]:
                    yield f"{where} {row['sessions']} sessions", (row["samples_ms"], None)
        if kind == "throughput":
            for row in data["rows"]:
                name = f"throughput {run_name(data)} {row['by']} {row['value']}"
                yield name, (row["samples_ms"], None)
        if kind == "matcher":
            for row in data["time"]:
                yield f"matcher {row['frames']} frames of footage", (row["samples_ms"], None)


def _normalised(before: Samples, after: Samples) -> tuple[list[float], list[float]]:
    """Both scaled to the median pace of the first; unchanged where a pace is not recorded."""
    paces = [None if pace is None else _smooth(pace) for _, pace in (before, after)]
    if paces[0] is None or paces[1] is None:
        return before[0], after[0]
    reference = float(np.median(paces[0]))
    first, second = (
        (np.asarray(values) * reference / pace).tolist()
        for (values, _), pace in zip((before, after), paces, strict=True)
        if pace is not None
    )
    return first, second


def _smooth(pace: list[float]) -> NDArray[np.float64]:
    """A running median over a second, since a single measurement may be disturbed."""
    padded = np.pad(np.asarray(pace, np.float64), _NEAR_FRAMES, mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * _NEAR_FRAMES + 1), axis=1)


def _is_stage(name: str) -> bool:
    return name.rsplit(" ", 1)[-1] in SPANS


def run_name(run: Mapping[str, Any]) -> str:
    """The configuration of a run: profile, backend, renderer and size of the picture."""
    size = "x".join(str(n) for n in run.get("size", ())) or "no size"
    renderer = "renderer" if run.get("renderer") else "no renderer"
    return f"{run.get('profile')} {run.get('backend')} {renderer} {size}"


def capacity_name(run: Mapping[str, Any]) -> str:
    """`run_name`, and how many processes compute, where they are not the measuring one."""
    count = run.get("processes", 0)
    return run_name(run) + (f", {count} process{'es' if count > 1 else ''}" if count else "")


def _capacities(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Changes of the capacity. A difference of one session counts as noise."""
    old, new = (
        {
            capacity_name(run): run["sessions"]
            for run in one["sections"].get("capacity", {"data": {}})["data"].get("runs", ())
        }
        for one in (before, after)
    )
    found = []
    for name in set(old) & set(new):
        more = new[name] - old[name]
        verdict = "same" if abs(more) < 2 else ("better" if more > 0 else "worse")
        percent = 100.0 * more / max(old[name], 1)
        found.append(
            Change(
                f"capacity {name} sustained sessions", old[name], new[name], percent,
                (percent, percent), verdict,
            )
        )  # fmt: skip
    return found
