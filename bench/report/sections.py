"""What each section of the report shows: pictures first, tables folded away behind them."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from lipstream.bench.measure.live import PARTS as WAY
from lipstream.bench.report.charts import figure, histogram, line_chart, table, waterfall
from lipstream.bench.report.compare import run_name
from lipstream.engine.profiling import SPANS
from lipstream.engine.speech.encoder import PROFILE_LOOK_AHEAD_MS

Data = Mapping[str, Any]
_SPREAD: Final = ("p50", "p95", "p99", "max")


def at_a_glance(sections: Data) -> str:
    """The few figures that a visitor came for, of the `live` profile."""
    shown: list[tuple[str, str]] = []
    for run in _live_runs(sections, "latency"):
        network = "with the network" if run["renderer"] else "without the network"
        compute = run["compute_ms"]
        shown.append((f"compute, p95, {network}", f"{figure(compute['p95'])} ms"))
    for run in _live_runs(sections, "latency")[:1]:
        shown.insert(0, ("delay before compute, live", f"{run['algorithmic_ms']:.0f} ms"))
    for run in _live_runs(sections, "capacity"):
        network = "with the network" if run["renderer"] else "without the network"
        shown.append((f"conversations at once, {network}", str(run["sessions"])))
    for run in sections.get("webrtc", {"data": {}})["data"].get("runs", ()):
        name = f"microphone to picture in a browser, engine delay {run['engine_delay_ms']:.0f} ms"
        shown.append((name, f"{run['delay_ms']['p50']:.0f} ms"))
    if not shown:
        return ""
    cells = "".join(
        f"<div><dt>{html.escape(what)}</dt><dd>{html.escape(value)}</dd></div>"
        for what, value in shown
    )
    return f"<dl>{cells}</dl>"


def _live_runs(sections: Data, kind: str) -> list[Data]:
    """Of the `live` profile, one for each kind of mouth: the first, which is of the default
    backend."""
    found: dict[bool, Data] = {}
    for run in sections.get(kind, {"data": {}})["data"].get("runs", ()):
        if run["profile"] == "live":
            found.setdefault(run["renderer"], run)
    return list(found.values())


def _title(words: str, lead: str) -> str:
    return f'<h2>{html.escape(words)}</h2><p class="lead">{html.escape(lead)}</p>'


def _folded(name: str, inside: str) -> str:
    return f"<details><summary>{html.escape(name)}</summary>{inside}</details>"


def _runs(data: Data, draw: Callable[[Data], str]) -> str:
    """The runs of the live profile openly, the others folded."""
    first = {id(run) for run in _live_runs({"it": {"data": data}}, "it")}
    out = []
    for run in data["runs"]:
        if id(run) in first or len(data["runs"]) == 1:
            out.append(f"<h3>{html.escape(run_name(run))}</h3>{draw(run)}")
    out += [_folded(run_name(run), draw(run)) for run in data["runs"] if id(run) not in first]
    return "".join(out)


def _latency(data: Data) -> str:
    heads = ("run", "delay", "by click", "p50", "p95", "p99", "max", "encoding", "first frame",
             "slowest stage", "in no stage, %")  # fmt: skip
    rows = [
        (
            run_name(run), run["algorithmic_ms"], run["click"]["measured_ms"],
            *(run["compute_ms"][q] for q in _SPREAD), run["encode_ms"]["p50"],
            run["start_ms"]["first_frame"], run["slowest_stage"],
            run["sum"]["unattributed_percent"],
        )
        for run in data["runs"]
    ]  # fmt: skip
    best = ", ".join(
        f"{value} {'GB/s copied' if name == 'copy_gb_s' else '10⁹ multiply-adds/s in ' + name[7:]}"
        for name, value in data["ceilings"].items()
    )
    cost = data["instrumentation"]
    low, high = cost["interval_percent"]
    return (
        _title(
            "From sound to picture, as fast as it goes",
            "Compute from a complete chunk of sound to its frame, and encoding, without a clock. "
            "The delay is how much sound after its own moment a frame waits for, before compute; "
            "the click measures it. All in ms: percentiles of compute, the median of encoding.",
        )
        + table(heads, rows)
        + _runs(data, _one_latency)
        + f'<p class="lead">The machine at best, one thread: {html.escape(best)}. Recording the '
        f"stages costs {cost['percent']} % ({low} to {high}).</p>"
    )


def _one_latency(run: Data) -> str:
    stages, roof = run["stages"], run["roofline"]
    named = [stage for stage in SPANS if stage in stages]
    least = {stage: roof[stage]["least_ms"] for stage in named if stage in roof}
    rows = [
        (
            stage, *(stages[stage][q] for q in _SPREAD),
            *(
                (roof[stage]["macs"] / 1e6, roof[stage]["bytes"] / 1e6, roof[stage]["least_ms"],
                 roof[stage]["bound"], 100 * (roof[stage]["reached"] or 0.0))
                if stage in roof else (None, None, None, "", None)
            ),
        )
        for stage in named
    ]  # fmt: skip
    heads = ("stage", "p50, ms", "p95", "p99", "max", "10⁶ multiply-adds", "MB", "at best, ms",
             "bound by", "of the roofline, %")  # fmt: skip
    return (
        waterfall("One frame, mean", [(s, stages[s]["mean"]) for s in named], least)
        + histogram("Compute and encoding", ("compute and encoding, ms", "frames"),
                    run["samples_ms"]["total"], [(sum(least.values()), "roofline")])
        + _folded("stage by stage", table(heads, rows))
    )  # fmt: skip


def _live(data: Data) -> str:
    return _title(
        "From sound to picture, on the clock",
        "One conversation as the server holds it: chunks arrive as they are spoken. What a frame "
        "waited for (queues, and the hold until its time has come) is apart from compute.",
    ) + _runs(data, _one_live)


def _one_live(run: Data) -> str:
    parts, click = run["parts"], run["click"]
    rows = [
        (part.replace("_", " "), *(parts[part][q] for q in _SPREAD)) for part in (*WAY, "total")
    ]
    told = (
        f"The parts of the frames that carried a click add up to {click['parts_sum_ms']:.1f} ms; "
        f"their {click['clicks']} clicks took {click['measured_ms']:.1f} ms. First frame after "
        f"{run['first_frame_ms']:.0f} ms; {run['late_frames']} frames late."
    )
    return (
        waterfall("One frame on the clock, mean", [(part, parts[part]["mean"]) for part in WAY])
        + f'<p class="lead">{html.escape(told)}</p>'
        + _folded("part by part", table(("part", "p50, ms", *_SPREAD[1:]), rows))
    )


def _capacity(data: Data) -> str:
    out = [
        _title(
            "Conversations at once",
            "Each on the clock, in threads of one process. A number is held while 99 % of the "
            "pictures are ready within the frame interval of their sound.",
        )
    ]
    for run in data["runs"]:
        series = {q: [(row["sessions"], row[q]) for row in run["curve"]] for q in _SPREAD[:3]}
        interval = run["interval_ms"]
        out.append(
            f"<h3>{html.escape(run_name(run))}<small>{run['sessions']} held</small></h3>"
            + line_chart("Capacity", ("conversations", "complete sound to encoded picture, ms"),
                         series, (interval, f"frame interval, {interval:.0f} ms"),
                         (run["roofline_ms"], "roofline of one frame"))
        )  # fmt: skip
        if run.get("growth"):
            charts = "".join(
                line_chart(
                    f"By {by}", (axis, "conversations held"), {by: points}, log_x=True, half=True
                )
                for by, axis, points in _by(run["growth"], "sessions")
            )
            out.append(f'<div class="pair">{charts}</div>')
    return "".join(out)


def _throughput(data: Data) -> str:
    roofs = {by: points for by, _, points in _by(data["rows"], "roofline_fps")}
    charts = "".join(
        line_chart(f"By {by}", (axis, "frames a second"),
                   {"measured": points, "roofline": roofs[by]}, log_x=True, half=True)
        for by, axis, points in _by(data["rows"], "fps")
    )  # fmt: skip
    lead = "No clock, encoding and all; of all sessions together. " + run_name(data) + "."
    return _title("Frames a second", lead) + f'<div class="pair">{charts}</div>'


_AXES: Final = {
    "sessions": "sessions in one process",
    "processes": "processes of one session",
    "cores": "cores allowed",
    "size": "longer side of the picture, px",
    "track": "frames of footage",
}


def _by(rows: Sequence[Data], key: str) -> list[tuple[str, str, list[tuple[float, float]]]]:
    """(name, axis, points) of each series in rows of by, value."""
    found = []
    for by, axis in _AXES.items():
        points = [(float(row["value"]), float(row[key])) for row in rows if row["by"] == by]
        if points:
            found.append((by, axis, points))
    return found


def _webrtc(data: Data) -> str:
    heads = ("engine delay, ms", "microphone to picture p50, ms", "p95", "p99", "bursts",
             "sound late p50, ms", "least", "most", "own error, ms")  # fmt: skip
    rows, offsets = [], {}
    for run in data["runs"]:
        p, o = run["delay_ms"], run["offset_ms"]
        rows.append((run["engine_delay_ms"], p["p50"], p["p95"], p["p99"], run["bursts"],
                     o["p50"], o["min"], o["max"], run["error_ms"]))  # fmt: skip
        offsets[f"engine delay {run['engine_delay_ms']:.0f} ms"] = [
            (round(t, 2), v) for t, v in run["offset_over_time"]
        ]
    return (
        _title(
            "Through a browser",
            "Chromium calls the server on this machine: from a sound at its microphone to the "
            "picture that shows it, and how late the sound is against the picture.",
        )
        + table(heads, rows)
        + line_chart("Sound against picture", ("s", "sound late, ms"), offsets)
    )


def _matcher(data: Data) -> str:
    gaps = {
        "with the guide": [(row["lag_ms"], row["gap_percent"]) for row in data["gap"]],
        "without it": [(row["lag_ms"], row["blind_percent"]) for row in data["gap"]],
    }
    times: dict[str, list[tuple[float, float]]] = {
        q: [(row["frames"], row[f"{q}_ms"]) for row in data["time"]] for q in ("p50", "p99")
    }
    times["roofline"] = [(row["frames"], row["roofline_ms"]) for row in data["time"]]
    book = data["textbook_ms_per_frame"]
    told = (
        f"A textbook Viterbi over all pairs, {book['mean_ms']:.2f} ms a frame at "
        f"{book['frames']} frames of footage in the same run, reached a cost of "
        f"{data['textbook_optimum']:.4f}; this one with the whole clip as its lag, "
        f"{data['optimum']:.4f}."
    )
    return (
        _title("Matcher", "What a short lag costs against the best path, and what a frame costs.")
        + line_chart("Gap", ("lag, ms", "cost above the best path, %"), gaps)
        + f'<p class="lead">{html.escape(told)}</p>'
        + line_chart("Time", ("frames of footage", "ms a frame"), times, log_x=True)
    )


def _quality(data: Data) -> str:
    charts = []
    for key, axis in (
        ("opening_r", "opening of the lips, r"),
        ("bilabials_closed", "share of p, b, m that close"),
    ):
        series: dict[str, list[tuple[float, float]]] = {}
        for look_ahead_ms, groups in _frontier(data):
            for group, figures in groups.items():
                if isinstance(figures, Mapping) and key in figures:
                    name = group.replace("_", " ")
                    series.setdefault(name, []).append((look_ahead_ms, float(figures[key])))
        charts.append(line_chart("Frontier", ("look-ahead, ms", axis), series, half=True))
    profiles = ", ".join(f"{name} {ms} ms" for name, ms in PROFILE_LOOK_AHEAD_MS.items())
    lead = (
        "How well lips follow voices of people never seen, against how much of the sound to come "
        f"is heard first. Profiles: {profiles}."
    )
    return _title("Quality against look-ahead", lead) + (
        f'<div class="pair">{"".join(charts)}</div>'
    )


def _frontier(data: Data) -> list[tuple[float, Data]]:
    """(look-ahead in ms, figures by group), from the least."""
    if "look_aheads" in data:
        found = [(float(one["look_ahead_ms"]), one) for one in data["look_aheads"]]
    else:
        found = [
            (float(PROFILE_LOOK_AHEAD_MS[name]), one) for name, one in data["profiles"].items()
        ]
    return sorted(found, key=lambda one: one[0])


def _kernels(data: Data) -> str:
    rows = [
        (name, row["compiled_ms"], row["numpy_ms"], row["ratio"])
        for name, row in data["kernels"].items()
    ]
    return _title(
        "Kernels", "Compiled against their readable twins in NumPy; CPU time, one thread."
    ) + table(("kernel", "compiled, ms", "NumPy, ms", "times as fast"), rows)


PARTS: Final[dict[str, Callable[[Data], str]]] = {
    "latency": _latency, "live": _live, "capacity": _capacity, "throughput": _throughput,
    "webrtc": _webrtc, "matcher": _matcher, "quality": _quality, "kernels": _kernels,
}  # fmt: skip
