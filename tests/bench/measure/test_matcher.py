"""The benchmark of the frame matcher: its gap to the optimum, and its parameters."""

import pytest

from lipstream.bench.measure import matcher
from lipstream.bench.measure.matcher import matcher_bench


def test_the_gap_closes_with_the_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matcher, "ceilings", lambda: {"copy_gb_s": 10.0, "gmac_s_f32": 50.0})
    result = matcher_bench(frames=60, clip_frames=60, clips=3, repeats=3)
    assert result["optimum"] == pytest.approx(result["textbook_optimum"], rel=1e-5)
    gaps = [row["gap_percent"] for row in result["gap"]]
    assert min(gaps) > -1e-3
    assert gaps[-1] < gaps[0]
    assert [row["lag_frames"] for row in result["gap"]] == [0, 1, 2, 3, 5, 10, 15, 25]
    assert [row["frames"] for row in result["time"]] == [500, 1000, 2000, 5000, 10_000, 15_000]
