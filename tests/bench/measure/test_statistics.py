"""Confidence intervals, comparison of reports, charts, and the figures of a call."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from lipstream.bench.measure.statistics import change, percentiles
from lipstream.bench.measure.webrtc import figures
from lipstream.bench.report.charts import histogram, line_chart, waterfall
from lipstream.bench.report.compare import Change, compare
from lipstream.engine.errors import UsageError


def report(samples: list[float], sessions: int = 5) -> dict[str, object]:
    run = {"profile": "live", "backend": "x", "renderer": False, "samples_ms": {"warp": samples}}
    held = {**run, "samples_ms": {}, "curve": [], "sessions": sessions}
    return {
        "sections": {
            "latency": {"data": {"runs": [run]}},
            "capacity": {"data": {"runs": [held]}},
        }
    }


def test_percentiles() -> None:
    assert percentiles(list(range(101))) == {
        "p50": 50, "p95": 95, "p99": 99, "max": 100, "mean": 50
    }  # fmt: skip
    assert percentiles([])["p99"] == 0


def test_the_interval_covers_the_true_ratio_as_often_as_it_states() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(60):
        before, after = random.gamma(20, 0.1, 300), 1.2 * random.gamma(20, 0.1, 300)
        _, low, high = change(before.tolist(), after.tolist())
        covered += low <= 20 <= high
    assert covered >= 52


def verdict(before: list[float], after: list[float]) -> str:
    found: list[Change] = compare(report(before), report(after))
    return next(one.verdict for one in found if one.name.endswith("warp"))


def test_noise_is_told_apart_from_a_regression() -> None:
    random = np.random.default_rng(1)
    one, other = (random.gamma(50, 0.04, 400).tolist() for _ in range(2))
    assert verdict(one, other) == "same"
    assert verdict(one, [1.15 * x for x in other]) == "worse"
    assert verdict([1.15 * x for x in one], other) == "better"
    # 20 % of 2 µs is below the least change in ms.
    assert verdict([x / 1000 for x in one], [1.2 * x / 1000 for x in other]) == "same"


def paced(samples: list[float], pace: list[float]) -> dict[str, object]:
    made: dict[str, Any] = report(samples)
    made["sections"]["latency"]["data"]["runs"][0]["samples_ms"]["pace"] = pace
    return made


def test_a_slower_machine_is_not_a_regression() -> None:
    random = np.random.default_rng(2)
    one, other = (random.gamma(50, 0.04, 400) for _ in range(2))
    slow = np.where(np.arange(400) < 250, 1.4, 1.0)  # for 250 frames
    quiet, busy = np.ones(400).tolist(), slow.tolist()
    (same, *_) = [
        x for x in compare(paced(one.tolist(), quiet), paced((slow * other).tolist(), busy))
        if x.name.endswith("warp")
    ]  # fmt: skip
    assert same.verdict == "same"
    assert abs(same.percent) < 5
    (worse, *_) = [
        x for x in compare(paced(one.tolist(), busy), paced((1.2 * other).tolist(), busy))
        if x.name.endswith("warp")
    ]  # fmt: skip
    assert worse.verdict == "worse"
    assert verdict(one.tolist(), (slow * other).tolist()) == "worse"  # without a recorded pace
    assert not any("pace" in x.name for x in compare(paced(quiet, quiet), paced(quiet, quiet)))


def test_capacity_counts_as_changed_from_two_sessions_on() -> None:
    flat = [1.0] * 30
    for sessions, expected in ((4, "same"), (3, "worse"), (7, "better")):
        found = compare(report(flat), report(flat, sessions))
        assert next(x.verdict for x in found if "sustained" in x.name) == expected


def test_reports_without_a_common_measurement_are_refused() -> None:
    empty: dict[str, object] = {"sections": {}}
    with pytest.raises(UsageError, match="no measurement in common"):
        compare(empty, report([1.0] * 30))


def test_a_bar_of_a_waterfall_begins_at_the_end_of_the_previous_one() -> None:
    drawn = waterfall("x", [("a", 1.0), ("b", 3.0)])
    bars = re.findall(r'class="bar" x="([\d.]+)" y="\d+" width="([\d.]+)"', drawn)
    (x0, w0), (x1, w1) = ((float(x), float(w)) for x, w in bars)
    assert x1 == pytest.approx(x0 + w0, abs=0.2)
    assert w1 == pytest.approx(3 * w0, abs=0.4)


def test_charts_escape_and_survive_nothing() -> None:
    assert "<b>" not in line_chart("<b>", ("x", "y"), {"<b>": [(0, 1), (1, 2)], "b": [(0, 0)]})
    assert "Nothing was measured" in line_chart("x", ("x", "y"), {})
    assert "Nothing was measured" in histogram("x", ("x", "y"), [])
    assert line_chart("x", ("x", "y"), {"a": [(2, 5)]}).count("<circle") == 1


def test_delay_and_offset_of_a_synthetic_call() -> None:
    microphone = [1000.0 * k for k in range(1, 40)]
    found = {
        "onsets": {
            "microphone": microphone,
            "picture": [s + 200 for s in microphone],
            "sound": [s + 210 + k for k, s in enumerate(microphone)],
        },
        "settled_ms": 10_000,
        "shown": [[40.0 * k, k + (k > 500)] for k in range(1000)],
    }
    run = figures(found, 120.0)
    assert run["bursts"] == 30
    assert run["delay_ms"]["p50"] == 200
    assert run["own_ms"] == 80
    assert (run["offset_ms"]["min"], run["offset_ms"]["max"]) == (19, 48)
    assert run["offset_drift_ms_per_min"] == pytest.approx(60, abs=0.1)
    assert (run["skipped"], run["repeated"]) == (1, 0)
    with pytest.raises(UsageError, match="bursts at the microphone"):
        figures({**found, "settled_ms": 1e9}, 120.0)
