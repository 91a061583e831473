"""The report of the benchmarks: report.json with every raw sample, report.html for people.

Each command adds its own section and leaves those of the others, so that one folder gathers a
machine's figures. A section carries the machine as it was when it was measured.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lipstream.bench.charts import histogram, line_chart, table, waterfall
from lipstream.bench.compare import run_name
from lipstream.bench.latency_live import PARTS
from lipstream.calibration.report_style import STYLE
from lipstream.engine.errors import UsageError
from lipstream.engine.timing import STAGES

SCHEMA: Final = 1
_STYLE: Final = """
.bar{fill:var(--s0);opacity:.85}.dot{fill:var(--s0)}.dot.s1{fill:var(--s1)}.dot.s2{fill:var(--s2)}
.limit{stroke:var(--poor);stroke-width:1;stroke-dasharray:5 4}
table{border-collapse:collapse;width:100%;font-size:.85rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:3px 12px 3px 0}td.n{text-align:right}th{color:var(--soft)}
.chart{margin:10px 0;overflow-x:auto}
"""
_ORDER: Final = ("latency", "live", "capacity", "throughput", "webrtc", "matcher", "quality",
                 "kernels")  # fmt: skip


def section(machine: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """One command's part of a report."""
    return {"machine": dict(machine), "data": dict(data)}


def read_report(path: Path) -> dict[str, Any]:
    """A report.json, or the folder that holds one.

    Raises: UsageError when it is none.
    """
    file = path / "report.json" if path.is_dir() else path
    try:
        report = json.loads(file.read_text("utf8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: not a report of `lipstream bench` ({error})") from error
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise UsageError(f"{file}: not a report of this version (schema {SCHEMA}); make it again")
    return report


def write_report(folder: Path, sections: Mapping[str, Any]) -> Path:
    """Add sections to the report in `folder`; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "report.json"
    report: dict[str, Any] = {"schema": SCHEMA, "sections": {}}
    if file.exists():
        report = read_report(file)
    report["sections"].update(sections)
    text = json.dumps(report, default=_plain, allow_nan=False)
    fresh = folder / "report.json.part"
    fresh.write_text(text, "utf8")
    fresh.replace(file)
    (folder / "report.html").write_text(page(json.loads(text)), "utf8")
    return folder / "report.html"


def page(report: Mapping[str, Any]) -> str:
    """Self-contained HTML."""
    drawn = {
        "latency": _latency, "live": _live, "capacity": _capacity, "throughput": _throughput,
        "webrtc": _webrtc, "matcher": _matcher, "quality": _quality,
    }  # fmt: skip
    parts = []
    for kind in _ORDER:
        if kind in report["sections"] and kind in drawn:
            one = report["sections"][kind]
            parts.append(
                f"<section>{drawn[kind](one['data'])}"
                f'<p class="eyebrow">{html.escape(_machine(one["machine"]))}</p></section>'
            )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>lipstream: measurements</title><style>{STYLE}{_STYLE}</style>"
        f"<main><h1>lipstream: measurements</h1>{''.join(parts)}</main></html>"
    )


def _machine(machine: Mapping[str, Any]) -> str:
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, Python "
        f"{machine['python']}, commit {machine['commit']}, {machine['date']}, others kept "
        f"{machine['others_cores']} cores busy{'' if machine['quiet'] else ': NOT a quiet machine'}"
    )


def _latency(data: Mapping[str, Any]) -> str:
    out = ["<h2>Sound in to frame out, as fast as it goes</h2>"]
    heads = ("run", "algorithmic ms", "by click ms", "compute p50", "p95", "p99", "max", "first",
             "slowest stage", "not in a stage %")  # fmt: skip
    out.append(
        table(
            heads,
            [
                (
                    run_name(run), run["algorithmic_ms"], run["click"]["measured_ms"],
                    run["total_ms"]["p50"], run["total_ms"]["p95"], run["total_ms"]["p99"],
                    run["total_ms"]["max"], run["start_ms"]["first_frame"], run["slowest_stage"],
                    run["sum"]["unattributed_percent"],
                )
                for run in data["runs"]
            ],
        )
    )  # fmt: skip
    for run in data["runs"]:
        name = run_name(run)
        bars = [(s, run["stages"][s]["mean"]) for s in STAGES if s in run["stages"]]
        out.append(f"<h3>{html.escape(name)}<small>one frame, mean</small></h3>")
        out.append(waterfall(f"One frame, {name}", bars))
        out.append(
            histogram(f"Compute, {name}", ("compute and encoding, ms", "frames"),
                      run["samples_ms"]["total"])
        )  # fmt: skip
        rows = []
        for stage in STAGES:
            if stage in run["stages"]:
                p, roof = run["stages"][stage], run["roofline"].get(stage, {})
                rows.append(
                    (
                        stage, p["p50"], p["p95"], p["p99"], p["max"],
                        roof.get("macs", 0.0) / 1e6, roof.get("bytes", 0.0) / 1e6,
                        roof.get("least_ms", 0.0), roof.get("bound", ""),
                        100 * (roof.get("reached") or 0.0),
                    )
                )  # fmt: skip
        out.append(
            table(
                ("stage", "p50 ms", "p95", "p99", "max", "10⁶ multiply-adds", "MB",
                 "least ms", "bound by", "% of roofline"), rows)
        )  # fmt: skip
    best = ", ".join(f"{name} {value}" for name, value in data["ceilings"].items())
    cost = data.get("instrumentation", {})
    out.append(
        f'<p class="lead">The machine at best, one thread: {html.escape(best)}. Recording costs '
        f"{cost.get('percent', 0)} % (95 %: {cost.get('interval_percent')}).</p>"
    )
    return "".join(out)


def _live(data: Mapping[str, Any]) -> str:
    out = ["<h2>Sound in to frame out, on the clock</h2>"]
    for run in data["runs"]:
        name, click = run_name(run), run["click"]
        out.append(f"<h3>{html.escape(name)}<small>one conversation, mean</small></h3>")
        bars = [(part, run["parts"][part]["mean"]) for part in PARTS]
        out.append(waterfall(f"One frame on the clock, {name}", bars))
        heads = ("part", "p50 ms", "p95", "p99", "max")
        out.append(
            table(heads, [(p, *(run["parts"][p][q] for q in ("p50", "p95", "p99", "max")))
                          for p in (*PARTS, "total")])
        )  # fmt: skip
        out.append(
            f'<p class="lead">The parts add up to {click["parts_sum_ms"]} ms; {click["clicks"]} '
            f"clicks took {click['measured_ms']} ms. First frame after "
            f"{run['first_frame_ms']} ms; {run['late_frames']} late.</p>"
        )
    return "".join(out)


def _capacity(data: Mapping[str, Any]) -> str:
    out = ["<h2>Conversations at once</h2>"]
    for run in data["runs"]:
        curve = run["curve"]
        series = {q: [(row["sessions"], row[q]) for row in curve] for q in ("p50", "p95", "p99")}
        interval = run["interval_ms"]
        out.append(
            f"<h3>{html.escape(run_name(run))}<small>{run['sessions']} held</small></h3>"
            + line_chart("Capacity", ("conversations", "complete sound to encoded picture, ms"),
                         series, (interval, f"frame interval, {interval:.0f} ms"))
        )  # fmt: skip
    return "".join(out)


def _throughput(data: Mapping[str, Any]) -> str:
    out = ["<h2>Frames a second</h2>"]
    for by, axis in (("threads", "threads"), ("processes", "processes"),
                     ("size", "longer side, px"), ("track", "frames of the track")):  # fmt: skip
        points = [(row["value"], row["fps"]) for row in data["rows"] if row["by"] == by]
        out.append(line_chart(f"By {by}", (axis, "frames a second"), {by: points}, log_x=True))
    return "".join(out)


def _webrtc(data: Mapping[str, Any]) -> str:
    heads = ("engine delay ms", "microphone to picture p50", "p95", "p99", "bursts",
             "sound against picture p50", "least", "most", "own error ms")  # fmt: skip
    rows, offsets = [], {}
    for run in data["runs"]:
        p, o = run["delay_ms"], run["offset_ms"]
        rows.append((run["engine_delay_ms"], p["p50"], p["p95"], p["p99"], run["bursts"],
                     o["p50"], o["min"], o["max"], run["error_ms"]))  # fmt: skip
        offsets[f"engine delay {run['engine_delay_ms']:.0f} ms"] = [
            (round(t, 2), v) for t, v in run["offset_over_time"]
        ]
    return (
        "<h2>Through a browser</h2>"
        + table(heads, rows)
        + line_chart("Sound against picture", ("s", "sound late, ms"), offsets)
    )


def _matcher(data: Mapping[str, Any]) -> str:
    gaps = {
        "guided": [(row["lag_ms"], row["gap_percent"]) for row in data["gap"]],
        "without the guide": [(row["lag_ms"], row["blind_percent"]) for row in data["gap"]],
    }
    times = {q: [(row["frames"], row[f"{q}_ms"]) for row in data["time"]] for q in ("p50", "p99")}
    return (
        "<h2>Matcher</h2><h3>Cost above the offline optimum against lag</h3>"
        + line_chart("Gap", ("lag, ms", "above the optimum, %"), gaps)
        + "<h3>Time of a frame against the length of the track</h3>"
        + line_chart("Time", ("frames of the track", "ms a frame"), times)
    )


def _quality(data: Mapping[str, Any]) -> str:
    from lipstream.engine.encoder import PROFILE_LOOK_AHEAD_MS

    series: dict[str, list[tuple[float, float]]] = {}
    for profile, groups in data["profiles"].items():
        for group, figures in groups.items():
            if "opening_r" in figures:
                point = (float(PROFILE_LOOK_AHEAD_MS[profile]), float(figures["opening_r"]))
                series.setdefault(group, []).append(point)
    return "<h2>Quality against look-ahead</h2>" + line_chart(
        "Frontier", ("look-ahead, ms", "correlation of the opening with the real lips"), series
    )


def _plain(value: object) -> object:
    """JSON for numpy scalars and arrays."""
    for method in ("tolist", "item"):
        if hasattr(value, method):
            return getattr(value, method)()
    return str(value)
