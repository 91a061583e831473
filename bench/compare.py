"""Two reports of the same measurements: what got better, what got worse, and what is noise.

A figure has changed if the 95 % bootstrap interval of its ratio leaves 1 aside, and by more than
`least_percent`: runs minutes apart on one machine differ by some percent that no interval of one
run can know (docs/benchmarks.md has how much). On the clock they differ by more, since cores that
sleep between two chunks wake at the scheduler's and the hypervisor's pleasure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lipstream.bench.figures import change
from lipstream.engine.errors import UsageError
from lipstream.engine.timing import STAGES

LEAST_PERCENT = 5.0
_LEAST_MS = 0.02  # a stage that changed by less changed nothing that anybody can see
_LEAST_SAMPLES = 20
_ON_THE_CLOCK = 4  # times as much for what waits between chunks
_OFF_THE_CLOCK = ("latency ", "throughput ", "matcher ")


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of two reports."""

    name: str
    before_ms: float
    after_ms: float
    percent: float  # of the p50
    interval: tuple[float, float]  # 95 %, percent
    verdict: str  # "better", "worse" or "same"


def compare(
    before: Mapping[str, Any], after: Mapping[str, Any], least_percent: float = LEAST_PERCENT
) -> list[Change]:
    """Every set of samples that both reports hold, the greatest change first.

    Raises: UsageError when they have nothing in common.
    """
    old, new = dict(_samples(before)), dict(_samples(after))
    found = []
    for name in old:
        if name not in new or min(len(old[name]), len(new[name])) < _LEAST_SAMPLES:
            continue
        percent, low, high = change(old[name], new[name])
        a, b = (sorted(x)[len(x) // 2] for x in (old[name], new[name]))
        verdict = "same"
        on_the_clock = not name.startswith(_OFF_THE_CLOCK)
        least = least_percent * (_ON_THE_CLOCK if on_the_clock else 1)
        # Waiting that changed by less than a millisecond is the scheduler's, not ours.
        least_ms = 1.0 if on_the_clock else _LEAST_MS
        if abs(b - a) >= least_ms and abs(percent) >= least:
            if low > 0:
                verdict = "worse"
            elif high < 0:
                verdict = "better"
        found.append(Change(name, a, b, percent, (low, high), verdict))
    found += _capacities(before, after)
    if not found:
        raise UsageError(
            "the two reports have no measurement in common (same profile, backend, renderer and "
            "size); make both with the same command"
        )
    return sorted(found, key=lambda one: -abs(one.after_ms - one.before_ms))


def text(changes: list[Change], before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """For people: what changed, and whether the two were taken alike."""
    lines = []
    for kind in sorted(set(before["sections"]) & set(after["sections"])):
        a, b = (one["sections"][kind]["machine"] for one in (before, after))
        lines.append(
            f"{kind}: {a['commit']} (others kept {a['others_cores']} cores busy) to "
            f"{b['commit']} ({b['others_cores']})"
        )
        if (a["processor"], a["cores"]) != (b["processor"], b["cores"]):
            lines.append(
                f"  different machines: {a['processor']}, {a['cores']} cores and "
                f"{b['processor']}, {b['cores']} cores; the changes below are theirs as well"
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
        lines.append(f"slowed most: {slower[0].name}")
    lines.append(f"within the noise: {sum(one.verdict == 'same' for one in changes)}")
    return "\n".join(lines)


def _samples(report: Mapping[str, Any]) -> Iterator[tuple[str, list[float]]]:
    """(name, ms) of every raw set in a report."""
    for kind, section in report["sections"].items():
        for run in section["data"].get("runs", ()):
            where = f"{kind} {run_name(run)}"
            for stage, values in run.get("samples_ms", {}).items():
                if stage not in ("algorithmic", "chunking", "hold", "click"):
                    yield f"{where} {stage}", values
            for row in run.get("curve", ()):
                if row["held"]:
                    yield f"{where} {row['sessions']} sessions", row["samples_ms"]
        data = section["data"]
        if kind == "throughput":
            for row in data["rows"]:
                yield f"throughput {run_name(data)} {row['by']} {row['value']}", row["samples_ms"]
        if kind == "matcher":
            for row in data["time"]:
                yield f"matcher {row['frames']} frames of footage", row["samples_ms"]


def _is_stage(name: str) -> bool:
    return name.rsplit(" ", 1)[-1] in STAGES


def run_name(run: Mapping[str, Any]) -> str:
    """What tells one run of a report from another."""
    size = "x".join(str(n) for n in run.get("size", ())) or "no size"
    network = "network" if run.get("renderer") else "no network"
    return f"{run.get('profile')} {run.get('backend')} {network} {size}"


def _capacities(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Sessions that are held: one more or less may be chance, two are not."""
    old, new = (
        {
            run_name(run): run["sessions"]
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
                f"capacity {name} held sessions", old[name], new[name], percent,
                (percent, percent), verdict,
            )
        )  # fmt: skip
    return found
