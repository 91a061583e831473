"""Choice of settings, search for the capacity, throughput on the demo, and `bench all`."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiortc", reason="aiortc is not installed")

from lipstream import cli  # noqa: E402
from lipstream.bench import suite  # noqa: E402
from lipstream.bench.machine import on_cores  # noqa: E402
from lipstream.bench.measure import capacity, throughput  # noqa: E402
from lipstream.bench.measure.capacity import _search  # noqa: E402
from lipstream.bench.measure.latency import Setting  # noqa: E402
from lipstream.bench.report.page import read_report  # noqa: E402
from lipstream.bench.suite import Configurations, everything  # noqa: E402
from lipstream.engine.errors import BackendUnavailable, UsageError  # noqa: E402
from lipstream.engine.target.bundle import Target, load_target  # noqa: E402


@pytest.fixture(scope="module")
def loaded(target: Path) -> Target:
    return load_target(target)


def test_all_backends_are_measured_once_and_missing_ones_left_out(loaded: Target) -> None:
    configurations = Configurations(("low", "live"), ("all",), ("none",))
    found = [(one.profile, one.backend) for one in configurations.settings(loaded)]
    assert len(found) == len(set(found))
    assert [profile for profile, _ in found[:2]] == ["low", "live"]
    assert ("live", "numpy") in found
    assert ("low", "numpy") not in found or found[0][1] == "numpy"
    with pytest.raises(BackendUnavailable):
        Configurations(("live",), ("numpy",), ("network",)).settings(loaded)
    with pytest.raises(UsageError, match="expected low, live or studio"):
        Configurations(("file",), ("auto",), ("none",)).settings(loaded)


@pytest.mark.parametrize(("most", "guess"), [(5, 1), (5, 5), (5, 8), (0, 3), (64, 63)])
def test_a_capacity_is_found_from_any_guess(
    monkeypatch: pytest.MonkeyPatch, most: int, guess: int
) -> None:
    def hold(engine: object, fps: Fraction, count: int, seconds: float) -> dict[str, Any]:
        return {"sessions": count, "held": count <= most}

    monkeypatch.setattr(capacity, "_hold", hold)
    tried = _search(object(), Fraction(25), guess, 1.0)  # type: ignore[arg-type]
    assert max((row["sessions"] for row in tried if row["held"]), default=0) == most
    assert len(tried) <= abs(most - guess) + 2


def test_cores_are_restored() -> None:
    before = os.sched_getaffinity(0)
    with on_cores(1):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


@pytest.mark.alone
def test_throughput_by_every_parameter(monkeypatch: pytest.MonkeyPatch, target: Path) -> None:
    monkeypatch.setattr(throughput, "SIZES_PX", (256,))
    monkeypatch.setattr(throughput, "TRACKS", (700,))
    monkeypatch.setattr(throughput, "WARM_UP_S", 0.2)
    monkeypatch.setattr(throughput, "_doubling", lambda cores: [2 * cores])
    found = throughput.measure_throughput(target, Setting(renderer="none"), 1, seconds=0.5)
    rows = {(row["by"], row["value"]): row for row in found["rows"]}
    assert set(rows) == {
        ("sessions", 2), ("processes", 2), ("cores", 1), ("size", 256), ("track", 700)
    }  # fmt: skip
    for row in rows.values():
        assert 0 < row["fps"] < row["roofline_fps"]
        assert len(row["samples_ms"]) > 1
    assert len(rows["sessions", 2]["per_worker"]) == 2


def test_everything_without_clips_has_no_quality() -> None:
    parts = everything(None, None, 1.0)
    assert list(parts) == [
        "latency", "capacity", "throughput", "webrtc", "matcher", "kernels", "quality"
    ]  # fmt: skip
    with pytest.raises(UsageError, match="--data"):
        parts["quality"](None)


def test_bench_all_leaves_out_what_cannot_be_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    row = {"compiled_ms": 0.1, "numpy_ms": 10.0, "ratio": 100.0}

    def kernels(report: object) -> tuple[dict[str, Any], str]:
        return {"kernels": {"kernels": {"blend": row}}}, "blend 100x"

    def webrtc(report: object) -> tuple[dict[str, Any], str]:
        raise UsageError("no Chromium")

    parts = {"webrtc": webrtc, "kernels": kernels}
    monkeypatch.setattr(suite, "everything", lambda target, data, seconds: parts)
    with pytest.raises(SystemExit) as ended:
        cli.app(["bench", "all", "--report", str(tmp_path), "--json"])
    assert not ended.value.code
    out, err = capfd.readouterr()
    values = json.loads(out)
    assert values["measured"] == ["kernels"]
    assert values["left_out"] == {"webrtc": "no Chromium"}
    assert "webrtc left out: no Chromium" in err
    assert list(read_report(tmp_path)["sections"]) == ["kernels"]
    assert "blend" in (tmp_path / "report.html").read_text()
