"""The measures of painted mouths: what is equal scores as equal, what is worse scores as worse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lipstream.bench.measure.mouths import FRAMES, _spread, unseen_clips
from lipstream.bench.measure.reconstruction import (
    Method,
    _sources,
    reconstruct_tracked,
    strips_page,
    summary_of,
)
from lipstream.calibration.person.leave_one_out import EXCLUSION_WINDOW_S
from lipstream.engine.errors import UsageError
from lipstream.engine.target.bundle import Target, load_target


@pytest.fixture(scope="module")
def loaded(target: Path) -> Target:
    return load_target(target)


def test_no_mouth_lends_to_its_own_moment(loaded: Target) -> None:
    here, there = loaded.sources[0], replace(loaded.sources[0])
    both = replace(loaded, sources=(here, there), source_frames=np.array([30, 250], np.int32))
    lent = _sources(both, dict.fromkeys(range(60)))
    near = [i for i in lent if abs(i - 30) < EXCLUSION_WINDOW_S * float(loaded.fps)]
    assert len(lent) == 60 and len(near) > 20
    # A fade may still show a rest of the other one as the moment comes near.
    assert all(max(lent[i], key=lambda one: one[1])[0] is there for i in near[3:])


def test_summary_counts_wins_against_the_first_way() -> None:
    base = Method(None, [{"psnr_db": 20.0, "ssim": 0.8}, {"psnr_db": 30.0, "ssim": 0.9}])
    own = Method(None, [{"psnr_db": 25.0, "ssim": 0.7}, {"psnr_db": 31.0, "ssim": 0.8}])
    told = summary_of([{"warp": base, "network": own, "real": Method(None)}])
    assert told["network"]["psnr_db"] == {"mean": 28.0, "spread": 0.0, "wins": 1.0}
    assert told["network"]["ssim"]["wins"] == 0.0
    assert "wins" not in told["warp"]["psnr_db"]


def test_a_still_photo_repaints_itself(loaded: Target) -> None:
    ways = reconstruct_tracked(loaded, {"warp": None}, None, range(100, 108))
    figures = ways["warp"].figures()
    # The one mouth of a photo lies where it was: only resampling is lost.
    assert figures["psnr_db"]["mean"] > 30
    assert figures["sharpness"]["mean"] == pytest.approx(1.0, abs=0.15)
    page = strips_page({"photo": ways}, {"tracked": summary_of([ways])})
    assert page.count("<img") == 2 and "psnr_db" in page


def test_runs_of_neighbours_are_taken() -> None:
    frames = _spread(range(1000), FRAMES)
    assert len(frames) == FRAMES and len(set(frames)) == FRAMES
    assert np.mean(np.diff(frames) == 1) > 0.9
    assert _spread(range(10), FRAMES) == range(10)


def test_clips_that_were_learned_from_do_not_judge(tmp_path: Path) -> None:
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
