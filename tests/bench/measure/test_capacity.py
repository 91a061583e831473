"""Capacity in one process and in several, in one run."""

from __future__ import annotations

import pytest

from lipstream.bench import suite
from lipstream.bench.measure.latency import Setting
from lipstream.bench.report.compare import capacity_name
from lipstream.bench.suite import Configurations, capacity_sections, capacity_text
from lipstream.cli_bench import _counts


def test_one_run_measures_each_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def measured(
        target: object, setting: Setting, seconds: float, report: object, processes: int
    ) -> dict[str, object]:
        asked.append(processes)
        row = {"sessions": 1, "p50": 1.0, "p99": 2.0, "cores": 0.5, "others_cores": 0.0}
        return {
            "profile": "live", "backend": "native", "renderer": False, "size": [512, 512],
            "processes": processes, "sessions": 2 + processes, "curve": [{**row, "held": True}],
        }  # fmt: skip

    monkeypatch.setattr(suite, "measure_capacity", measured)
    monkeypatch.setattr(Configurations, "settings", lambda self, target: [Setting()])
    sections = capacity_sections(
        None, Configurations(("live",), ("auto",), ("none",)), 1.0, None, processes=(0, 1, 2)
    )
    assert asked == [0, 1, 2]
    names = [capacity_name(run) for run in sections["capacity"]["runs"]]
    assert len(set(names)) == 3
    text = capacity_text(sections)
    assert f"{names[0]}: 2 conversations" in text and names[0].endswith("512x512")
    assert "512x512, 1 process: 3 conversations" in text
    assert "512x512, 2 processes: 4 conversations" in text


def test_numbers_of_processes_are_numbers() -> None:
    assert _counts("0") == (0,) and _counts("1, 2") == (1, 2)
    for text in ("", "two", "-1", "1;2"):
        with pytest.raises(Exception, match="such as 1,2"):
            _counts(text)
