"""Self-reconstruction of mouths: choice of sources and frames, summary, and the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lipstream.bench.measure.mouths import FRAMES, _spread, unseen_clips
from lipstream.bench.measure.reconstruction import (
    Method,
    reconstruct_tracked,
    source_weights,
    summary_of,
)
from lipstream.bench.report.mouths_page import mouths_page
from lipstream.calibration.person.leave_one_out import EXCLUSION_WINDOW_S
from lipstream.engine.errors import UsageError
from lipstream.engine.target.bundle import Target, load_target


@pytest.fixture(scope="module")
def loaded(target: Path) -> Target:
    return load_target(target)


def test_sources_near_in_time_are_excluded(loaded: Target) -> None:
    here, there = loaded.sources[0], replace(loaded.sources[0])
    both = replace(loaded, sources=(here, there), source_frames=np.array([30, 250], np.int32))
    weights = source_weights(both, dict.fromkeys(range(60)))
    near = [i for i in weights if abs(i - 30) < EXCLUSION_WINDOW_S * float(loaded.fps)]
    assert len(weights) == 60 and len(near) > 20
    # A crossfade may still give some weight to the other source in the first frames.
    assert all(max(weights[i], key=lambda one: one[1])[0] is there for i in near[3:])


def test_summary_counts_wins_against_the_first_method() -> None:
    base = Method(None, [{"psnr_db": 20.0, "ssim": 0.8}, {"psnr_db": 30.0, "ssim": 0.9}])
    own = Method(None, [{"psnr_db": 25.0, "ssim": 0.7}, {"psnr_db": 31.0, "ssim": 0.8}])
    summary = summary_of([{"warp": base, "renderer": own, "real": Method(None)}])
    assert summary["renderer"]["psnr_db"] == {"mean": 28.0, "spread": 0.0, "wins": 1.0}
    assert summary["renderer"]["ssim"]["wins"] == 0.0
    assert "wins" not in summary["warp"]["psnr_db"]


def test_a_still_photo_reconstructs_itself(loaded: Target) -> None:
    methods = reconstruct_tracked(loaded, {"warp": None}, None, range(100, 108))
    figures = methods["warp"].figures()
    # The single source of a photo is warped to its own place: only resampling changes it.
    assert figures["psnr_db"]["mean"] > 30
    assert figures["sharpness"]["mean"] == pytest.approx(1.0, abs=0.15)
    page = mouths_page({"photo": methods}, {"tracked": summary_of([methods])})
    assert page.count("<img") == 2 and "psnr_db" in page


def test_frames_are_measured_in_runs_of_neighbours() -> None:
    frames = _spread(range(1000), FRAMES)
    assert len(frames) == FRAMES and len(set(frames)) == FRAMES
    assert np.mean(np.diff(frames) == 1) > 0.9
    assert _spread(range(10), FRAMES) == range(10)


def test_training_clips_are_not_measured(tmp_path: Path) -> None:
    import json

    folder = tmp_path / "video"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (folder / name).write_bytes(b"")
    assert len(unseen_clips(tmp_path)) == 3
    entries = [
        {"file": "video/a.mp4", "use": "everything"},
        {"file": "video/b.mp4", "use": "lip motion only"},
        {"file": "video/c.mp4", "use": "tests and experiments"},
    ]
    (tmp_path / "manifest.json").write_text(json.dumps(entries))
    assert [path.name for path in unseen_clips(tmp_path)] == ["b.mp4", "c.mp4"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no video"):
        unseen_clips(tmp_path / "empty")
