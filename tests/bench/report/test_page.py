"""The report: every section, its charts, and the format of figures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lipstream.bench.machine import Load, describe
from lipstream.bench.report.charts import Level, figure, histogram, line_chart, table
from lipstream.bench.report.page import page, section, write_report
from lipstream.engine.errors import MediaError

RUN = {"profile": "live", "backend": "x", "renderer": True, "size": [512, 512]}
HELD = {"sessions": 2, "p50": 9.0, "p95": 12.0, "p99": 21.0, "held": True}
SPREAD = {"p50": 4.0, "p95": 5.0, "p99": 6.0, "max": 7.0, "mean": 4.2}


def drawn(kind: str, data: dict[str, Any]) -> str:
    return page({"sections": {kind: section(describe(Load()), data)}})


def circles(svg: str) -> list[str]:
    return re.findall(r"<circle[^>]*><title>([^<]*)</title>", svg)


def test_steal_time_makes_a_machine_not_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    load = Load()
    monkeypatch.setattr(Load, "others", lambda self: 0.0)
    monkeypatch.setattr(Load, "stolen", lambda self: 0.5)
    html = page({"sections": {"kernels": section(describe(load), {"kernels": {}})}})
    assert "the host took 0.50: NOT a quiet machine" in html
    monkeypatch.undo()
    stolen = load.stolen()
    assert stolen is None or 0 <= stolen <= 64


def test_a_report_that_cannot_be_written_leaves_no_incomplete_file(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(MediaError, match="cannot write"):
        write_report(tmp_path, {"kernels": section(describe(Load()), {"kernels": {}})})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]


def test_capacity_shows_limit_roofline_and_growth() -> None:
    growth = [
        {"by": "cores", "value": 1, "sessions": 3},
        {"by": "cores", "value": 2, "sessions": 6},
    ]
    run = {**RUN, "sessions": 2, "interval_ms": 40.0, "roofline_ms": 3.5, "curve": [HELD]}
    html = drawn("capacity", {"runs": [{**run, "growth": growth}]})
    assert "frame interval, 40 ms" in html
    assert "roofline of one frame" in html
    assert circles(html) == ["2: 9", "2: 12", "2: 21", "1: 3", "2: 6"]
    assert "conversations at once, with the renderer</dt><dd>2</dd>" in html


def test_throughput_is_plotted_with_its_roofline() -> None:
    rows = [
        {"by": by, "value": 2**k, "fps": 90.0 + k, "roofline_fps": 300.0}
        for by in ("sessions", "size")
        for k in (0, 1)
    ]
    html = drawn("throughput", {**RUN, "rows": rows})
    assert circles(html) == ["1: 90", "2: 91", "1: 300", "2: 300"] * 2
    assert "sessions in one process" in html


def test_quality_is_plotted_over_look_aheads_where_a_report_has_them() -> None:
    data: dict[str, Any] = {
        "profiles": {"low": {"people": {"opening_r": 0.5}}, "live": {"people": {"opening_r": 0.6}}}
    }
    assert circles(drawn("quality", data)) == ["40: 0.5", "120: 0.6"]
    data["look_aheads"] = [
        {
            "look_ahead_ms": ms,
            "people": {"opening_r": 0.4 + ms / 1000},
            "closures": {"bilabials_closed": 0.9},
        }
        for ms in (200, 0, 80)
    ]
    html = drawn("quality", data)
    assert circles(html) == ["0: 0.4", "80: 0.48", "200: 0.6", "0: 0.9", "80: 0.9", "200: 0.9"]
    assert "opening of the lips" in html
    assert "share of p, b, m that close" in html


def test_the_matcher_is_compared_with_a_textbook_viterbi() -> None:
    time = {"frames": 500, "p50_ms": 0.1, "p99_ms": 0.2, "roofline_ms": 0.01}
    data = {
        "gap": [{"lag_ms": 0, "gap_percent": 23.0, "blind_percent": 50.0}],
        "time": [time, {**time, "frames": 15_000}],
        "textbook_ms_per_frame": {"frames": 500, "mean_ms": 1.5},
        "optimum": 10.0,
        "textbook_optimum": 10.0,
    }
    html = drawn("matcher", data)
    assert circles(html)[:2] == ["0: 23", "0: 50"]
    assert "textbook Viterbi" in html


def test_sections_of_live_webrtc_and_kernels() -> None:
    names = ("algorithmic", "chunking", "queue", "compute", "hand_over", "hold",
             "encode", "total")  # fmt: skip
    click = {"parts_sum_ms": 170.0, "measured_ms": 170.1, "clicks": 9}
    run = {**RUN, "parts": dict.fromkeys(names, SPREAD), "click": click, "first_frame_ms": 200.0,
           "late_frames": 0}  # fmt: skip
    assert "their 9 clicks is 170.1 ms" in drawn("live", {"runs": [run]})
    call = {
        "engine_delay_ms": 120.0, "delay_ms": SPREAD, "bursts": 30, "error_ms": 12.0,
        "offset_ms": {**SPREAD, "min": -9.0}, "offset_over_time": [[0, 1.0], [1, 2.0]],
    }  # fmt: skip
    html = drawn("webrtc", {"runs": [call]})
    assert "engine delay 120 ms</dt><dd>4 ms" in html
    assert circles(html) == ["0: 1", "1: 2"]
    row = {"compiled_ms": 0.1, "numpy_ms": 10.0, "ratio": 100.0}
    assert "<td class=n>100</td>" in drawn("kernels", {"kernels": {"blend": row}})


def test_labels_of_a_histogram_do_not_overlap() -> None:
    svg = histogram("x", ("ms", "frames"), [1.0, 1.01, 1.02, 1.03] * 9, [Level(0.9, "roofline")])
    labels = re.findall(r'y="([\d.]+)" text-anchor="(?:start|end)">(p\d+|roofline)', svg)
    assert len({y for y, _ in labels}) == len(labels) == 4
    assert max(float(x) for x in re.findall(r'x[12]?="([\d.]+)"', svg)) <= 760


def test_a_high_peak_does_not_flatten_the_lines_below_the_limit() -> None:
    svg = line_chart(
        "x", ("n", "ms"), {"p99": [(1, 10), (2, 4000)]}, [Level(40.0, "limit", "limit")]
    )
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', svg)]
    assert heights[0] - heights[1] < 226
    assert heights[0] < 238 - 10


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (12, "12"), (1499.6, "1,500"), (12.34, "12.3"), (1.234, "1.23"),
     (0.1234, "0.123"), (1e-5, "<0.001"), (-3.21, "-3.21")],
)  # fmt: skip
def test_figures_have_three_significant_digits(value: float, text: str) -> None:
    assert figure(value) == text


def test_a_table_aligns_numbers_to_the_right_and_escapes_text() -> None:
    html = table(("stage", "ms"), [("warp", 1.5), ("<b>", None)])
    assert "<th>stage</th><th class=n>ms</th>" in html
    assert "<td class=n>–</td>" in html
    assert "<b>" not in html
