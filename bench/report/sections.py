"""The sections of the report: charts, with the tables behind them folded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup

from lipstream.bench.measure.live import PARTS as LATENCY_PARTS
from lipstream.bench.report.charts import Level, figure, histogram, line_chart, table, waterfall
from lipstream.bench.report.compare import capacity_name, run_name
from lipstream.bench.report.template import fragment, template
from lipstream.engine.profiling import SPANS
from lipstream.engine.speech.encoder import PROFILE_LOOK_AHEAD_MS

Data = Mapping[str, Any]
_SPREAD: Final = ("p50", "p95", "p99", "max")
_HEADING: Final = template("""\
<h2>{{ title }}</h2>
<p class="lead">{{ lead }}</p>
""")
_NOTE: Final = template("""\
<p class="lead">{{ text }}</p>
""")
_RUNS: Final = template("""\
{% for name, content in shown %}
<h3>{{ name }}</h3>
{{ content }}
{% endfor %}
{% for name, content in folded %}
<details><summary>{{ name }}</summary>{{ content }}</details>
{% endfor %}
""")
_CAPACITY_RUN: Final = template("""\
<h3>{{ name }}<small>{{ sessions }} sustained</small></h3>
{{ curve }}
""")
_PAIR: Final = template("""\
<div class="pair">{% for chart in charts %}{{ chart }}{% endfor %}</div>
""")


def at_a_glance(sections: Data) -> list[tuple[str, str]]:
    """Name and value of the most important figures, of the `live` profile."""
    shown: list[tuple[str, str]] = []
    for run in _live_runs(sections, "latency"):
        compute = run["compute_ms"]
        shown.append((f"compute, p95, {_renderer(run)}", f"{figure(compute['p95'])} ms"))
    for run in _live_runs(sections, "latency")[:1]:
        shown.insert(0, ("delay before compute, live", f"{run['algorithmic_ms']:.0f} ms"))
    for run in _live_runs(sections, "capacity"):
        shown.append((f"conversations at once, {_renderer(run)}", str(run["sessions"])))
    for run in sections.get("webrtc", {"data": {}})["data"].get("runs", ()):
        name = f"microphone to picture in a browser, engine delay {run['engine_delay_ms']:.0f} ms"
        shown.append((name, f"{run['delay_ms']['p50']:.0f} ms"))
    return shown


def _renderer(run: Data) -> str:
    return "with the renderer" if run["renderer"] else "without the renderer"


def _live_runs(sections: Data, kind: str) -> list[Data]:
    """Runs of the `live` profile and the default backend, with and without the renderer.

    The run of the default backend comes first in a report.
    """
    found: dict[bool, Data] = {}
    for run in sections.get(kind, {"data": {}})["data"].get("runs", ()):
        if run["profile"] == "live":
            found.setdefault(run["renderer"], run)
    return list(found.values())


def _heading(title: str, lead: str) -> Markup:
    return fragment(_HEADING, title=title, lead=lead)


def _note(text: str) -> Markup:
    return fragment(_NOTE, text=text)


def _folded(name: str, content: Markup) -> Markup:
    return fragment(_RUNS, shown=(), folded=[(name, content)])


def _pair(charts: Sequence[Markup]) -> Markup:
    return fragment(_PAIR, charts=charts)


def _runs(data: Data, draw: Callable[[Data], Markup]) -> Markup:
    """The runs of `_live_runs`, and the others folded."""
    first = {id(run) for run in _live_runs({"it": {"data": data}}, "it")}
    alone = len(data["runs"]) == 1
    drawn = [(run, (run_name(run), draw(run))) for run in data["runs"]]
    return fragment(
        _RUNS,
        shown=[one for run, one in drawn if id(run) in first or alone],
        folded=[one for run, one in drawn if id(run) not in first and not alone],
    )


def _latency(data: Data) -> Markup:
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
    ceilings = ", ".join(
        f"{value} {'GB/s copied' if name == 'copy_gb_s' else '10⁹ multiply-adds/s in ' + name[7:]}"
        for name, value in data["ceilings"].items()
    )
    cost = data["instrumentation"]
    low, high = cost["interval_percent"]
    return (
        _heading(
            "Latency without a clock",
            "Compute from a complete chunk of sound to its frame, and encoding. The delay is the "
            "sound after its own time that a frame needs, without compute; the click measures it. "
            "All in ms: percentiles of compute, the median of encoding.",
        )
        + table(heads, rows)
        + _runs(data, _one_latency)
        + _note(
            f"Ceilings of the machine, one thread: {ceilings}. Recording the stages costs "
            f"{cost['percent']} % ({low} to {high})."
        )
    )


def _one_latency(run: Data) -> Markup:
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
    heads = ("stage", "p50, ms", "p95", "p99", "max", "10⁶ multiply-adds", "MB", "roofline, ms",
             "bound by", "of the roofline, %")  # fmt: skip
    return (
        waterfall("One frame, mean", [(s, stages[s]["mean"]) for s in named], least)
        + histogram("Compute and encoding", ("compute and encoding, ms", "frames"),
                    run["samples_ms"]["total"], [Level(sum(least.values()), "roofline")])
        + _folded("stage by stage", table(heads, rows))
    )  # fmt: skip


def _live(data: Data) -> Markup:
    return _heading(
        "Latency in real time",
        "One conversation as in the server: chunks arrive in real time. The waiting of a frame (in "
        "queues, and until its presentation time) is apart from compute.",
    ) + _runs(data, _one_live)


def _one_live(run: Data) -> Markup:
    parts, click = run["parts"], run["click"]
    rows = [
        (part.replace("_", " "), *(parts[part][q] for q in _SPREAD))
        for part in (*LATENCY_PARTS, "total")
    ]
    note = (
        f"The parts of the frames with a click add up to {click['parts_sum_ms']:.1f} ms; the mean "
        f"of their {click['clicks']} clicks is {click['measured_ms']:.1f} ms. First frame after "
        f"{run['first_frame_ms']:.0f} ms; {run['late_frames']} frames late."
    )
    return (
        waterfall(
            "One frame in real time, mean", [(part, parts[part]["mean"]) for part in LATENCY_PARTS]
        )
        + _note(note)
        + _folded("part by part", table(("part", "p50, ms", *_SPREAD[1:]), rows))
    )


def _capacity(data: Data) -> Markup:
    out = [
        _heading(
            "Conversations at once",
            "Each in real time. A number of conversations is sustained if 99 % of the pictures are "
            "ready within a frame interval after their sound.",
        )
    ]
    for run in data["runs"]:
        series = {q: [(row["sessions"], row[q]) for row in run["curve"]] for q in _SPREAD[:3]}
        interval = run["interval_ms"]
        out.append(
            fragment(
                _CAPACITY_RUN, name=capacity_name(run), sessions=run["sessions"],
                curve=line_chart(
                    "Capacity", ("conversations", "complete sound to encoded picture, ms"), series,
                    (Level(interval, f"frame interval, {interval:.0f} ms", "limit"),
                     Level(run["roofline_ms"], "roofline of one frame")),
                ),
            )
        )  # fmt: skip
        if run.get("growth"):
            charts = [
                line_chart(f"By {by}", (axis, "conversations"), {by: points}, log_x=True, half=True)
                for by, axis, points in _by(run["growth"], "sessions")
            ]
            out.append(_pair(charts))
    return Markup("").join(out)


def _throughput(data: Data) -> Markup:
    roofs = {by: points for by, _, points in _by(data["rows"], "roofline_fps")}
    charts = [
        line_chart(f"By {by}", (axis, "fps"),
                   {"measured": points, "roofline": roofs[by]}, log_x=True, half=True)
        for by, axis, points in _by(data["rows"], "fps")
    ]  # fmt: skip
    lead = f"Without a clock, encoding included, sum over all sessions. {run_name(data)}."
    return _heading("Throughput", lead) + _pair(charts)


_AXES: Final = {
    "sessions": "sessions in one process",
    "processes": "processes of one session each",
    "cores": "usable cores",
    "size": "longer side of the picture, px",
    "track": "frames of footage",
}


def _by(rows: Sequence[Data], key: str) -> list[tuple[str, str, list[tuple[float, float]]]]:
    """(name, axis, points) of each series in rows of `by`, `value` and `key`."""
    found = []
    for by, axis in _AXES.items():
        points = [(float(row["value"]), float(row[key])) for row in rows if row["by"] == by]
        if points:
            found.append((by, axis, points))
    return found


def _webrtc(data: Data) -> Markup:
    heads = ("engine delay, ms", "microphone to picture p50, ms", "p95", "p99", "bursts",
             "A/V offset p50, ms", "min", "max", "error, ms")  # fmt: skip
    rows, offsets = [], {}
    for run in data["runs"]:
        p, o = run["delay_ms"], run["offset_ms"]
        rows.append((run["engine_delay_ms"], p["p50"], p["p95"], p["p99"], run["bursts"],
                     o["p50"], o["min"], o["max"], run["error_ms"]))  # fmt: skip
        offsets[f"engine delay {run['engine_delay_ms']:.0f} ms"] = [
            (round(t, 2), v) for t, v in run["offset_over_time"]
        ]
    return (
        _heading(
            "Through a browser",
            "Chromium calls the server on this machine. Delay from a sound at its microphone to "
            "the picture that shows it, and A/V offset; above 0 the sound is late.",
        )
        + table(heads, rows)
        + line_chart("A/V offset", ("s", "A/V offset, ms"), offsets)
    )


def _matcher(data: Data) -> Markup:
    gaps = {
        "with cost-to-go guide": [(row["lag_ms"], row["gap_percent"]) for row in data["gap"]],
        "without guide": [(row["lag_ms"], row["blind_percent"]) for row in data["gap"]],
    }
    times: dict[str, list[tuple[float, float]]] = {
        q: [(row["frames"], row[f"{q}_ms"]) for row in data["time"]] for q in ("p50", "p99")
    }
    times["roofline"] = [(row["frames"], row["roofline_ms"]) for row in data["time"]]
    book = data["textbook_ms_per_frame"]
    note = (
        f"In the same run a textbook Viterbi over all pairs of {book['frames']} frames took "
        f"{book['mean_ms']:.2f} ms per frame, for a path cost of {data['textbook_optimum']:.4f}; "
        f"the matcher with a lag of the whole clip finds {data['optimum']:.4f}."
    )
    return (
        _heading("Matcher", "Path cost above the optimum by lag, and time per frame.")
        + line_chart("Gap", ("lag, ms", "path cost above the optimum, %"), gaps)
        + _note(note)
        + line_chart("Time", ("frames of footage", "ms per frame"), times, log_x=True)
    )


def _quality(data: Data) -> Markup:
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
        "Accuracy of the lips for speakers outside the training data, by look-ahead. Profiles: "
        f"{profiles}."
    )
    return _heading("Quality against look-ahead", lead) + _pair(charts)


def _frontier(data: Data) -> list[tuple[float, Data]]:
    """(look-ahead in ms, figures by group), the shortest first."""
    if "look_aheads" in data:
        found = [(float(one["look_ahead_ms"]), one) for one in data["look_aheads"]]
    else:
        found = [
            (float(PROFILE_LOOK_AHEAD_MS[name]), one)
            for name, one in data["profiles"].items()
            if name in PROFILE_LOOK_AHEAD_MS
        ]
    return sorted(found, key=lambda one: one[0])


def _kernels(data: Data) -> Markup:
    rows = [
        (name, row["compiled_ms"], row["numpy_ms"], row["ratio"])
        for name, row in data["kernels"].items()
    ]
    return _heading(
        "Kernels", "Compiled kernels against their NumPy twins; CPU time, one thread."
    ) + table(("kernel", "compiled, ms", "NumPy, ms", "ratio"), rows)


PARTS: Final[dict[str, Callable[[Data], Markup]]] = {
    "latency": _latency, "live": _live, "capacity": _capacity, "throughput": _throughput,
    "webrtc": _webrtc, "matcher": _matcher, "quality": _quality, "kernels": _kernels,
}  # fmt: skip
