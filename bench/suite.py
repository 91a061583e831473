"""`lipstream bench` over profiles, backends and renderers, and all measurements in one run."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lipstream.bench.bench_target import bench_target
from lipstream.bench.machine import Load, ceilings
from lipstream.bench.measure.capacity import capacity_growth, measure_capacity
from lipstream.bench.measure.kernels import kernel_timings, kernels_text
from lipstream.bench.measure.latency import Report, Setting, instrumentation_cost, measure_unpaced
from lipstream.bench.measure.live import measure_paced
from lipstream.bench.measure.matcher import matcher_bench, matcher_text
from lipstream.bench.measure.throughput import measure_throughput, throughput_text
from lipstream.bench.report.compare import capacity_name, run_name
from lipstream.engine.cores import usable_cores
from lipstream.engine.errors import BackendUnavailable, UsageError
from lipstream.engine.pipeline import Engine
from lipstream.engine.speech.encoder import PROFILE_LOOK_AHEAD_MS
from lipstream.engine.target.bundle import Target

logger = logging.getLogger(__name__)

_BACKENDS: Final = ("native", "openvino", "torch", "numpy", "tensorrt", "cuda")


@dataclass(frozen=True, slots=True)
class Configurations:
    """What to measure: every combination of profile, backend and renderer.

    The backend "all" stands for each profile with the default backend, and for every other backend
    with the `live` profile, since backends and profiles do not interact.
    """

    profiles: tuple[str, ...]
    backends: tuple[str, ...]
    renderers: tuple[str, ...]

    def settings(self, target: Target) -> list[Setting]:
        """Those that this machine can run, each once: "auto" may equal another backend.

        Raises: BackendUnavailable when this machine can run none.
        """
        found: dict[tuple[str, str, bool], Setting] = {}
        unavailable: list[str] = []
        wanted = list(itertools.product(self.profiles, self.backends, self.renderers))
        if self.backends == ("all",):
            profile = "live" if "live" in self.profiles else self.profiles[0]
            wanted = list(itertools.product(self.profiles, ("auto",), self.renderers))
            wanted += itertools.product((profile,), _BACKENDS, self.renderers)
        for profile, backend, renderer in wanted:
            setting = Setting(profile, backend, renderer)
            try:
                engine: Engine = setting.engine(target)
            except BackendUnavailable as error:
                if str(error) not in unavailable:
                    logger.warning("left out: %s", error)
                    unavailable.append(str(error))
                continue
            refines = engine.renderer is not None
            found.setdefault(
                (profile, engine.backend, refines),
                Setting(profile, backend, "network" if refines else "none"),
            )
        if not found:
            raise BackendUnavailable("; ".join(unavailable) or "nothing to measure")
        return list(found.values())


def latency_sections(
    path: Path | None, configurations: Configurations, seconds: float, report: Report | None
) -> dict[str, Any]:
    """{"latency": …, "live": …}, ready for a report."""
    with bench_target(path) as target:
        settings, best, load = configurations.settings(target), ceilings(), Load()
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
    """The figures as lines for people."""
    latency, lines = sections["latency"], []
    for run, live in zip(latency["runs"], sections["live"]["runs"], strict=True):
        total, click = run["compute_ms"], run["click"]
        lines += [
            "",
            f"{run_name(run)}, other processes used {run['others_cores']} cores",
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
        medians = ", ".join(f"{name} {parts[name]['p50']:.1f}" for name in parts)
        lines += [
            f"  in real time, p50 ms: {medians}",
            f"    compute p95 {parts['compute']['p95']:.2f} ms; sum of parts "
            f"{live['click']['parts_sum_ms']:.1f} ms, mean of {live['click']['clicks']} clicks "
            f"{live['click']['measured_ms']:.1f} ms; {live['late_frames']} frames late",
        ]
    cost = latency["instrumentation"]
    low, high = cost["interval_percent"]
    lines.append(f"recording the stages costs {cost['percent']} % ({low} to {high})")
    return "\n".join(lines)


def capacity_sections(
    path: Path | None, configurations: Configurations, seconds: float, report: Report | None,
    growth: bool = False, processes: Sequence[int] = (0,),
) -> dict[str, Any]:  # fmt: skip
    """{"capacity": …}, ready for a report; a run for each setting and number of processes.

    growth: also by cores, picture size and track.
    """
    runs, cores = [], usable_cores()
    with bench_target(path) as target:
        for setting, count in itertools.product(configurations.settings(target), processes):
            run = measure_capacity(target, setting, seconds, report=report, processes=count)
            if growth:
                run["growth"] = capacity_growth(
                    target, setting, cores, min(seconds, 3.0), report, count
                )
            runs.append(run)
    return {"capacity": {"runs": runs}}


def capacity_text(sections: Mapping[str, Any]) -> str:
    """The figures as lines for people."""
    lines = []
    for run in sections["capacity"]["runs"]:
        lines += ["", f"{capacity_name(run)}: {run['sessions']} conversations sustained"]
        lines += [
            f"  {row['sessions']:3d}  p50 {row['p50']:6.1f}  p99 {row['p99']:6.1f} ms  "
            f"{row['cores']:.2f} cores used, {row['others_cores']} by other processes"
            f"{'' if row['held'] else '  not sustained'}"
            for row in run["curve"]
        ]
        lines += [
            f"  {row['by']:<6} {row['value']:>6}: {row['sessions']}"
            for row in run.get("growth", ())
        ]
    return "\n".join(lines)


Part = Callable[[Report | None], tuple[dict[str, Any], str]]


def everything(path: Path | None, data: Path | None, seconds: float) -> dict[str, Part]:
    """The measurements of `bench all`, in order: {name: function that gives sections and a text}.

    path: a target; data: clips and labelled speech, which "quality" needs.
    """

    def latency(report: Report | None) -> tuple[dict[str, Any], str]:
        configurations = Configurations(tuple(PROFILE_LOOK_AHEAD_MS), ("all",), ("auto", "none"))
        sections = latency_sections(path, configurations, seconds, report)
        return sections, latency_text(sections)

    def capacity(report: Report | None) -> tuple[dict[str, Any], str]:
        configurations = Configurations(("live",), ("auto",), ("auto", "none"))
        sections = capacity_sections(path, configurations, seconds, report, growth=True)
        return sections, capacity_text(sections)

    def throughput(report: Report | None) -> tuple[dict[str, Any], str]:
        cores = usable_cores()
        found = measure_throughput(path, Setting(), cores, min(seconds, 5.0), report)
        return {"throughput": found}, throughput_text(found)

    def matcher(report: Report | None) -> tuple[dict[str, Any], str]:
        found = matcher_bench()
        return {"matcher": found}, matcher_text(found)

    def kernels(report: Report | None) -> tuple[dict[str, Any], str]:
        found = {"kernels": kernel_timings()}
        return {"kernels": found}, kernels_text(found)

    def webrtc(report: Report | None) -> tuple[dict[str, Any], str]:
        from lipstream.bench.measure.webrtc import measure_webrtc, webrtc_text

        found = measure_webrtc((40.0, 120.0), 3 * seconds, report)
        return {"webrtc": found}, webrtc_text(found)

    def quality(report: Report | None) -> tuple[dict[str, Any], str]:
        if data is None:
            raise UsageError("quality needs clips and labelled speech: name them with --data")
        from lipstream.bench.measure.speech import measure_quality, summary

        found = measure_quality(data, report=report)
        return {"quality": found}, summary(found)

    return {
        "latency": latency, "capacity": capacity, "throughput": throughput, "webrtc": webrtc,
        "matcher": matcher, "kernels": kernels, "quality": quality,
    }  # fmt: skip
