"""Runs of `lipstream bench latency` and `capacity` over profiles, backends and renderers."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lipstream.bench.capacity import measure_capacity
from lipstream.bench.compare import run_name
from lipstream.bench.latency import Report, Setting, instrumentation_cost, measure_unpaced
from lipstream.bench.latency_live import measure_paced
from lipstream.bench.machine import Load, ceilings
from lipstream.bench.subject import subject
from lipstream.engine.errors import BackendUnavailable
from lipstream.engine.pipeline import Engine
from lipstream.engine.target import Target

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ways:
    """What to measure: every combination."""

    profiles: tuple[str, ...]
    backends: tuple[str, ...]
    renderers: tuple[str, ...]

    def settings(self, target: Target) -> list[Setting]:
        """Those that this machine can run, each once: "auto" may be the same as another.

        Raises: BackendUnavailable when none can.
        """
        found: dict[tuple[str, str, bool], Setting] = {}
        refused: list[str] = []
        for profile, backend, renderer in itertools.product(
            self.profiles, self.backends, self.renderers
        ):
            setting = Setting(profile, backend, renderer)
            try:
                engine: Engine = setting.engine(target)
            except BackendUnavailable as error:
                logger.warning("left out: %s", error)
                refused.append(str(error))
                continue
            mends = engine.renderer is not None
            found.setdefault(
                (profile, engine.backend, mends),
                Setting(profile, engine.backend, "network" if mends else "none"),
            )
        if not found:
            raise BackendUnavailable("; ".join(dict.fromkeys(refused)) or "nothing to measure")
        return list(found.values())


def latency_sections(
    path: Path | None, ways: Ways, seconds: float, report: Report | None
) -> dict[str, Any]:
    """{"latency": …, "live": …}, ready for a report."""
    with subject(path) as target:
        settings, best, load = ways.settings(target), ceilings(), Load()
        unpaced, paced = [], []
        for number, setting in enumerate(settings):
            if report is not None:
                report(f"{setting.profile} {setting.backend}", number / len(settings))
            unpaced.append(measure_unpaced(target, setting, best, seconds))
            paced.append(measure_paced(target, setting, seconds))
        cost = instrumentation_cost(target, settings[0], seconds)
    return {
        "latency": {"runs": unpaced, "ceilings": best, "instrumentation": cost, "seed": 0,
                    "others_cores": load.others()},
        "live": {"runs": [{**b, "size": a["size"]} for a, b in zip(unpaced, paced, strict=True)]},
    }  # fmt: skip


def latency_text(sections: Mapping[str, Any]) -> str:
    """For people."""
    latency, lines = sections["latency"], []
    for run, live in zip(latency["runs"], sections["live"]["runs"], strict=True):
        total, click = run["compute_ms"], run["click"]
        lines += [
            "",
            f"{run_name(run)}, others kept {run['others_cores']} cores busy",
            f"  algorithmic delay {run['algorithmic_ms']:.1f} ms, by click "
            f"{click['measured_ms']:.1f} ± {click['resolution_ms']:.0f} ms",
            f"  compute     p50 {total['p50']:.2f}  p95 {total['p95']:.2f}  "
            f"p99 {total['p99']:.2f}  max {total['max']:.2f} ms  (+ encoding "
            f"{run['encode_ms']['p50']:.2f}); first frame {run['start_ms']['first_frame']:.1f}",
        ]
        for name, row in run["stages"].items():
            roof = run["roofline"].get(name)
            reached = f"  {100 * roof['reached']:5.1f} % of roofline" if roof else ""
            lines.append(
                f"    {name:<11} p50 {row['p50']:6.3f}  p95 {row['p95']:6.3f}  "
                f"p99 {row['p99']:6.3f}{reached}"
            )
        lines.append(
            f"  slowest stage {run['slowest_stage']}; {run['sum']['unattributed_percent']} % of "
            "the time in no stage"
        )
        parts = live["parts"]
        told = ", ".join(f"{name} {parts[name]['p50']:.1f}" for name in parts)
        lines += [
            f"  on the clock, p50 ms: {told}",
            f"    compute p95 {parts['compute']['p95']:.2f} ms; parts add up to "
            f"{live['click']['parts_sum_ms']:.1f} ms, {live['click']['clicks']} clicks took "
            f"{live['click']['measured_ms']:.1f} ms; {live['late_frames']} late",
        ]
    cost = latency["instrumentation"]
    low, high = cost["interval_percent"]
    lines.append(f"recording costs {cost['percent']} % ({low} to {high})")
    return "\n".join(lines)


def capacity_sections(
    path: Path | None, ways: Ways, seconds: float, report: Report | None
) -> dict[str, Any]:
    """{"capacity": …}, ready for a report."""
    with subject(path) as target:
        runs = [
            measure_capacity(target, setting, seconds, report=report)
            for setting in ways.settings(target)
        ]
    return {"capacity": {"runs": runs}}


def capacity_text(sections: Mapping[str, Any]) -> str:
    """For people."""
    lines = []
    for run in sections["capacity"]["runs"]:
        lines += ["", f"{run_name(run)}: {run['sessions']} conversations held"]
        lines += [
            f"  {row['sessions']:3d}  p50 {row['p50']:6.1f}  p99 {row['p99']:6.1f} ms  "
            f"{row['cores']:.2f} cores of ours, {row['others_cores']} of others"
            f"{'' if row['held'] else '  not held'}"
            for row in run["curve"]
        ]
    return "\n".join(lines)
